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
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final

from cache.format.layout import PROVENANCE, json_file
from cache.format.manifest import Place

_SOFTWARE: Final = ("vibe-pipeline", "numpy", "zarr", "google-crc32c")


def add_provenance(place: Place, digest: str, given: Mapping[str, Any], started: float) -> None:
    """Note how the commit `digest` came about, before it is made: a note without its commit does no harm."""
    notes = read_provenance(place)
    notes[digest] = {
        **given,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "software": {name: version for name in _SOFTWARE if (version := _version(name))},
    }
    write_provenance(place, notes)


def write_provenance(place: Place, notes: Mapping[str, Any]) -> None:
    """Write the notes of all commits, by their manifests' digests."""
    place.store.put_small({f"{place.home}/{PROVENANCE}": json_file({"commits": notes})}, place.home)


def read_provenance(place: Place) -> dict[str, Any]:
    """How each commit came about, by its manifest's digest; {} where there is no such file, or a damaged one."""
    return _parsed(place)[0]


def provenance_problem(place: Place) -> str:
    """The message for a damaged file; "" for an intact one, or none."""
    return _parsed(place)[1]


def _parsed(place: Place) -> tuple[dict[str, Any], str]:
    key = f"{place.home}/{PROVENANCE}"
    try:
        notes = json.loads(place.store.read(key))
    except FileNotFoundError:
        return {}, ""
    except (ValueError, OSError) as error:
        found = str(error)
    else:
        commits = notes.get("commits") if isinstance(notes, dict) else None
        if isinstance(commits, dict) and all(isinstance(entry, dict) for entry in commits.values()):
            return commits, ""
        found = "something else in JSON"
    do = "How the data were made is not known; the data are intact. The next commit replaces the file."
    return {}, f"{place.store.location(key)}: expected notes on commits, found {found}. {do}"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
