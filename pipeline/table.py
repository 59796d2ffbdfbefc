"""Table of all built-in datasets, streams, detectors, models, exports and commands.

A module is imported only when its name is used. Other packages register theirs by entry points of
the same groups (`plug_ins`), except commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.cli.help import CommandEntry

DEMO_BODY: Final = "pipeline.extras.demo.body:procedural"  # what `Body.stand_in` loads

# group of entry points -> name -> "module:object"; lists of names have this order
OWN: Final[dict[str, dict[str, str]]] = {
    "vibe_pipeline.datasets": {
        "penn_action": "pipeline.datasets.penn_action:PennAction",
        "posetrack": "pipeline.datasets.posetrack:PoseTrack",
        "insta_variety": "pipeline.datasets.insta_variety:InstaVariety",
        "kinetics": "pipeline.datasets.kinetics:Kinetics",
        "mpi_inf_3dhp": "pipeline.datasets.mpi_inf_3dhp:MpiInf3dhp",
        "h36m": "pipeline.datasets.h36m.reader:Human36M",
        "3dpw": "pipeline.datasets.threedpw:ThreeDPW",
        "emdb": "pipeline.datasets.emdb:Emdb",
        "rich": "pipeline.datasets.rich.reader:Rich",
        "bedlam": "pipeline.datasets.bedlam:Bedlam",
        "bedlam2": "pipeline.datasets.bedlam:Bedlam2",
        "amass": "pipeline.datasets.amass:Amass",
        "videos": "pipeline.datasets.videos:OwnVideos",
    },
    "vibe_pipeline.streams": {
        "resnet50": "pipeline.features.streams.network:ResNet50",
        "torchvision": "pipeline.features.streams.torchvision:Torchvision",
        "timm": "pipeline.features.streams.timm:Timm",
        "blaze_joints": "pipeline.features.streams.blaze:BlazeJoints",
        "cam_angvel": "pipeline.extras.streams.world:CamAngvel",
        "hmr2": "pipeline.extras.streams.world:Hmr2",
        "homography": "pipeline.features.streams.homography:Homography",
        "imported": "pipeline.extras.exchange.arrays:Imported",
        "onnx": "pipeline.features.streams.onnx:Onnx",
        "pr_vipe": "vibe_model.part_dynamics.streams:PrVipe",
        "stationary": "pipeline.extras.streams.world:Stationary",
    },
    "vibe_pipeline.detectors": {
        "blaze_pose": "pipeline.clips.detectors.blaze_pose:BlazePose",
        "demo": "pipeline.extras.demo.detector:Demo",
        "rtmpose": "pipeline.clips.detectors.rtmpose:RTMPose",
    },
    "vibe_pipeline.exports": {
        "gvhmr": "pipeline.extras.exchange.formats:GVHMR",
        "parquet": "pipeline.extras.exchange.formats:PARQUET",
        "rerun": "pipeline.extras.exchange.formats:RERUN",
        "vibe": "pipeline.extras.exchange.formats:VIBE",
        "wham": "pipeline.extras.exchange.formats:WHAM",
    },
    "vibe_pipeline.models": {
        "vibe": "vibe_model.vibe.config:MODEL",
        "hmmr": "vibe_model.hmmr:MODEL",
        "part_dynamics": "vibe_model.part_dynamics:MODEL",
    },
}

COMMANDS: Final[Mapping[str, Mapping[str, CommandEntry]]] = {
    "pipeline": {
        "try": CommandEntry(
            "start",
            "pipeline.extras.bodies.commands.try_clip",
            "pipeline.extras.bodies.commands.options:try_clip",
            "Try everything on a real clip that it downloads: people, joints, bodies, and a page "
            "about them.",
            ("", "--out try"),
            "own",
        ),
        "init": CommandEntry(
            "start",
            "pipeline.commands.init",
            "pipeline.commands.options.steps:init",
            "Write a luigi.cfg for the demo data, or with --real for your downloads.",
            ("work", "work --real --raw raw --body smpl --weights spin:model_checkpoint.pt"),
            "own",
        ),
        "doctor": CommandEntry(
            "start",
            "pipeline.commands.doctor",
            "pipeline.commands.options.steps:doctor",
            "Check the raw folders: what is complete, what is missing, and how to get it.",
            ("penn_action --raw raw", "--raw raw --body smpl"),
        ),
        "config": CommandEntry(
            "start",
            "pipeline.commands.config",
            "pipeline.commands.options.steps:config",
            "Print the settings that differ from their defaults, or all.",
            ("", "vibe --all"),
        ),
        "synthesize": CommandEntry(
            "start",
            "pipeline.extras.demo.writing",
            "pipeline.extras.demo.options:synthesize",
            "Write demo data: small synthetic datasets in the official layouts, and a demo body.",
            ("--out demo", "--out demo --size tiny"),
            "own",
        ),
        "check": CommandEntry(
            "look",
            "pipeline.show.check",
            "pipeline.commands.options.pages:check",
            "Show what is read from a file of people in a clip, before anything is converted.",
            ("people.json dance.mp4", "people.json dance.mp4 --out check.html"),
            "output",
        ),
        "show": CommandEntry(
            "look",
            "pipeline.show.command",
            "pipeline.commands.options.pages:show",
            "Draw boxes, crops and skeletons of some tracks on an HTML page, from the cache or "
            "from raw files.",
            (
                "videos/train --cache data/mine --out tracks",
                "videos/train --cache data/mine --video dance.mp4 --out dance.html",
            ),
            "output",
        ),
        "status": CommandEntry(
            "look",
            "pipeline.commands.status",
            "pipeline.commands.options.caches:status",
            "Show the contents of a cache: videos, tracks, kept and dropped frames, streams.",
            ("--cache data/mine", "videos/train --cache data/mine --tracks"),
            "own",
        ),
        "plan": CommandEntry(
            "look",
            "pipeline.commands.plan",
            "pipeline.commands.options.steps:plan",
            "Show what `luigi --module tasks Data` would convert and extract, and why.",
            ("", "penn_action/train --all"),
        ),
        "leaks": CommandEntry(
            "look",
            "pipeline.commands.leaks",
            "pipeline.commands.options.caches:leaks",
            "List people and recordings that training splits (named train) share with other "
            "splits.",
            ("--cache cache-real", "--cache cache-real --all"),
        ),
        "prepare": CommandEntry(
            "make",
            "pipeline.commands.prepare",
            "pipeline.commands.options.steps:prepare",
            "Prepare a dataset or your own clips: detect missing keypoints, convert all splits, "
            "extract features, draw a page of tracks. Run it again to resume, or after adding "
            "videos.",
            (
                "videos --raw clips --cache data/mine --detector blaze_pose --stream blaze_joints",
                "penn_action --raw raw/penn_action --cache cache-real --plan",
            ),
            "output",
        ),
        "detect": CommandEntry(
            "make",
            "pipeline.commands.detect",
            "pipeline.commands.options.steps:detect",
            "Detect people and their keypoints in every frame of a folder of clips.",
            (
                "clips --out clips/keypoints",
                "clips --out clips/keypoints --detector blaze_pose --every 5",
            ),
            "own",
        ),
        "convert": CommandEntry(
            "make",
            "pipeline.commands.convert",
            "pipeline.commands.options.steps:convert",
            "Convert one split of a raw dataset into the cache.",
            (
                "penn_action/train --raw raw/penn_action --cache cache-real",
                "videos/train --cache data/mine --set videos.min_frames=10",
            ),
        ),
        "extract": CommandEntry(
            "make",
            "pipeline.commands.extract",
            "pipeline.commands.options.steps:extract",
            "Compute the missing rows of feature streams.",
            (
                "penn_action/train --cache cache-real --weights torchvision:IMAGENET1K_V2",
                "videos/train --cache data/mine --stream blaze_joints",
            ),
        ),
        "bodies": CommandEntry(
            "make",
            "pipeline.extras.bodies.commands.bodies",
            "pipeline.extras.bodies.commands.options:bodies",
            "Fit a body without SMPL to a stream of joints in metres: one NPZ file per person, "
            "and a video.",
            (
                "videos/train --cache data/mine",
                "videos/train --cache data/mine --age 0.33 --out bodies",
            ),
            "output",
        ),
        "verify": CommandEntry(
            "keep",
            "pipeline.commands.verify",
            "pipeline.commands.options.caches:verify",
            "Check every byte of a cache against its manifests.",
            ("--cache cache-real", "penn_action/train --cache cache-real --fast"),
        ),
        "gc": CommandEntry(
            "keep",
            "pipeline.commands.gc",
            "pipeline.commands.options.caches:gc",
            "Delete files that no manifest references, such as those of killed runs and replaced "
            "data.",
            ("--cache cache-real --dry-run", "--cache cache-real --erase"),
        ),
        "copy": CommandEntry(
            "keep",
            "pipeline.commands.copy",
            "pipeline.commands.options.caches:copy",
            "Copy splits and their streams into another cache, without rows of replaced and "
            "removed videos.",
            (
                "3dpw --cache cache-real --to /backup/cache",
                "--cache cache-real --to s3://bucket/cache --streams resnet50",
            ),
            "own",
        ),
        "tag": CommandEntry(
            "keep",
            "pipeline.commands.tag",
            "pipeline.commands.options.caches:tag",
            "Give the current state of a cache a name, by which it can be read later.",
            ("paper --cache cache-real", "paper --cache cache-real --delete"),
            "own",
        ),
        "import": CommandEntry(
            "exchange",
            "pipeline.extras.exchange.commands.import_",
            "pipeline.extras.exchange.commands.options:import_",
            "Make a split with features from a database file of VIBE or TCMR, or a stream from "
            "any array.",
            (
                "3dpw_test_db.pt 3dpw/test --cache cache-real",
                "features.npy videos/train --cache data/mine --format arrays --as mine",
            ),
        ),
        "export": CommandEntry(
            "exchange",
            "pipeline.extras.exchange.commands.export",
            "pipeline.extras.exchange.commands.options:export",
            "Write splits as files for other programs.",
            (
                "3dpw/train 3dpw/test --cache cache-real --format parquet --out tables",
                "videos/train --cache data/mine --format rerun --out tracks.rrd",
            ),
            "new",
        ),
        "fits": CommandEntry(
            "exchange",
            "pipeline.extras.exchange.fits",
            "pipeline.extras.exchange.commands.options:fits",
            "Read SMPL fits of 4D-Humans or CameraHMR into a dataset's raw folder, for its "
            "option `fits`.",
            ("000000.tar 000001.tar --raw raw/insta_variety", "fits.npz --raw raw/insta_variety"),
            "own",
        ),
    },
    "tasks": {
        "train": CommandEntry(
            "make",
            "tasks.commands.train",
            "tasks.options:train",
            "Train on the cache by luigi.cfg; under torchrun, several processes train as one.",
            ("", "--model hmmr --seed 1"),
        ),
        "predict": CommandEntry(
            "make",
            "tasks.commands.predict",
            "tasks.options:predict",
            "Predict bodies in a clip, a folder of clips or a split of a cache: one NPZ file per "
            "person, and a video.",
            (
                "dance.mp4 --cache data/mine --checkpoint runs/vibe/best.pt",
                "videos/train --cache data/mine --checkpoint runs/vibe/best.pt --out bodies",
            ),
            "output",
        ),
        "evaluate": CommandEntry(
            "look",
            "tasks.commands.evaluate",
            "tasks.options:evaluate",
            "Evaluate a checkpoint on splits of the cache by all protocols, beside published "
            "figures.",
            (
                "--checkpoint runs/vibe/best.pt --split 3dpw/test",
                "--checkpoint model.pth.tar --protocol published --out results",
            ),
            "output",
        ),
        "report": CommandEntry(
            "look",
            "tasks.report.task",
            "tasks.options:report",
            "Write a page about the current data, training and results, without converting or "
            "training.",
            ("", "--run runs/vibe --out report.html"),
            "output",
        ),
    },
}
