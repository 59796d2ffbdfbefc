"""Anny's body, fitted to joints in metres. See README.md."""

from pipeline.plug_ins import CommandEntry

BODIES = CommandEntry(
    "vibe_extensions.anny.commands.bodies",
    "Fit a body without SMPL to a stream of joints in metres: one NPZ file per person, and a video.",
)
TRY = CommandEntry(
    "vibe_extensions.anny.commands.try_clip",
    "Try everything on a real clip that it downloads: people, joints, bodies, and a page about them.",
)
