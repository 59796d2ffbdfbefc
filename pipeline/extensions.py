"""What the extensions add, by name: this table, so that no installed metadata decides what a clone has.

Other packages register theirs by entry points of the same groups: `plug_ins`. Modules are imported on use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EXTENSIONS: Final[Mapping[str, Mapping[str, str]]] = {  # group -> name -> "module:object"
    "vibe_pipeline.datasets": {
        "bedlam": "vibe_extensions.world.bedlam:Bedlam",
        "bedlam2": "vibe_extensions.world.bedlam:Bedlam2",
        "emdb": "vibe_extensions.world.emdb:Emdb",
    },
    "vibe_pipeline.streams": {
        "blaze_joints": "pipeline.features.streams.blaze:BlazeJoints",
        "cam_angvel": "vibe_extensions.world.streams:CamAngvel",
        "hmr2": "vibe_extensions.world.streams:Hmr2",
        "homography": "vibe_extensions.part_dynamics.streams:Homography",
        "imported": "vibe_extensions.exchange.arrays:Imported",
        "onnx": "pipeline.features.streams.onnx:Onnx",
        "pr_vipe": "vibe_extensions.part_dynamics.streams:PrVipe",
        "stationary": "vibe_extensions.world.streams:Stationary",
    },
    "vibe_pipeline.detectors": {
        "demo": "vibe_extensions.demo.detector:Demo",
        "blaze_pose": "pipeline.clips.detectors.blaze_pose:BlazePose",
        "rtmpose": "pipeline.clips.detectors.rtmpose:RTMPose",
    },
    "vibe_pipeline.commands": {
        "bodies": "vibe_extensions.anny:BODIES",
        "detect": "vibe_extensions.clips:DETECT",
        "export": "vibe_extensions.exchange:EXPORT",
        "fits": "vibe_extensions.world:FITS",
        "import": "vibe_extensions.exchange:IMPORT",
        "leaks": "vibe_extensions.contracts:LEAKS",
        "predict": "vibe_extensions.clips:PREDICT",
        "report": "vibe_extensions.pages:REPORT",
        "show": "vibe_extensions.pages:SHOW",
        "synthesize": "vibe_extensions.demo:SYNTHESIZE",
        "try": "vibe_extensions.anny:TRY",
    },
    "vibe_pipeline.demo": {
        "demo": "vibe_extensions.demo:DEMO",
    },
    "vibe_pipeline.exports": {
        "gvhmr": "vibe_extensions.world.gvhmr:FORMAT",
        "parquet": "vibe_extensions.exchange.formats:PARQUET",
        "rerun": "vibe_extensions.exchange.formats:RERUN",
        "vibe": "vibe_extensions.exchange.formats:VIBE",
        "wham": "vibe_extensions.world.wham:FORMAT",
    },
    "vibe_pipeline.models": {
        "hmmr": "vibe_extensions.hmmr:MODEL",
        "part_dynamics": "vibe_extensions.part_dynamics:MODEL",
    },
    "vibe_pipeline.protocols": {
        "emdb": "vibe_extensions.world.metrics:EMDB",
        "hmmr": "vibe_extensions.hmmr.protocol:HMMR",
    },
    "vibe_pipeline.recompute": {
        "contracts": "vibe_extensions.contracts.recompute:recompute",
    },
    "vibe_pipeline.sections": {
        "mposer": "vibe_model.sections:SECTIONS",
        "pose_embedding": "vibe_extensions.part_dynamics.pr_vipe.config:SECTIONS",
        "vibe": "vibe_model.sections:SECTIONS",
    },
    "vibe_pipeline.tasks": {
        "EvaluateHMMR": "vibe_extensions.hmmr.training_task:EvaluateHMMR",
        "EvaluatePartDynamics": "vibe_extensions.part_dynamics.embedding_task:EvaluatePartDynamics",
        "Report": "vibe_extensions.pages.report_task:Report",
        "TrainHMMR": "vibe_extensions.hmmr.training_task:TrainHMMR",
        "TrainPartDynamics": "vibe_extensions.part_dynamics.embedding_task:TrainPartDynamics",
        "TrainPrVIPE": "vibe_extensions.part_dynamics.embedding_task:TrainPrVIPE",
    },
}
