"""Detection of changes in raw files: sizes and times first, then content.  [raw] -> tracks ->
features

A *video* here is all that one video's rows are read from: its *inputs*, which are files (labels,
the video itself), folders of images, and folders of labels. Two texts are made of them:

- The *digest* decides whether a video has changed. It is made of the content of its label and video
  files, and of the names and sizes of its images. Making it reads the files, which takes hours.
- The *stamp* is made of sizes, times and counts, without reading a file. A video with the same
  stamp as at the last commit is taken for unchanged. With another stamp, its digest is made again.

The stamp of a video with a label file of 5120 bytes and a folder of 300 images, with times in ns:

    file 5120 1700000000000000000 labels/0001.mat
    folder 300 1700000000000000000 frames/0001

The name of the only file of a label folder follows the folder's: keypoints/a.mp4//people.json. By
it, the folder is compared without being listed, while its time stays.

Stamps differ between copies of the same data, so they are stored beside the commit (stamps.json),
digests in it. A stamp counts only with the committed digest, so a crash between the two files does
no harm.

There are half a million videos: a stamp is one text, and stamps.json is three lists.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import cache
from pipeline.errors import RawDataError, is_temporary
from pipeline.files.raw import RawVideo, texts_of
from pipeline.files.raw.files import (
    contents_digest,
    digest_or_problem,
    folder_digest,
    span_digest,
)

# A line for each input of a video: its kind, the numbers that NUMBERS names, and its path below the
# raw folder.
Stamp = str

STAMPS = "stamps.json"
# in place of every number of a file or folder that is missing
GONE: Final = -1
# and of one that cannot be read now: permission denied, a disk that does not answer
UNREADABLE: Final = -2
CONTENTS: Final = 32  # of a digest's 64 digits, the first ones are of contents, the others of names
# kinds of inputs: the numbers of each; sizes in bytes, times in ns
NUMBERS: Final = {
    "file": ("size", "time"),
    # a part of a file; its size and time are those of the whole file
    "span": ("size", "time", "start", "stop"),
    # of images
    "folder": ("count", "time"),
    # of label files: their total size, the time of the newest one, and the folder's own time
    "labels": ("count", "size", "newest", "time"),
}


class LastReading(NamedTuple):
    """A video as it was when it was last read: a row of stamps.json."""

    stamp: Stamp | None  # None: not known
    digest: str
    # rows before, rows now and why, if the committed rows are those of an earlier reading
    loss: tuple[int, int, str] | None = None


NEVER_SEEN: Final = LastReading(None, "")


def stamp(raw: Path, video: RawVideo) -> Stamp:
    """The stamp of a video as its files are now: a line for each of its inputs."""
    return stamps(raw, [video], {})[video.name]


def stamps(
    raw: Path, videos: Sequence[RawVideo], seen: Mapping[str, LastReading]
) -> dict[str, Stamp]:
    """The stamps of videos as their files are now, by name, in their order.

    seen: any of them as they were, with which the same stamps are made faster, and kept once.
    """
    root = str(raw)
    names = dict(zip(seen, seen, strict=True))
    found = {}
    for name, files, folders, label_folders, span in texts_of(videos):
        before = seen.get(name, NEVER_SEEN).stamp or ""
        kind = "file" if span is None else "span"
        part = "" if span is None else f" {span[0]} {span[1]}"
        lines = [_line(root, file, kind, _size_and_time, part) for file in files]
        for folder in folders:
            lines.append(_line(root, folder, "folder", _count_and_time))
        for folder in label_folders:
            same = _same_labels(root, folder, before)
            lines.append(same or _line(root, folder, "labels", _count_size_and_times))
        text = "\n".join(lines)
        if text == before:
            text = before
        found[names.get(name, name)] = text
    return found


def _line(root: str, path: str, kind: str, measure: Callable[[str], str], part: str = "") -> str:
    """The line of one input, whose first numbers `measure` finds. part: those of a span, which
    follow them.
    """
    try:
        measured = measure(path if path.startswith("/") else f"{root}/{path}")
    except OSError as error:  # also a link that leads nowhere
        n = len(NUMBERS[kind]) - len(part.split())
        measured = " ".join([str(_why_not(error))] * n)
    if path.startswith("/") or not path.isascii() or "\n" in path:
        path = _below(root, path).replace("\n", "\\n")
    numbers, slashes, only = measured.partition("//")
    return f"{kind} {numbers}{part} {path}{slashes}{only}"


def _same_labels(root: str, folder: str, was: Stamp) -> str:
    """The line of a label folder in an earlier stamp, if it still holds, and names the folder's
    only file: both have the same times. Else "".
    """
    only = was.partition(f" {folder}//")[2].partition("\n")[0]
    if not only:
        return ""
    try:
        file = os.stat(f"{root}/{folder}/{only}")  # noqa: PTH116 - as below
        time = os.stat(f"{root}/{folder}").st_mtime_ns  # noqa: PTH116
    except OSError:
        return ""
    line = f"labels 1 {file.st_size} {file.st_mtime_ns} {time} {folder}//{only}"
    return line if line in was else ""


class _Input(NamedTuple):
    """One input of a video: one line of a stamp."""

    kind: str  # a key of NUMBERS
    numbers: tuple[int, ...]
    path: str  # below the raw folder
    only: str = ""  # the file of a label folder that has one

    @property
    def is_empty(self) -> bool:
        """Whether it is a folder without files."""
        return self.kind in ("folder", "labels") and self.numbers[0] == 0

    @property
    def is_missing(self) -> bool:
        """Whether there is no such file or folder."""
        # an empty label folder has no newest file, which is written like a missing one
        return GONE in self.numbers and not self.is_empty


def parse(text: Stamp) -> dict[str, _Input]:
    """The inputs of a stamp, by path, in its order. Raises ValueError for any other text."""
    inputs = {}
    for line in text.split("\n") if text else ():
        kind, _, numbers_and_path = line.partition(" ")
        n = len(NUMBERS.get(kind, ()))
        *numbers, path = numbers_and_path.split(" ", n)
        if kind not in NUMBERS or len(numbers) != n:
            raise ValueError(f"no line of a stamp: {line!r}")
        only = ""
        if kind == "labels":
            path, _, only = path.partition("//")
        inputs[path] = _Input(kind, tuple(map(int, numbers)), path, only)
    return inputs


def write_stamps(root: cache.Root, name: str, seen: Mapping[str, LastReading]) -> None:
    """Write the stamps of all committed videos, beside the commit of the split `name`. Losing them
    is safe: then the files' content is compared.
    """
    columns = {
        "names": list(seen),
        "stamps": [video.stamp for video in seen.values()],
        "digests": [video.digest for video in seen.values()],
        "losses": {name: video.loss for name, video in seen.items() if video.loss},
    }
    cache.store_at(root).put_small({f"{name}/{STAMPS}": json.dumps(columns).encode()}, name)


def read_stamps(root: cache.Root, name: str) -> dict[str, LastReading]:
    """Read the stamps that `write_stamps` has written, by the videos' names; {} if they are missing
    or damaged.
    """
    try:
        columns = json.loads(cache.store_at(root).read(f"{name}/{STAMPS}"))
        sum(map(str.__len__, columns["stamps"]))  # raises TypeError if one is no text
        rows = map(LastReading, columns["stamps"], columns["digests"])
        seen = dict(zip(columns["names"], rows, strict=True))
        for video, (before, now, why) in dict(columns.get("losses", {})).items():
            seen[video] = seen[video]._replace(loss=(before, now, why))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return seen


def video_digest(raw: Path, video: RawVideo) -> str:
    """The digest of a video as its files are now: 64 hex digits.

    The first half (CONTENTS) is of the files' contents, or of the names and sizes of images. The
    second half is of the inputs' paths below the raw folder. A renamed video keeps the first half.
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
        paths.update(f"{_below(str(raw), str(path))}\n".encode())
    return contents.hexdigest()[:CONTENTS] + paths.hexdigest()[CONTENTS:]


