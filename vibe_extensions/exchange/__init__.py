"""Files of other programs: VIBE's databases, Parquet, WebDataset, Rerun. See README.md."""

from pipeline.cli.command_line import CommandEntry

EXPORT = CommandEntry("vibe_extensions.exchange.commands.export", "Write one split as files that other programs read.")
IMPORT = CommandEntry(
    "vibe_extensions.exchange.commands.import_",
    "Make a split, with its features, from a database file of VIBE's or TCMR's scripts.",
)
