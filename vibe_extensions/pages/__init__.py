"""HTML pages: tracks of a split (`show`), and a report on a cache and its training runs (`report`). See README.md."""

from pipeline.plug_ins import CommandEntry

SHOW = CommandEntry(
    "vibe_extensions.pages.commands.show",
    "Draw boxes, crops and skeletons of some tracks on an HTML page, from the cache or from raw files.",
)
REPORT = CommandEntry(
    "vibe_extensions.pages.report_task",
    "Write a page about the current data, training and results, without converting or training.",
    "tasks",
)
