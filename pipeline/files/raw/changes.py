"""Detection of changes in raw files: sizes and times first, then content.  [raw] -> tracks ->
features

A video's *stamp* has the sizes, times and counts of its files. Its *digest* decides: the content of
its label and video files, and the names and sizes of its images. Stamps differ between copies of
the same data, so they are stored beside the commit (stamps.json), digests in it. A stamp counts
only with the committed digest, so a crash between the two files does no harm.

There are half a million videos: paths are texts here, a stamp is one text, and stamps.json is three
lists.

A *seal* (seal.npz) has the paths, sizes and times of all files that the committed rows were read
from. If the same videos with the same digests have the same files, a plan has nothing to do, and
needs neither stamps nor an object for each video. Losing it costs time only; one of a commit that
never happened has other digests.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

import cache
from pipeline.files.raw import RawVideo, VideoTexts, texts_of
from pipeline.files.raw.files import (
    contents_digest,
    digest_or_problem,
    folder_digest,
    scan_folder,
    span_digest,
)
from pipeline.files.raw.opening import is_temporary
from pipeline.files.raw.pack import PACK, packed_entry

# a line for each input: its kind, as many numbers as NUMBERS says, and its path below the raw
# folder
Stamp = str

STAMPS = "stamps.json"
SEAL = "seal.npz"
GONE: Final = -1  # every number of a missing file or folder
# of one that cannot be read now: permission denied, a disk that does not answer
UNREADABLE: Final = -2
CONTENTS: Final = 32  # of a digest's 64 digits; the others are of names
NUMBERS: Final = {  # of each kind of input; times in ns
    "file": ("size", "time"),
    "span": ("size", "time", "start", "stop"),  # size and time of the whole file
    "folder": ("count", "time"),
    "labels": ("count", "size", "newest", "time"),
}
ANY: Final = -1  # size of a folder in a seal
LATEST: Final = (1 << 63) - 1  # ns in a seal: in the year 2262


class Seen(NamedTuple):
    """A video when it was last read."""

    stamp: Stamp
    digest: str
    unusable: str  # why its rows are older; "": they are not


def stamp(raw: Path, video: RawVideo) -> Stamp:
    """Size and time of every file, count and time of every folder; for label folders also their
    files' total size.

    `GONE` and `UNREADABLE` replace missing numbers.
    """
    kind = "file" if video.span is None else "span"
    span = video.span or ()
    lines = [_line(raw, file, kind, _size_and_time, *span) for file in video.files]
    lines += [_line(raw, folder, "folder", _count_and_time) for folder in video.folders]
    lines += [_line(raw, folder, "labels", _count_size_and_times) for folder in video.label_folders]
    return "\n".join(lines)


def _line(
    raw: Path, path: Path, kind: str, measure: Callable[[str], tuple[int, ...]], *span: int
) -> str:
    root = str(raw)
    name = str(path)
    try:
        numbers = measure(name if name.startswith("/") else f"{root}/{name}")
    except OSError as error:  # also a link that leads nowhere
        numbers = (_why_not(error),) * (len(NUMBERS[kind]) - len(span))
    below = _below(root, name).replace("\n", "\\n")
    return " ".join([kind, *map(str, numbers + span), below])


class _Input(NamedTuple):
    """One line of a stamp."""

    kind: str  # a key of NUMBERS
    numbers: tuple[int, ...]
    path: str  # below the raw folder

    @property
    def named(self) -> dict[str, int]:
        """The numbers by their names in NUMBERS."""
        return dict(zip(NUMBERS[self.kind], self.numbers, strict=True))

    @property
    def is_empty(self) -> bool:
        return self.kind in ("folder", "labels") and self.numbers[0] == 0

    @property
    def is_missing(self) -> bool:
        # an empty label folder has no newest file, which is written like a missing one
        return GONE in self.numbers and not self.is_empty


def parse(text: Stamp) -> dict[str, _Input]:
    """The inputs of a stamp, by path. Raises ValueError for any other text."""
    return {file.path: file for file in _parse_lines(text)}


def _parse_lines(text: Stamp) -> list[_Input]:
    if not text:
        return []
    inputs = []
    for line in text.split("\n"):
        kind, _, numbers_and_path = line.partition(" ")
        n = len(NUMBERS.get(kind, ()))
        *numbers, path = numbers_and_path.split(" ", n)
        if kind not in NUMBERS or len(numbers) != n:
            raise ValueError(f"no line of a stamp: {line!r}")
        inputs.append(_Input(kind, tuple(map(int, numbers)), path))
    return inputs


def bytes_of_labels(texts: Iterable[Stamp]) -> int:
    """Size of the label and video files of some videos, shared ones counted once, without images
    and missing files.
    """
    inputs = set(chain.from_iterable(map(_parse_lines, texts)))
    total = 0
    for file in inputs:
        named = file.named
        size = max(0, named.get("size", 0))
        if file.kind == "span" and not file.is_missing:
            size = named["stop"] - named["start"]
        total += size
    return total


def write_stamps(
    root: cache.Root, name: str, raw: Path, videos: Sequence[RawVideo], seen: Mapping[str, Seen]
) -> None:
    """Write stamps and seal at a commit of the split `name`. Losing them is safe: contents are
    compared then.
    """
    columns = {
        "names": list(seen),
        "stamps": [video.stamp for video in seen.values()],
        "digests": [video.digest for video in seen.values()],
        "unusable": {name: video.unusable for name, video in seen.items() if video.unusable},
    }
    cache.store_at(root).put_small({f"{name}/{STAMPS}": json.dumps(columns).encode()}, name)
    _write_seal(root, name, raw, videos, seen)


def read_stamps(root: cache.Root, name: str) -> dict[str, Seen]:
    """Stamps by `write_stamps`; empty if missing or unreadable."""
    try:
        columns = json.loads(cache.store_at(root).read(f"{name}/{STAMPS}"))
        names = columns["names"]
        unusable = dict(columns.get("unusable", {}))
        reasons = [unusable.get(name, "") for name in names]
        rows = zip(columns["stamps"], columns["digests"], reasons, strict=True)
        return dict(zip(names, map(Seen._make, rows), strict=True))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _write_seal(
    root: cache.Root, name: str, raw: Path, videos: Sequence[RawVideo], seen: Mapping[str, Seen]
) -> None:
    """Write the seal; remove it if a video has no stamp or cannot be used."""
    store = cache.store_at(root)
    usable = {name: video.digest for name, video in seen.items() if not video.unusable}
    key = _key(videos, usable)
    if not key:
        # an earlier commit may have had the same digests
        store.remove([f"{name}/{SEAL}"])
        return

    files: dict[_SealedFile, None] = {}  # each once: many clips share a PACK
    others = []  # videos that are compared by their stamps
    stamps = []
    for number, video in enumerate(texts_of(videos)):
        of_video = _sealed_files(raw, video, seen[video.name].stamp)
        if of_video is None:
            others.append(number)
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
        "others": others,
    }
    arrays = {column: np.array(os.fsencode(text)) for column, text in texts.items()}
    arrays |= {column: np.array(values, np.int64) for column, values in numbers.items()}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    store.put_small({f"{name}/{SEAL}": content.getvalue()}, name)


def is_sealed(
    root: cache.Root, name: str, raw: Path, videos: Sequence[RawVideo], digests: Mapping[str, str]
) -> bool:
    """Whether nothing has changed since the seal was written; False without one. digests: of all
    committed videos.
    """
    try:
        content = cache.store_at(root).read(f"{name}/{SEAL}")
        with np.load(io.BytesIO(content)) as columns:
            key = os.fsdecode(columns["key"].item())
            paths = os.fsdecode(columns["paths"].item()).split("\0")
            stamps = os.fsdecode(columns["stamps"].item()).split("\0")
            sizes = columns["sizes"].tolist()
            times = columns["times"].tolist()
            others = columns["others"].tolist()
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
        stamp(raw, videos[number]) == text for number, text in zip(others, stamps, strict=False)
    )


def _key(videos: Sequence[RawVideo], digests: Mapping[str, str]) -> str:
    """SHA-256 of the videos' names, paths and digests; "" unless exactly these have a digest."""
    columns = list(zip(*texts_of(videos), strict=True))
    if not columns or len(columns[0]) != len(digests) or not digests.keys() >= {*columns[0]}:
        return ""
    names, *paths, spans = columns
    texts = chain(names, map(digests.__getitem__, names), *map(chain.from_iterable, paths))
    numbers = repr([list(map(len, column)) for column in paths] + [spans])
    return hashlib.sha256(os.fsencode("\0".join((*texts, numbers)))).hexdigest()


