"""The commit: one small file that says what exists, replaced atomically.  tracks -> [cache] -> windows

Shards are written once and only named by the manifest. The small files that a commit changes (tables, `zarr.json` of
the arrays) are staged first; replacing the manifest, which holds their digests, is the commit; then they are moved
into place. Whoever opens in between finds by its digest which of the two, staged or in place, belongs to the manifest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache import durable
from cache.errors import CacheError
from cache.fingerprint import canonical
from cache.layout import FEATURES, FORMAT, MANIFEST, STAGED, WRITING, json_file

Bytes = NDArray[np.uint8]

_MAP_FROM: Final = 1 << 20  # bytes from which a small file is mapped, not read
_ATTEMPTS: Final = 5  # how often an unchanged manifest may disagree with its files before that is called damage


@dataclass(frozen=True, slots=True)
class Place:
    """Where one commit lives: `home` holds its manifest, staging and journal; the files it names lie below `base`."""

    home: Path
    base: Path

    @classmethod
    def of_split(cls, root: Path, split: str) -> Place:
        return cls(root / split, root / split)

    @classmethod
    def of_stream(cls, root: Path, split: str, stream: str) -> Place:
        base = root / split / FEATURES
        return cls(base / stream, base)

    @property
    def manifest(self) -> Path:
        return self.home / MANIFEST

    @property
    def writing(self) -> Path:
        return self.home / WRITING

    def staging(self, digest: str) -> Path:
        return self.home / STAGED / digest[:16]


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed state: its manifest, and the bytes of every small file that the manifest names."""

    place: Place
    manifest: Mapping[str, Any]
    files: Mapping[str, Bytes]

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])


def sha256(data: bytes | Bytes) -> str:
    """In hex."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.data).hexdigest()


def seal(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its own digest: SHA-256 of the canonical JSON of everything else in it."""
    body = {"format": FORMAT, **entries}
    return {**body, "digest": sha256(canonical(body))}


def read_manifest(file: Path) -> dict[str, Any] | None:
    """The manifest, checked against its own digest; None when there is none."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return None
    again = "Restore it from a copy, or remove the folder and make it again."
    try:
        manifest = json.loads(text)
        written_as = manifest["format"]
        body = {key: value for key, value in manifest.items() if key != "digest"}
        intact = manifest["digest"] == sha256(canonical(body))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CacheError.at(file, expected="a manifest in JSON", found=f"something else ({error})", do=again) from error
    if written_as != FORMAT:  # first: another format may have another digest
        found = f"format {written_as!r}"
        raise CacheError.at(file, expected=f"format {FORMAT!r}", found=found, do="Use the version that wrote it.")
    if not intact:
        raise CacheError.at(file, expected="its own digest to match", found="changed content", do=again)
    return dict(manifest)


def load(place: Place) -> Commit | None:
    """The state committed at this moment, never a mixture of two; None when nothing was ever committed.

    Raises CacheError when a small file belongs neither in place nor staged to the manifest.
    """
    before: str | None = None
    failures = 0
    while True:
        manifest = read_manifest(place.manifest)
        if manifest is None:
            return None
        files: dict[str, Bytes] = {}
        wrong = ""
        for name, digest in manifest["files"].items():
            data = _matching(place, manifest["digest"], name, digest)
            if data is None:
                wrong = name
                break
            files[name] = data
        if not wrong:
            return Commit(place, manifest, files)
        # A writer may have been at work between the manifest and the file: then the manifest is another one by now.
        failures = failures + 1 if manifest["digest"] == before else 0
        before = manifest["digest"]
        if failures >= _ATTEMPTS:
            raise CacheError.at(
                place.base / wrong,
                expected="the file that the manifest names by its digest",
                found="a missing or changed file",
                do="Restore it from a copy, or remove the folder with its manifest and make it again.",
            )
        time.sleep(0.01)


def _matching(place: Place, commit: str, name: str, digest: str) -> Bytes | None:
    """The bytes of one small file, in place or staged, whichever has the digest."""
    for file in (place.base / name, place.staging(commit) / name):
        try:
            data = _read(file)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if sha256(data) == digest:
            return data
    return None


def _read(file: Path) -> Bytes:
    if file.stat().st_size >= _MAP_FROM:
        return np.memmap(file, np.uint8, "r")
    return np.frombuffer(file.read_bytes(), np.uint8)


def shard_rows(manifest: Mapping[str, Any], shard: int) -> range:
    """The rows of one shard of a split or stream, without padding. Raises CacheError for a shard of no commit."""
    size = manifest["geometry"]["rows_per_shard"]
    start = shard * size
    for first, end in manifest["commits"]:
        if first <= start < end:
            return range(start, min(end, start + size))
    raise CacheError(f"no commit has a shard {shard}: commits are {manifest['commits']}, {size} rows a shard")


def publish(place: Place, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Commit: stage the small files, replace the manifest, move the files into place.

    Killed before the manifest is replaced, nothing has happened; killed after it, the next writer finishes the rest.
    """
    staging = place.staging(manifest["digest"])
    for name, data in files.items():
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        durable.write_synced(staging / name, data)
    durable.sync_names([staging / name for name in files], place.home)
    durable.write_atomic(place.manifest, json_file(manifest))
    roll_forward(place, manifest["digest"])


def roll_forward(place: Place, digest: str | None) -> None:
    """Finish the commit `digest` (of the manifest in force) and discard what an earlier, killed one left staged."""
    staged = place.home / STAGED
    if not staged.is_dir():
        return
    if digest is not None and (staging := place.staging(digest)).is_dir():
        moves = {file: place.base / file.relative_to(staging) for file in staging.rglob("*") if file.is_file()}
        for file, target in moves.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
        durable.sync_names(moves.values(), place.base)
    shutil.rmtree(staged)
    durable.sync_folder(place.home)
