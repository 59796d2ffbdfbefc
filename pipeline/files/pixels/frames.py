"""Sources of pixels: numbered images or a video file.  [pixels] -> crops -> features

`pipeline.files.pixels.sources` finds the source for a line of the cache.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Final, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError, RawDataError
from pipeline.files.formats.arrays import NO_TEXT, begins_as
from pipeline.files.pixels.decode import (
    EBML,
    MAX_PIXELS,
    MP4,
    PictureError,
    decode,
    edit_list,
    missing_bytes,
    picture_size,
    read_picture,
)
from pipeline.files.raw.files import cached, file_digest, folder_digest, list_names, note_fault, open_regular
from pipeline.processes import alive
from pipeline.skeletons import Doubles, Ints

Image = NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: == of arrays is ambiguous
class Frame:
    """One decoded frame, or why not: exactly one of `image` and `problem` is None."""

    index: int
    image: Image | None
    problem: str | None
    kind: str = ""  # of the problem, short and stable, for counting: "picture_missing", "video_ended", ...


class FrameSource(Protocol):
    """Small, picklable, hashable. `spec` describes it in one line of the cache, with paths below the raw folder."""

    @property
    def root(self) -> Path:
        """The dataset's raw folder."""

    @property
    def spec(self) -> str: ...

    @property
    def place(self) -> Path:
        """The folder of the images, or the video file. It need not exist."""

    def size(self) -> tuple[int, int]:
        """(width, height) px, from the first readable header. Raises RawDataError without any."""

    def digest(self) -> str:
        """SHA-256, hex, of the pixels' files, independent of the name and place of their folder or file."""

    @property
    def random_access(self) -> bool:
        """Whether all frames cost the same; if not, continue a reader where it is."""

    def read(self, frame_index: Iterable[int]) -> Iterator[Frame]:
        """Decode the given frames (strictly increasing), each once, in order. A bad frame is yielded with its problem.

        The next index is taken after the previous frame was used. Shows progress (`processes.alive`) for every frame,
        also for skipped ones. Raises ValueError if the indices do not increase from 0 on.
        """


class VideoHeader(NamedTuple):
    """A video's header. Containers are often wrong about `n_frames`: do not rely on it."""

    n_frames: int | None  # None: not in the header
    fps: float  # nan: not in the header
    width: int
    height: int


def below(root: Path, relative: str) -> Path:
    """`root / relative` for a path from an untrusted file. Raises RawDataError if it would leave `root`."""
    path = PurePosixPath(relative)
    if not relative or path.is_absolute() or ".." in path.parts or "\0" in relative or "\\" in relative:
        expected, do = f"a path: it must be below {root}, without '..' or '\\'", "Rename it."
        raise RawDataError(root, "name", expected, repr(relative), do)
    return root / path


