"""Datasets, streams and files for models of motion in world coordinates, such as WHAM. See README.md."""

from pipeline.plug_ins import CommandEntry

FITS = CommandEntry(
    "vibe_extensions.world.commands.fits",
    "Read SMPL fits of 4D-Humans or CameraHMR into a dataset's raw folder, for its option `fits`.",
)
