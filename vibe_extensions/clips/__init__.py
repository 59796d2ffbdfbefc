"""Detectors for your own videos, and bodies predicted in them. See README.md."""

from pipeline.plug_ins import CommandEntry

DETECT = CommandEntry(
    "pipeline.commands.detect", "Detect people and their keypoints in every frame of a folder of clips."
)
PREDICT = CommandEntry(
    "vibe_extensions.clips.commands.predict",
    "Predict bodies in a clip, a folder of clips or a split of a cache: one NPZ file per person, and a video.",
    "tasks",
)
