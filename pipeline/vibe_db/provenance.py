"""What the format has no place for, beside a database file: where it comes from, and whether it is a stand-in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.errors import RawDataError
from pipeline.raw.files import read_regular

SUFFIX: Final = ".provenance.json"
MAX_BYTES: Final = 1 << 20


def beside(file: Path) -> Path:
    """Where the provenance of a database file lies."""
    return file.with_name(file.name + SUFFIX)


def write_provenance(file: Path, told: Mapping[str, Any]) -> None:
    """Put it into its place at one instant."""
    place = beside(file)
    part = place.with_name(f".{place.name}.part")
    with part.open("w") as stream:
        json.dump(told, stream, indent=1, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(place)


def read_provenance(file: Path, sha256: str) -> dict[str, Any]:
    """What lies beside a file of this sha256; empty when nothing does.

    Raises RawDataError for what is no provenance, and for that of other content.
    """
    place = beside(file)
    try:
        told = json.loads(read_regular(place, MAX_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        do = f"Take it as it was written, or remove it: then nothing is known of {file.name}."
        raise RawDataError(place, "file", expected="JSON", found=f"{type(error).__name__}: {error}", do=do) from error
    if not isinstance(told, dict) or told.get("sha256") != sha256 or not isinstance(told.get("stand_in"), bool):
        found = told.get("sha256") if isinstance(told, dict) else type(told).__name__
        do = f"It belongs to other content: bring the one that was written with {file.name}, or remove it."
        raise RawDataError(place, "sha256", expected=f"{sha256}, as {file.name} has", found=str(found), do=do)
    return told
