"""The seal of a commit: a quick proof that no raw file has changed.  [raw] -> tracks -> features

A plan asks whether anything is new in the raw folder. Mostly, nothing is, and then the answer
should take seconds for half a million videos. The seal (seal.npz, beside the commit) has the paths,
sizes and times of all files that the committed rows were read from. If these are the same, a plan
needs neither the stamps of `pipeline.files.raw.changes` nor an object for each video.

`write_seal` is called after a commit, when the stamps are written, and `is_sealed` by the next
plan. A seal belongs to the videos and digests of its commit by its *key*. So the seal of a commit
that never happened proves nothing. Losing a seal costs time only.

The seal has a *line* (path, size, time) for each label file and video file, and two for a folder of
one label file:

    labels/0001.mat            5120 bytes    changed at 1700000000000000000 ns
    labels/0002                ANY           changed at 1700000000000000000 ns
    labels/0002/people.json    730 bytes     changed at 1700000000000000000 ns

The few videos with other inputs, such as folders of images, have no lines, but their stamp is in
the seal. seal.npz has these arrays:

    key                    text: `_key` of all videos and their digests
    paths, sizes, times    one for each line; the paths are one text, with zeros between
    others, stamps         one for each video without lines: its number in the sequence of videos,
                           and its stamp; the stamps are one text, with zeros between
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
ANY: Final = -1  # size of a folder, or of a PACK that cannot be read: it is not compared
LATEST: Final = (1 << 63) - 1  # ns, in the year 2262: a seal has no room for a later time


def write_seal(
    root: cache.Root, name: str, raw: Path, videos: Sequence[RawVideo], seen: Mapping[str, Seen]
) -> None:
    """Write the seal of the split `name`.

    Args:
        videos: all videos of the split that the raw folder has.
        seen: by video name, its stamp and digest when it was last read. If a video is missing here
            or could not be used, or `videos` lacks one, the seal would prove nothing, and an
            existing one is removed.
    """
    store = cache.store_at(root)
    usable = {video: state.digest for video, state in seen.items() if not state.unusable}
    key = _key(videos, usable)
    if not key:
        # an earlier commit may have had the same digests
        store.remove([f"{name}/{SEAL}"])
        return

    lines: dict[_SealLine, None] = {}  # a set in order: many clips share the line of a PACK
    without_lines = []  # numbers of videos
    stamps = []  # stamps of these videos
    for number, video in enumerate(texts_of(videos)):
        video_stamp = seen[video.name].stamp
        video_lines = _video_lines(raw, video, video_stamp)
        if video_lines is None:
            without_lines.append(number)
            stamps.append(video_stamp)
        else:
            lines.update(dict.fromkeys(video_lines))

    texts = {
        "key": key,
        "paths": "\0".join(line.path for line in lines),
        "stamps": "\0".join(stamps),
    }
    numbers = {
        "sizes": [line.size for line in lines],
        "times": [line.time for line in lines],
        "others": without_lines,
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
    without a seal, or with one that cannot be read.

    Args:
        videos: all videos of the split that the raw folder has.
        digests: the digests of all committed videos, by name.
    """
    try:
        content = cache.store_at(root).read(f"{name}/{SEAL}")
        with np.load(io.BytesIO(content)) as columns:
            key = os.fsdecode(columns["key"].item())
            paths = os.fsdecode(columns["paths"].item()).split("\0")
            stamps = os.fsdecode(columns["stamps"].item()).split("\0")
            sizes = columns["sizes"].tolist()
            times = columns["times"].tolist()
            without_lines = columns["others"].tolist()
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
        stamp(raw, videos[number]) == sealed_stamp
        for number, sealed_stamp in zip(without_lines, stamps, strict=False)
    )


def _key(videos: Sequence[RawVideo], digests: Mapping[str, str]) -> str:
    """SHA-256, in hex, of the videos' names, digests, paths and spans. "" if there is no video, or
    if the names of the videos and of the digests differ.
    """
    if not videos:
        return ""
    # whole columns, one for each field of `VideoTexts`: a loop over the videos would be slow
    names, files, folders, label_folders, spans = zip(*texts_of(videos), strict=True)
    if len(names) != len(digests) or not digests.keys() >= {*names}:
        return ""
    texts = [*names, *map(digests.__getitem__, names)]
    counts = []  # number of each video's files, of its folders, and of its label folders
    for column in (files, folders, label_folders):
        texts += chain.from_iterable(column)
        counts.append(list(map(len, column)))
    texts.append(repr([*counts, spans]))
    return hashlib.sha256(os.fsencode("\0".join(texts))).hexdigest()


class _SealLine(NamedTuple):
    """A file or folder as the seal has it."""

    path: str  # below the raw folder, or absolute
    size: int  # bytes, or ANY
    time: int  # of its last change, ns


def _video_lines(raw: Path, video: VideoTexts, video_stamp: Stamp) -> list[_SealLine] | None:
    """The lines of a video, by its stamp. None if it has folders of images, label folders of
    more than one file, only a part of a file, missing files, or times after LATEST.

    `changes.NUMBERS` names the numbers of a stamp. Its inputs have these lines:

        file SIZE TIME labels/0001.mat           one, for the file
        labels 1 SIZE NEWEST TIME labels/0002    two, for the folder and its file
        folder COUNT TIME frames/0002            none, so the video has no lines at all

    In a label folder of one file, SIZE and NEWEST are the file's size and time, and TIME is the
    folder's own time, which changes if a name in it does. So the two lines prove that both the
    names and the content are the same, and `is_sealed` need not list the folder.
    """
    try:
        inputs = parse_lines(video_stamp)
    except ValueError:  # a stored stamp that is damaged
        return None
    lines: list[_SealLine] = []
    paths = *video.files, *video.folders, *video.label_folders
    for path, entry in zip(paths, inputs, strict=False):
        numbers = entry.named
        if entry.kind == "file" and numbers["size"] >= 0:
            lines.append(_file_line(raw, path, numbers))
        elif entry.kind == "labels" and numbers["count"] == 1:
            single = next(scan_folder(raw / path, {}), None)
            if single is None:
                return None
            lines.append(_SealLine(path, ANY, numbers["time"]))
            lines.append(_SealLine(f"{path}/{single.name}", numbers["size"], numbers["newest"]))
        else:
            return None
    if any(line.time > LATEST for line in lines):
        return None
    return lines


def _file_line(raw: Path, path: str, numbers: Mapping[str, int]) -> _SealLine:
    """The line of a file with these numbers in its stamp.

    A file in a PACK, such as clips/detected.zip/0001.json, has the line of the PACK. The time in
    its stamp is the PACK's, too.
    """
    folder, packed, _ = path.rpartition(f"/{PACK}/")
    if not packed:
        return _SealLine(path, numbers["size"], numbers["time"])
    pack = f"{folder}/{PACK}"
    return _SealLine(pack, _size_of_pack(raw / pack), numbers["time"])


def _size_of_pack(pack: Path) -> int:
    """Bytes of a PACK, or ANY if it cannot be read."""
    try:
        return pack.stat().st_size
    except OSError:  # removed since it was read, which `is_sealed` finds
        return ANY
