"""Files of other programs: VIBE's databases, Parquet, Rerun. See README.md."""

from pipeline.plug_ins import CommandEntry

EXPORT = CommandEntry("vibe_extensions.exchange.commands.export", "Write a split as files for other programs.")
IMPORT = CommandEntry(
    "vibe_extensions.exchange.commands.import_",
    "Make a split with features from a database file of VIBE or TCMR, or a stream from any array.",
)
