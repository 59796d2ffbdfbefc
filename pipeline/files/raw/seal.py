"""The seal of a commit: a quick proof that no raw file has changed.  [raw] -> tracks -> features

A plan asks whether anything is new in the raw folder. Mostly, nothing is, and then the answer
should take seconds for half a million videos. The seal (seal.npz, beside the commit) has the paths,
sizes and times of all files that the committed rows were read from. If these are the same, a plan
needs neither the stamps of `pipeline.files.raw.changes` nor an object for each video.

A seal is written with the stamps after a commit, and belongs to the videos and digests of that
commit by its *key*. So the seal of a commit that never happened proves nothing. Losing a seal costs
time only.

A video is *listed* if its files and label folders are lines of the seal. The few whose inputs do
not fit such a line, such as folders of images, have their stamp in the seal instead. seal.npz has:

    key                    text: `_key` of the videos and their digests
    paths, sizes, times    of each line; paths are one text, with zeros between
    others, stamps         numbers of the videos that are not listed, and their stamps (as paths)
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

import cache
from pipeline.files.raw import RawVideo, VideoTexts, texts_of
from pipeline.files.raw.changes import Seen, Stamp, parse_lines, stamp
from pipeline.files.raw.files import scan_folder
from pipeline.files.raw.pack import PACK

SEAL = "seal.npz"
ANY: Final = -1  # in place of a size that is not compared: a folder's
LATEST: Final = (1 << 63) - 1  # ns, in the year 2262: a seal has no room for a later time


def write_seal(
    root: cache.Root, name: str, raw: Path, videos: Sequence[RawVideo], seen: Mapping[str, Seen]
) -> None:
    """Write the seal of the split `name`, whose `videos` were `seen` so when they were read.

    If one of them has no stamp, or could not be used, nothing is proved, and a seal is removed.
    """
    store = cache.store_at(root)
    usable = {name: video.digest for name, video in seen.items() if not video.unusable}
    key = _key(videos, usable)
    if not key:
        # an earlier commit may have had the same digests
        store.remove([f"{name}/{SEAL}"])
        return

    files: dict[_SealedFile, None] = {}  # each once: many clips share a PACK
    unlisted = []  # numbers of videos
    stamps = []  # of these
    for number, video in enumerate(texts_of(videos)):
        of_video = _sealed_files(raw, video, seen[video.name].stamp)
        if of_video is None:
            unlisted.append(number)
            stamps.append(seen[video.name].stamp)
        else:
            files.update(dict.fromkeys(of_video))

    texts = {
        "key": key,
        "paths": "\0".join(file.path for file in files),
        "stamps": "\0".join(stamps),
    }
    numbers = {
        "sizes": [file.size for file in files],
        "times": [file.time for file in files],
        "others": unlisted,
    }
    arrays = {column: np.array(os.fsencode(text)) for column, text in texts.items()}
    arrays |= {column: np.array(values, np.int64) for column, values in numbers.items()}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    store.put_small({f"{name}/{SEAL}": content.getvalue()}, name)


def is_sealed(
    root: cache.Root, name: str, raw: Path, videos: Sequence[RawVideo], digests: Mapping[str, str]
) -> bool:
    """Whether the seal of the split `name` proves that no file of the `videos` has changed. False
    without a seal, or with one that cannot be read. digests: of all committed videos.
    """
    try:
        content = cache.store_at(root).read(f"{name}/{SEAL}")
        with np.load(io.BytesIO(content)) as columns:
            key = os.fsdecode(columns["key"].item())
            paths = os.fsdecode(columns["paths"].item()).split("\0")
            stamps = os.fsdecode(columns["stamps"].item()).split("\0")
            sizes = columns["sizes"].tolist()
            times = columns["times"].tolist()
            unlisted = columns["others"].tolist()
        if key != _key(videos, digests):
            return False
        start = f"{raw}/"
        # not strict, here and below: no texts are written as one empty text
        for path, size, time in zip(paths, sizes, times, strict=False):
            if not path.startswith("/"):
                path = start + path
            status = os.stat(path)  # noqa: PTH116 - a quarter of Path's time
            if status.st_mtime_ns != time or size not in (ANY, status.st_size):
                return False
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):
        return False
    return all(
        stamp(raw, videos[number]) == text for number, text in zip(unlisted, stamps, strict=False)
    )


def _key(videos: Sequence[RawVideo], digests: Mapping[str, str]) -> str:
    """SHA-256, hex, of the videos' names, paths and digests. "" if there is no video, and unless
    exactly these videos have a digest.
    """
    # one column for each field of `VideoTexts`
    columns = list(zip(*texts_of(videos), strict=True))
    if not columns:
        return ""
    names, *paths, spans = columns
    if len(names) != len(digests) or not digests.keys() >= {*names}:
        return ""
    texts = chain(names, map(digests.__getitem__, names), *map(chain.from_iterable, paths))
    # how many paths belong to each video
    counts = [list(map(len, column)) for column in paths]
    numbers = repr([*counts, spans])
    return hashlib.sha256(os.fsencode("\0".join((*texts, numbers)))).hexdigest()


class _SealedFile(NamedTuple):
    """A file or folder that a seal lists."""

    path: str  # below the raw folder, or absolute
    size: int  # bytes; of a folder: ANY
    time: int  # of its last change, ns


def _sealed_files(raw: Path, video: VideoTexts, text: Stamp) -> list[_SealedFile] | None:
    """The lines of a seal for a video with this stamp. None for a video that is not listed: it has
    folders of images, label folders of more than one file, missing files, or times after LATEST.

    A label folder of one file is two lines, the folder and its file. The folder's time changes if
    its names do, the file's size or time if its content does, so nobody has to list the folder.
    """
    try:
        inputs = parse_lines(text)
    except ValueError:  # a stored stamp that is damaged
        return None
    files: list[_SealedFile] = []
    paths = *video.files, *video.folders, *video.label_folders
    for path, file in zip(paths, inputs, strict=False):
        named = file.named
        if file.kind == "file" and named["size"] >= 0:
            files.append(_sealed_file(raw, path, named))
        elif file.kind == "labels" and named["count"] == 1:
            single = next(scan_folder(raw / path, {}), None)
            if single is None:
                return None
            files.append(_SealedFile(path, ANY, named["time"]))
            files.append(_SealedFile(f"{path}/{single.name}", named["size"], named["newest"]))
        else:
            return None
    if any(file.time > LATEST for file in files):
        return None
    return files


def _sealed_file(raw: Path, path: str, named: Mapping[str, int]) -> _SealedFile:
    """The line for one file. A file in a PACK has the line of the PACK, whose time is its own."""
    pack, packed, _ = path.rpartition(f"/{PACK}/")
    if not packed:
        return _SealedFile(path, named["size"], named["time"])
    pack = f"{pack}/{PACK}"
    return _SealedFile(pack, _size_of(raw / pack), named["time"])


def _size_of(pack: Path) -> int:
    """Bytes of a PACK, or ANY if it cannot be read."""
    try:
        return pack.stat().st_size
    except OSError:  # removed since it was read, which `is_sealed` finds
        return ANY
