"""When, where and with what a commit was made: beside the manifest, outside what is the same to the byte.  [cache]

Nothing but a person depends on these notes, so a damaged file of them stops nobody: it is told, and set aside by the
next commit.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from itertools import count
from typing import Any, Final

from cache.format.layout import PROVENANCE, json_file
from cache.format.manifest import Place

_SOFTWARE: Final = ("vibe-pipeline", "numpy", "zarr", "google-crc32c")
_LOG: Final = logging.getLogger(__name__)

_told: set[str] = set()  # what this process has said of damaged files: once is enough


def add_provenance(place: Place, digest: str, given: Mapping[str, Any], started: float) -> None:
    """Note how the commit `digest` came about, before it is made: a note without its commit harms nobody."""
    set_damaged_aside(place)
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
    place.store.put_small({_key(place): json_file(notes)}, place.home)


def read_provenance(place: Place) -> dict[str, Any]:
    """{"commits": {manifest digest: how it came about}}; no commits where there is no such file, or a damaged one.

    A damaged one is told as a warning of the logger "cache.format.provenance", once in a process.
    """
    notes, problem = _parsed(place)
    if problem and problem not in _told:
        _told.add(problem)
        _LOG.warning("%s", problem)
    return notes


def provenance_problem(place: Place) -> str:
    """What is wrong with the file, in words; "": nothing."""
    return _parsed(place)[1]


def set_damaged_aside(place: Place) -> None:
    """Give a damaged file another name, for a person to look at. Only for who holds the writer's lock."""
    if provenance_problem(place):
        stem = PROVENANCE.removesuffix(".json")
        names = (f"{place.home}/{stem}.damaged.{number}.json" for number in count(1))
        place.store.rename(_key(place), next(name for name in names if not place.store.exists(name)))


def _parsed(place: Place) -> tuple[dict[str, Any], str]:
    """(the notes, what is wrong with their file)."""
    key = _key(place)
    try:
        notes = json.loads(place.store.read(key))
    except FileNotFoundError:
        return {"commits": {}}, ""
    except (ValueError, OSError) as error:
        found = str(error)
    else:
        commits = notes.get("commits") if isinstance(notes, dict) else None
        if isinstance(commits, dict) and all(isinstance(entry, dict) for entry in commits.values()):
            return notes, ""
        found = "something else in JSON"
    do = "How the data were made is not known; they are as good as before. The next commit sets the file aside."
    return {"commits": {}}, f"{place.store.where(key)}: expected notes on commits, found {found}. {do}"


def _key(place: Place) -> str:
    return f"{place.home}/{PROVENANCE}"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
