"""Pages to look at: tracks of a split (`show`), and everything about a cache and its runs (`report`). See README.md."""

from pipeline.cli.command_line import CommandEntry

SHOW = CommandEntry(
    "vibe_extensions.pages.commands.show",
    "Draw boxes, crops and skeletons of some tracks on one HTML page, from the cache or from raw files.",
)
REPORT = CommandEntry(
    "vibe_extensions.pages.commands.report",
    "Write one page about the current data, training and results; nothing is converted or trained.",
    "tasks",
)