@dataclass(frozen=True, slots=True)
class Pictures:
    """Numbered image files: frame i is the file with the number i + `first`.

    `pattern` is a path below `root` with one number in its last part, such as "frames/0001/{:06d}.jpg".
    """

    root: Path
    pattern: str
    first: int = 0
    random_access: ClassVar[bool] = True

    def __post_init__(self) -> None:
        below(self.root, self.pattern)
        folder, _, name = self.pattern.rpartition("/")
        if len(_NUMBER.findall(name)) != 1 or _NUMBER.search(folder):
            expected = "a pattern that needs one number like {:06d}, in the file's name"
            raise RawDataError(self.root, "pictures", expected, repr(self.pattern), "Rename them.")

    @property
    def spec(self) -> str:
        return f"pictures:{self.pattern}+{self.first}"

    @property
    def place(self) -> Path:
        return (self.root / self.pattern).parent

    @classmethod
    def from_spec(cls, root: Path, rest: str) -> Pictures:
        pattern, plus, first = rest.rpartition("+")
        if not plus or not first.isdecimal():
            raise PipelineError(f"pixel source 'pictures:{rest}' does not end in '+' and the first image's number")
        return cls(root, pattern, int(first))

    def path(self, index: int) -> Path:
        before, digits, after = _NUMBER.split(self.pattern.rpartition("/")[2])
        return self.place / f"{before}{index + self.first:0{int(digits)}d}{after}"

    @cached
    def indices(self) -> Ints:
        """Frame indices of the existing images, ascending, by file names; empty without the folder."""
        folder = self.place
        before, width, after = _NUMBER.split(self.pattern.rpartition("/")[2])
        numbered = re.compile(rf"(?:^|\0){re.escape(before)}([0-9]{{1,18}}){re.escape(after)}(?=\0|\Z)")
        try:
            names = list_names(folder)
        except (FileNotFoundError, NotADirectoryError):
            return np.empty(0, np.int64)
        there, padded = numbered.findall("\0".join(names)), int(width)  # 7.jpg is not 000007.jpg
        numbers = [int(text) for text in there if len(text) == padded or (len(text) > padded and text[0] != "0")]
        return np.array(sorted({n - self.first for n in numbers if n >= self.first}), np.int64)

    def count_frames(self) -> int:
        """Number of frames up to the last image."""
        return int(self.indices().max(initial=-1)) + 1

    @cached
    def size(self) -> tuple[int, int]:
        problem = "no such picture"
        for index in self.indices():
            try:
                return picture_size(read_picture(self.path(int(index))))
            except PictureError as error:
                problem = str(error)
        file, expected, do = self.root / self.pattern, "a readable image", "Unpack the images again."
        raise RawDataError(file, "size", expected, problem, do, reason="no_picture")

    def digest(self) -> str:
        """Digest of names and sizes, and of the content of three images: uncompressed images all have one size."""
        there, name = self.indices().tolist(), self.pattern.rpartition("/")[2]
        probed = [file_digest(self.path(there[i])) for i in (0, len(there) // 2, -1) if there]
        return _digest(f"pictures:{name}+{self.first}", folder_digest(self.place), *probed)

    def read(self, frame_index: Iterable[int]) -> Iterator[Frame]:
        for index in increasing(frame_index):
            path = self.path(index)
            try:
                yield Frame(index, decode(read_picture(path)), None)
            except PictureError as error:
                yield Frame(index, None, f"{path} {error}", error.kind)


@dataclass(frozen=True, slots=True)
class Video:
    """A video file, decoded from its first frame on: seeking finds wrong frames."""

    root: Path
    path: str  # below root
    random_access: ClassVar[bool] = False

    def __post_init__(self) -> None:
        below(self.root, self.path)

    @property
    def spec(self) -> str:
        return f"video:{self.path}"

    @property
    def place(self) -> Path:
        return self.root / self.path

    def size(self) -> tuple[int, int]:
        header = self.header()
        return header.width, header.height

    def digest(self) -> str:
        return _digest("video", file_digest(self.place))

    @cached
    def header(self) -> VideoHeader:
        """The container's header. Raises RawDataError if it cannot be opened."""
        with self._open_capture() as (capture, problem):
            if problem:
                raise self.unreadable(problem)
            n_frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
            width, height = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        return VideoHeader(
            n_frames=int(n_frames) if 0 < n_frames < 2**40 else None,
            fps=float(fps) if 0 < fps <= MAX_FPS else math.nan,
            width=width,
            height=height,
        )

    @cached
    def count_frames(self) -> int:
        """Number of frames that decode, 0 if the video cannot be opened.

        Counts packets where nothing hints that some give no frame (`_count_packets`), else decodes. One thread needs
        the least work in total; other processes use the other cores.
        """
        if n_frames := self._count_packets():
            return n_frames
        with self._open_capture(cv2.CAP_PROP_N_THREADS, 1) as (capture, problem):
            while not problem and capture.grab():
                n_frames += 1
                alive(n_frames)
        return n_frames

    def _count_packets(self) -> int:
        """Number of packets, if it is the header's number and each packet has one intact picture; else 0.

        0 also for a cut file, an edit list that hides frames, other codecs, a first picture that needs an earlier one,
        and frames at other times than their packets, such as frames of two fields.
        """
        if self._cut_off() or any(edit_list(self.place)):
            return 0
        times: list[float] = []  # ms, of the packets
        with self._open_capture(cv2.CAP_PROP_FORMAT, -1) as (capture, problem):
            codec = b"" if problem else (int(capture.get(cv2.CAP_PROP_FOURCC)) % 2**32).to_bytes(4, "little")
            picture, stated = _PICTURES.get(codec), capture.get(cv2.CAP_PROP_FRAME_COUNT)
            while picture and capture.grab():
                packet = capture.retrieve()[1]
                starts = [] if packet is None else picture.findall(packet.data)
                if len(starts) != 1 or not (times or starts[0]):
                    return 0
                times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
                alive(len(times))
        n_packets, first = len(times), np.sort(times)[:3]
        steps = self.steps(3) if n_packets == stated else np.empty(0)
        return n_packets if len(steps) == 2 and np.allclose(steps, np.diff(first), atol=1) else 0

    def require_decodable(self) -> None:
        """Raise RawDataError unless the first frame can be decoded."""
        first = next(self.read([0]))
        if first.problem is not None:
            raise self.unreadable(first.problem)

    def require_whole(self) -> None:
        """Raise RawDataError for a file of another kind, or a truncated one that loses frames (it is decoded)."""
        if problem := self.refusal():
            raise self.unreadable(problem)
        if not (cut := self._cut_off()):
            return
        stated, there = self.header().n_frames or 0, self.count_frames()
        if stated > there + MOST_LOST:
            expected, found = f"the {stated} frames that its header states", f"{there} that decode: {cut}"
            do, reason = "Copy or download it again, or encode the frames as a new file.", "frame_count_mismatch"
            raise RawDataError(self.place, "video", expected, found, do, reason=reason)

    def _cut_off(self) -> str:
        """Message about missing bytes at the file's end; "" if none are known."""
        there, stated = missing_bytes(self.place)
        return f"it is cut off, {there:,} of at least {stated:,} bytes are there" if stated > there else ""

    def steps(self, most: int) -> Doubles:
        """Milliseconds between the first `most` frames, where known and positive; empty for an unreadable video.

        OpenCV has 0 for an unknown time: of the last frames of an AVI with B-frames.
        """
        times: list[float] = []
        with self._open_capture() as (capture, problem):
            while not problem and len(times) < most and capture.grab():
                times.append(capture.get(cv2.CAP_PROP_POS_MSEC) or (math.nan if times else 0.0))
        steps = np.diff(np.array(times, np.float64))
        return steps[steps > 0]

    def read(self, frame_index: Iterable[int]) -> Iterator[Frame]:
        kind = "video_unreadable"
        position = 0  # of the frame that the next grab() takes
        with self._open_capture() as (capture, problem):
            for index in increasing(frame_index):
                while not problem and position <= index:
                    alive()
                    if capture.grab():
                        position += 1
                    else:
                        problem, kind = f"{self.place} ends after {position} frames", "video_ended"
                if problem:
                    yield Frame(index, None, problem, kind)
                    continue
                decoded, bgr = capture.retrieve()
                if decoded:
                    yield Frame(index, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), None)
                else:
                    damaged = f"{self.place}: frame {index} cannot be decoded"
                    yield Frame(index, None, damaged, "frame_damaged")

    def refusal(self) -> str:
        """Why no decoder may open it; "" if one may."""
        try:
            with open_regular(self.place) as stream:
                start = stream.read(16)
        except OSError as error:
            note_fault(error)
            return f"{self.place} cannot be read: {error.strerror}"
        if not _is_video(start):
            # FFmpeg also follows play lists, which name other files and addresses.
            kind = begins_as(start, NO_TEXT)
            found = f"it is {kind}" if kind else f"it begins with {start[:12]!r}" if start else "it is empty"
            return f"{self.place} is no MP4, AVI, Matroska, WebM, MPEG or FLV file: {found}"
        return ""

    @contextmanager
    def _open_capture(self, *properties: int) -> Iterator[tuple[cv2.VideoCapture, str]]:
        """The capture, and why it cannot be used or "". `properties`: OpenCV's keys and values."""
        capture = cv2.VideoCapture()
        try:
            yield capture, self.refusal() or self._problem(capture, properties)
        finally:
            capture.release()

    def _problem(self, capture: cv2.VideoCapture, properties: Sequence[int]) -> str:
        """Open the video; returns why it cannot be used, or ""."""
        # An absolute path cannot be taken for a protocol, nor, by the named backend, for an image sequence (%02d).
        path = os.path.abspath(self.place)  # noqa: PTH100 - links stay as they are
        if not capture.open(path, cv2.CAP_FFMPEG, properties):
            return f"{self.place} cannot be opened: {self._cut_off() or 'no decodable video stream in it'}"
        width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if not 0 < width * height <= MAX_PIXELS:
            return f"{self.place} claims {width:.0f} x {height:.0f} px, expected 1 to {MAX_PIXELS}"
        return ""

    def unreadable(self, problem: str) -> RawDataError:
        expected, do = "a video that can be decoded", "Download or encode it again, or delete it."
        return RawDataError(self.place, "video", expected, problem, do, reason="video_unreadable")


MOST_LOST: Final = 2  # frames that a decoder may lose at a video's end
MAX_FPS: Final = 1000.0  # containers with a variable rate report their clock, 90000 a second, or the like
# By codec: the start of a picture in a packet, and in a group if it needs no earlier picture. Later slices of a H.264
# picture have no leading 1 bit; a MPEG-4 picture that is not coded is shorter.
_PICTURES: Final = {
    b"h264": re.compile(rb"\x00\x00\x01(?:([\x05\x25\x45\x65])|[\x01\x21\x41\x61])[\x80-\xff]"),
    b"FMP4": re.compile(rb"\x00\x00\x01\xb6(?:([\x00-\x3f])|[\x40-\xff])(?s:.{7})"),
}
_NUMBER: Final = re.compile(r"\{:0(\d{1,2})d\}")


def _is_video(start: bytes) -> bool:
    avi = start.startswith(b"RIFF") and start[8:12] == b"AVI "
    return start[4:8] in MP4 or avi or start.startswith((EBML, b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"FLV\x01"))


def increasing(frame_index: Iterable[int]) -> Iterator[int]:
    """The indices as int; shows progress for each. Raises ValueError if they do not increase from 0 on."""
    before = -1
    for index in frame_index:
        if index <= before:
            raise ValueError(f"frame indices must increase from 0 on: {index} after {before}")
        before = int(index)
        alive()
        yield before


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
