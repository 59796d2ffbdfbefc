"""GVHMR's hmr4d_support folders.  tracks, features -> [files of other programs]"""

from typing import Final

from vibe_extensions.exchange.formats import ExportFormat

FORMAT: Final = ExportFormat(
    "vibe_extensions.world.gvhmr.export:export",
    "a folder hmr4d_support of GVHMR, of AMASS or BEDLAM with SMPL-X labels",
    options="vibe_extensions.world.gvhmr.export:GvhmrOptions",
)
