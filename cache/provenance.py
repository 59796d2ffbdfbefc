"""When, where and with what a commit was made: beside the manifest, outside what is the same to the byte."""

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

from cache.errors import CacheError
from cache.layout import PROVENANCE, json_file
from cache.manifest import Place

_SOFTWARE: Final = ("vibe-pipeline", "numpy", "zarr", "google-crc32c")


def add_provenance(place: Place, digest: str, given: Mapping[str, Any], started: float) -> None:
    """Note how the commit `digest` came about, before it is made: a note without its commit harms nobody."""
    notes = read_provenance(place)
    notes["commits"][digest] = {
        **given,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "software": {name: version for name in _SOFTWARE if (version := _version(name))},
    }
    place.store.put_small({f"{place.home}/{PROVENANCE}": json_file(notes)}, place.home)


def read_provenance(place: Place) -> dict[str, Any]:
    """{"commits": {manifest digest: how it came about}}; no commits when there is no such file."""
    key = f"{place.home}/{PROVENANCE}"
    file = place.store.where(key)
    try:
        notes = json.loads(place.store.read(key))
    except FileNotFoundError:
        return {"commits": {}}
    except ValueError as error:
        do = "It is a note only: remove it and go on."
        raise CacheError.at(file, expected="JSON", found=str(error), do=do) from error
    if not isinstance(notes, dict) or not isinstance(notes.get("commits"), dict):
        raise CacheError.at(file, expected="{'commits': {...}}", found="something else", do="Remove it and go on.")
    return notes


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
