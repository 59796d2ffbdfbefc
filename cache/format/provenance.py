"""When, where and with what a commit was made: beside the manifest, outside what is the same to the byte.  [cache]

These notes are only for people, so a damaged file of them stops no work: `verify` reports it, and the next commit
replaces it.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final

from cache.format.layout import PROVENANCE, json_file
from cache.format.place import Place

_SOFTWARE: Final = ("vibe-pipeline", "numpy", "zarr", "google-crc32c")


def add_provenance(place: Place, digest: str, given: Mapping[str, Any], started: float) -> None:
    """Note how the commit `digest` came about, before it is made: a note without its commit does no harm."""
    software = {}
    for name in _SOFTWARE:
        with suppress(metadata.PackageNotFoundError):
            software[name] = metadata.version(name)
    note = {
        **given,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "software": software,
    }
    write_provenance(place, {**read_provenance(place), digest: note})


def write_provenance(place: Place, notes: Mapping[str, Any]) -> None:
    """Write the notes of all commits, by their manifests' digests."""
    place.store.put_small({f"{place.home}/{PROVENANCE}": json_file({"commits": notes})}, place.home)


def read_provenance(place: Place) -> dict[str, Any]:
    """How each commit came about, by its manifest's digest; {} where there is no such file, or a damaged one."""
    try:
        notes: dict[str, Any] = json.loads(place.store.read(f"{place.home}/{PROVENANCE}"))["commits"]
        return notes if all(isinstance(entry, dict) for entry in notes.values()) else {}
    except (ValueError, OSError, TypeError, KeyError, AttributeError):
        return {}


def provenance_problem(place: Place) -> str:
    """The message for a damaged file; "" for an intact one, or none."""
    key = f"{place.home}/{PROVENANCE}"
    if read_provenance(place) or not place.store.exists(key):
        return ""
    do = "How the data were made is not known; the data are intact. The next commit replaces the file."
    return f"{place.store.location(key)}: expected notes on commits, found something else. {do}"
