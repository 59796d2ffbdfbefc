"""Whether no raw file of a split has changed, by one comparison of columns.  [raw] -> tracks -> features

A seal has the paths, sizes and times of all files that the committed rows were read from. If the same videos with the
same digests have the same files, a plan has nothing to do, and needs neither stamps nor an object for each video. It is
seal.npz beside stamps.json. Losing it costs time only; one of a commit that never happened has other digests.

A label folder with one file is not listed: its own time shows other names, the file's size and time all else.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np

import cache
from pipeline.files.raw import RawVideo, VideoTexts, changes, texts_of
from pipeline.files.raw.files import scan_folder

SEAL: Final = "seal.npz"
ANY: Final = -1  # size of a folder
LATEST: Final = (1 << 63) - 1  # ns: in the year 2262


def write_seal(
    root: cache.Root, name: str, raw: Path, videos: Sequence[RawVideo], seen: Mapping[str, changes.Seen]
) -> None:
    """Write the seal of a commit of the split `name`; remove it if a video has no stamp or cannot be used."""
    if not (key := _key(videos, {video: digest for video, (_, digest, why) in seen.items() if not why})):
        cache.store_at(root).remove([f"{name}/{SEAL}"])  # an earlier commit may have had the same digests
        return
    of_videos = [_looks(raw, video, seen[video.name][0]) for video in texts_of(videos)]
    others = [number for number, looks in enumerate(of_videos) if looks is None]  # compared by their stamps
    looks = [look for of_video in of_videos for look in of_video or ()]
    paths, sizes, times = zip(*looks, strict=True) if looks else ((), (), ())
    stamps = [seen[videos[number].name][0] for number in others]
    texts = {"key": key, "paths": "\0".join(paths), "stamps": "\0".join(stamps)}
    numbers = {"sizes": sizes, "times": times, "others": others}
    arrays = {column: np.array(os.fsencode(text)) for column, text in texts.items()}
    arrays |= {column: np.array(values, np.int64) for column, values in numbers.items()}
    np.savez(file := io.BytesIO(), allow_pickle=False, **arrays)
    cache.store_at(root).put_small({f"{name}/{SEAL}": file.getvalue()}, name)


def is_sealed(root: cache.Root, name: str, raw: Path, videos: Sequence[RawVideo], digests: Mapping[str, str]) -> bool:
    """Whether nothing has changed since the seal was written; False without one. digests: of all committed videos."""
    try:
        with np.load(io.BytesIO(cache.store_at(root).read(f"{name}/{SEAL}"))) as columns:
            key, paths, stamps = (os.fsdecode(columns[text].item()).split("\0") for text in ("key", "paths", "stamps"))
            sizes, times, others = (columns[numbers].tolist() for numbers in ("sizes", "times", "others"))
        if key != [_key(videos, digests)]:
            return False
        start = f"{raw}/"
        for path, size, time in zip(paths, sizes, times, strict=False):  # of no paths, one text
            status = os.stat(path if path.startswith("/") else start + path)  # noqa: PTH116 - a quarter of Path's time
            if status.st_mtime_ns != time or (status.st_size != size and size != ANY):
                return False
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):
        return False
    return all(changes.stamp(raw, videos[number]) == stamp for number, stamp in zip(others, stamps, strict=False))


def _key(videos: Sequence[RawVideo], digests: Mapping[str, str]) -> str:
    """SHA-256 of the videos' names, paths and digests; "" unless exactly these have a digest."""
    columns = list(zip(*texts_of(videos), strict=True))
    if not columns or len(columns[0]) != len(digests) or not digests.keys() >= {*columns[0]}:
        return ""
    names, *paths, spans = columns
    texts = chain(names, map(digests.__getitem__, names), *map(chain.from_iterable, paths))
    numbers = repr([[len(of_video) for of_video in column] for column in paths] + [spans])
    return hashlib.sha256(os.fsencode("\0".join((*texts, numbers)))).hexdigest()


def _looks(raw: Path, video: VideoTexts, stamp: changes.Stamp) -> list[tuple[str, int, int]] | None:
    """Path, size and time of all inputs; None if they are more than files and label folders of one file, or too new."""
    looks = []
    for path, line in zip((*video.files, *video.folders, *video.label_folders), stamp.split("\n"), strict=False):
        kind, *numbers = line.split(" ")[:5]
        if kind == "file" and int(numbers[0]) >= 0:
            looks.append((path, int(numbers[0]), int(numbers[1])))
        elif kind == "labels" and numbers[0] == "1" and (file := next(scan_folder(raw / path, {}), None)):
            looks += [(path, ANY, int(numbers[3])), (f"{path}/{file.name}", int(numbers[1]), int(numbers[2]))]
        else:
            return None
    return looks if all(time <= LATEST for _, _, time in looks) else None
