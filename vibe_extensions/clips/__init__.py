"""For your own videos: detectors, and bodies predicted in clips. See README.md."""

from pipeline.cli.command_line import CommandEntry

PREDICT = CommandEntry(
    "vibe_extensions.clips.commands.predict",
    "Predict bodies in clips or a photo, or on a split of a cache: an npz a person, and a video of the bodies.",
    "tasks",
)