class _SealedFile(NamedTuple):
    """A file or folder in a seal."""

    path: str
    size: int  # of a folder: ANY
    time: int


def _sealed_files(raw: Path, video: VideoTexts, text: Stamp) -> list[_SealedFile] | None:
    """All inputs of a video; None if they are more than files and label folders of one file, or
    too new.

    A label folder with one file is not listed: its own time shows other names, the file's size and
    time all else.
    """
    try:
        inputs = _parse_lines(text)
    except ValueError:  # recorded, and damaged
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
    """One file; of one in a PACK, the PACK, whose time is the file's."""
    pack, packed, _ = path.rpartition(f"/{PACK}/")
    if not packed:
        return _SealedFile(path, named["size"], named["time"])
    pack = f"{pack}/{PACK}"
    return _SealedFile(pack, _size_of(raw / pack), named["time"])


def _size_of(pack: Path) -> int:
    try:
        return pack.stat().st_size
    except OSError:  # removed since it was read, which `is_sealed` finds
        return ANY


def video_digest(raw: Path, video: RawVideo) -> str:
    """64 hex digits: 32 of contents (of images: names and sizes), 32 of the paths below the raw
    folder.

    A renamed video keeps the first half (CONTENTS).
    """
    if video.span is None:
        digests = [digest_or_problem(raw / file) for file in video.files]
    else:
        digests = [span_digest(raw / file, *video.span) for file in video.files]
    digests += [folder_digest(raw / folder) for folder in video.folders]
    digests += [contents_digest(raw / folder) for folder in video.label_folders]

    contents = hashlib.sha256()
    paths = hashlib.sha256()
    for path, digest in zip(video.paths, digests, strict=True):
        contents.update(f"{digest}\n".encode())
        # packed, it is the same file
        below = _below(str(raw), str(path)).replace(f"{PACK}/", "")
        paths.update(f"{below}\n".encode())
    return contents.hexdigest()[:CONTENTS] + paths.hexdigest()[CONTENTS:]


