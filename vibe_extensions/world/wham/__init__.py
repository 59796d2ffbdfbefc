"""WHAM's dataset/parsed_data files.  tracks, features -> [files of other programs]"""

from typing import Final

from vibe_extensions.exchange.formats import ExportFormat

FORMAT: Final = ExportFormat(
    "vibe_extensions.world.wham.export:export",
    "a file of WHAM's dataset/parsed_data",
    options="vibe_extensions.world.wham.export:WhamOptions",
)
