"""Demo data: small rendered datasets in the official layouts, and a procedural body. See README.md."""

from typing import Final

from pipeline.plug_ins import CommandEntry, DemoData, lazy_function

SYNTHESIZE: Final = CommandEntry(
    "vibe_extensions.demo.commands.synthesize",
    "Write demo data: small synthetic datasets in the official layouts, and a demo body.",
)
RELEASES: Final = (  # official releases that demo data imitates
    *("penn_action", "posetrack", "insta_variety", "kinetics", "mpi_inf_3dhp"),
    *("h36m", "3dpw", "emdb", "bedlam", "amass"),
)
DEMO: Final = DemoData(
    datasets=(*RELEASES, "videos"),
    is_current=lazy_function("vibe_extensions.demo.writing:is_current"),
    synthesize=lazy_function("vibe_extensions.demo.writing:synthesize"),
    procedural_body=lazy_function("vibe_extensions.demo.body:procedural"),
    calibration_crops=lazy_function("vibe_extensions.demo.scene:calibration_crops"),
)