def lost_input(was: Stamp | None, now: Stamp) -> str:
    """The path of an input that the video has lost: it was there before, and is missing or an empty
    folder now. "" if there is none, and if the video has a new input, which may replace it.

    was: the earlier stamp. If it is not known, all inputs are taken to have been there.
    """
    inputs = parse(now)
    before = _parse_stored(was)
    present = _present(inputs)
    present_before = {*inputs} if before is None else _present(before)
    if present - present_before:
        return ""
    return min(present_before - present, default="")


def same_inputs(was: Stamp | None, now: Stamp) -> set[str]:
    """Paths of a video's inputs that have the same sizes, counts and times in both stamps."""
    before = _parse_stored(was) or {}
    return {path for path, file in parse(now).items() if before.get(path) == file}


def _parse_stored(text: object) -> dict[str, _Input] | None:
    """The inputs of a stored stamp, by path; None if it is missing or damaged."""
    if not isinstance(text, str):
        return None
    try:
        return parse(text)
    except ValueError:
        return None


def _present(inputs: Mapping[str, _Input]) -> set[str]:
    """Paths of the inputs that are there: all but missing ones and empty folders. One that cannot
    be read now is there.
    """
    return {path for path, file in inputs.items() if not file.is_missing and not file.is_empty}


def what_differs(was: Stamp | None, now: Stamp) -> list[str]:
    """What has changed from one stamp of a video to the next, in a sentence for each input.

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


def _size_and_time(file: str) -> str:
    """Bytes and time of a file."""
    status = os.stat(file)  # noqa: PTH116 - a quarter of Path's time
    return f"{status.st_size} {status.st_mtime_ns}"


def _count_and_time(folder: str) -> str:
    """Number of entries of a folder, and the folder's time."""
    names = os.listdir(folder)  # noqa: PTH208 - the fast one, here and below
    return f"{len(names)} {os.stat(folder).st_mtime_ns}"  # noqa: PTH116


def _count_size_and_times(folder: str) -> str:
    """Count, total bytes and newest time of the files in a folder, by which rewritten ones show;
    and the folder's own time, by which renamed ones do. The name of an only file follows.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    count = 0
    name = ""
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
                name = entry.name
                total += size
                newest = max(newest, time)
        numbers = f"{count} {total} {newest} {os.fstat(descriptor).st_mtime_ns}"
        only = utf8(name).replace("\n", "\\n")
        return f"{numbers}//{only}" if count == 1 else numbers
    finally:
        os.close(descriptor)


def _why_not(error: OSError) -> int:
    """GONE or UNREADABLE, for a file or folder that this error was raised for."""
    return UNREADABLE if is_temporary(error) else GONE


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


def refuse_other_encoding(raw: Path, path: str) -> None:
    """Raise RawDataError for a path below a raw folder that is not UTF-8: JSON and tables cannot
    hold it.
    """
    if utf8(path) != path:
        raise RawDataError(
            Path(utf8(str(raw / path))),
            "name",
            expected="UTF-8",
            found="other bytes",
            do="Rename it, for example with convmv.",
            reason="name_not_utf8",
        )