def lost_input(was: Stamp | None, now: Stamp) -> str:
    """A file or folder of a video that is gone or empty; "" if none, or if others replaced it.

    If the previous state is unknown, one that is missing now.
    """
    inputs = parse(now)
    earlier = _parse_stored(was)
    after = _present(inputs)
    before = {*inputs}
    if earlier is not None:
        before = _present(earlier)
    if after - before:
        return ""
    return min(before - after, default="")


def same_inputs(was: Stamp | None, now: Stamp) -> set[str]:
    """Paths of a video's files and folders that have the same sizes, counts and times in both
    stamps.
    """
    before = _parse_stored(was) or {}
    return {path for path, file in parse(now).items() if before.get(path) == file}


def _parse_stored(text: object) -> dict[str, _Input] | None:
    """`parse` of a stored stamp; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        return parse(text)
    except ValueError:
        return None


def _present(inputs: Mapping[str, _Input]) -> set[str]:
    """Paths of inputs that are neither gone nor an empty folder; unreadable ones exist."""
    return {path for path, file in inputs.items() if not file.is_missing and not file.is_empty}


def what_differs(was: Stamp | None, now: Stamp) -> list[str]:
    """Changes of a video's files, by their stamps.

    >>> what_differs("file 5 1 a.mat", "file 7 2 a.mat")
    ['a.mat has changed']
    """
    before = _parse_stored(was)
    if before is None:
        return ["its content; its stamp at the commit is not known"]
    after = parse(now)
    lines = [f"{path} is one of its files no longer" for path in before if path not in after]
    for path, file in after.items():
        if path not in before:
            lines.append(f"{path} is one of its files now")
        elif file != before[path]:
            state = "has changed"
            if file.is_missing:
                state = "is missing"
            elif UNREADABLE in file.numbers:
                state = "cannot be read now"
            lines.append(f"{path} {state}")
    return lines


def describe_difference(there: Stamp, here: Stamp) -> str:
    """The first input that differs between two machines.

    >>> describe_difference("file 5 1 a.mat", "file 7 1 a.mat")
    'a.mat (size 5 there, 7 here)'
    """
    others = parse(there)
    for path, file in parse(here).items():
        other = others.get(path)
        if other == file:
            continue
        if other is None or other.kind != file.kind:
            return f"{path} (missing there)"
        texts = []
        for name, number in file.named.items():
            number_there = other.named[name]
            if number_there != number:
                there_text = _number_text(name, number_there)
                texts.append(f"{name} {there_text} there, {_number_text(name, number)} here")
        return f"{path} ({', '.join(texts)})"
    return "further files there"


def _number_text(name: str, number: int) -> str:
    """A number of an input; times in UTC."""
    if number == GONE:
        return "missing"
    if number == UNREADABLE:
        return "unreadable"
    if name in ("time", "newest"):
        return f"{datetime.fromtimestamp(number / 1e9, UTC):%Y-%m-%d %H:%M:%S}"
    return f"{number:,}"


def _size_and_time(file: str) -> tuple[int, int]:
    pack, packed, _ = file.rpartition(f"/{PACK}/")
    if packed:
        status = os.stat(f"{pack}/{PACK}")  # noqa: PTH116 - a quarter of Path's time
        return packed_entry(Path(file)).file_size, status.st_mtime_ns
    status = os.stat(file)  # noqa: PTH116 - as above
    return status.st_size, status.st_mtime_ns


def _count_and_time(folder: str) -> tuple[int, int]:
    return len(os.listdir(folder)), os.stat(folder).st_mtime_ns  # noqa: PTH116, PTH208 - the fast ones


def _count_size_and_times(folder: str) -> tuple[int, ...]:
    """Count, total size and newest time of the files in a folder, by which rewritten ones show, and
    the folder's own time, by which renamed ones do.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    count = 0
    total = 0
    newest = -1
    try:
        with os.scandir(descriptor) as entries:
            # from the folder's descriptor: the kernel has one name to find, not five
            for entry in entries:
                try:
                    status = entry.stat()
                    size = status.st_size
                    time = status.st_mtime_ns
                except OSError as error:
                    if _why_not(error) == UNREADABLE:
                        raise
                    size = time = GONE
                count += 1
                total += size
                newest = max(newest, time)
        return count, total, newest, os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _why_not(error: OSError) -> int:
    if is_temporary(error) or error.errno is None:  # None: a damaged PACK
        return UNREADABLE
    return GONE


def _below(root: str, path: str) -> str:
    """A path below the raw folder, as in stamps and digests, from a relative or absolute one."""
    if path.startswith("/"):
        path = os.path.relpath(path, root)
    return utf8(path)


def utf8(name: str) -> str:
    """A file name for JSON and tables: bytes that are not UTF-8 are escaped."""
    if name.isascii():
        return name
    return name.encode(errors="backslashreplace").decode()
