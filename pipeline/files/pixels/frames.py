"""Sources of pixels: numbered images or a video file.  [pixels] -> crops -> features

`pipeline.files.pixels.sources` finds the source for a line of the cache.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Final, Protocol

import numpy as np

from pipeline.errors import PipelineError, RawDataError
from pipeline.files.formats.arrays import NO_TEXT, identify_format
from pipeline.files.pixels.clip_record import ClipRecord, Survey, count_missing
from pipeline.files.pixels.decode import EBML, MP4, PictureError, decode, picture_size, read_picture
from pipeline.files.pixels.video import Image as Image
from pipeline.files.pixels.video import (
    NumberedFrame,
    OpenVideo,
    Painter,
    Undecodable,
    VideoHeader,
    View,
    open_video,
    view_of,
)
from pipeline.files.raw.files import (
    cached,
    digest_or_problem,
    folder_digest,
    list_names,
    open_regular,
    recall,
    remember,
)
from pipeline.files.raw.opening import note_fault
from pipeline.processes import alive
from pipeline.skeletons import Ints


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: == of arrays is ambiguous
class Frame:
    """One decoded frame, or why not: exactly one of `image` and `problem` is None."""

    index: int
    image: Image | None
    problem: str | None
    # of the problem, short and stable, for counting: "picture_missing", "video_ended", ...
    kind: str = ""
    record: ClipRecord | None = None  # of a video that has ended, if it was asked for


class FrameSource(Protocol):
    """Small, picklable, hashable. `spec` describes it in one line of the cache, with paths below
    the raw folder.
    """

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
        """SHA-256, hex, of the pixels' files, independent of the name and place of their folder or
        file.
        """

    @property
    def random_access(self) -> bool:
        """Whether all frames cost the same; if not, continue a reader where it is."""

    def read(self, frame_index: Iterable[int]) -> Iterator[Frame]:
        """Decode the given frames (strictly increasing), each once, in order. A bad frame is
        yielded with its problem.

        The next index is taken after the previous frame was used. Shows progress
        (`processes.alive`) for every frame, also for skipped ones. Raises ValueError if the indices
        do not increase from 0 on.
        """


def below(root: Path, relative: str) -> Path:
    """`root / relative` for a path from an untrusted file. Raises RawDataError if it would leave
    `root`.
    """
    path = PurePosixPath(relative)
    leaves_root = path.is_absolute() or ".." in path.parts
    has_names = relative and {"\0", "\\"}.isdisjoint(relative)
    if leaves_root or not has_names:
        expected = f"a path: it must be below {root}, without '..' or '\\'"
        do = "Rename it."
        raise RawDataError(root, "name", expected, repr(relative), do)
    return root / path


@dataclass(frozen=True, slots=True)
class Pictures:
    """Numbered image files: frame i is the file with the number i + `first`.

    `pattern` is a path below `root` with one number in its last part, such as
    "frames/0001/{:06d}.jpg".
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
            raise PipelineError(
                f"pixel source 'pictures:{rest}' does not end in '+' and the first image's number"
            )
        return cls(root, pattern, int(first))

    def path(self, index: int) -> Path:
        before, digits, after = _NUMBER.split(self.pattern.rpartition("/")[2])
        return self.place / f"{before}{index + self.first:0{int(digits)}d}{after}"

    @cached
    def indices(self) -> Ints:
        """Frame indices of the existing images, ascending, by file names; empty without the
        folder.
        """
        folder = self.place
        before, width, after = _NUMBER.split(self.pattern.rpartition("/")[2])
        numbered = re.compile(
            rf"(?:^|\0){re.escape(before)}([0-9]{{1,18}}){re.escape(after)}(?=\0|\Z)"
        )
        try:
            names = list_names(folder)
        except (FileNotFoundError, NotADirectoryError):
            return np.empty(0, np.int64)
        texts = numbered.findall("\0".join(names))
        padded = int(width)  # 7.jpg is not 000007.jpg
        numbers = {int(text) for text in texts if len(text) == max(padded, len(text.lstrip("0")))}
        return np.array(sorted(n - self.first for n in numbers if n >= self.first), np.int64)

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
        file = self.root / self.pattern
        expected = "a readable image"
        do = "Unpack the images again."
        raise RawDataError(file, "size", expected, problem, do, reason="no_picture")

    def digest(self) -> str:
        """Digest of names and sizes, and of the content of three images: uncompressed images all
        have one size.
        """
        indices = self.indices().tolist()
        name = self.pattern.rpartition("/")[2]
        probed = [indices[i] for i in (0, len(indices) // 2, -1) if indices]
        contents = [digest_or_problem(self.path(index)) for index in probed]
        return _digest(f"pictures:{name}+{self.first}", folder_digest(self.place), *contents)

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
        return self.view().size

    def sizes(self) -> list[tuple[int, int]]:
        """Widths and heights px that keypoints may count in: of stored pixels, as other tools have
        them; as shown.
        """
        view = self.view()
        return list(dict.fromkeys([view.unstretched, view.size]))

    def view(self) -> View:
        """How its frames are shown, by the first one. Raises RawDataError if there is none."""
        return self.first_look().view

    @cached
    def first_look(self) -> ClipRecord:
        """`record` up to the first frame that can be decoded. Raises RawDataError if there is
        none.
        """
        return self._survey(whole=False)

    def digest(self) -> str:
        return _digest("video", digest_or_problem(self.place))

    @cached
    def header(self) -> VideoHeader:
        """The container's header. Raises RawDataError if it cannot be opened."""
        with self._report_undecodable(), self._open() as video:
            return video.header()

    @cached
    def record(self) -> ClipRecord:
        """What the video is, by decoding all of it, unless it is known. Raises RawDataError if it
        cannot be decoded.
        """
        return self._survey(whole=True)

    def _survey(self, *, whole: bool) -> ClipRecord:
        known = recall(ClipRecord, self.digest())
        if known is not None:
            return known
        survey = Survey()
        with self._report_undecodable(), self._open() as video:
            for frame in video.frames():
                alive(frame.number)
                survey.add(frame)
                if frame.decoded is not None and not whole:
                    break
            return survey.record(video, self.place)

    def remember(self, record: ClipRecord) -> None:
        """Inside `caching`, take a record of the same file in place of decoding it."""
        remember(ClipRecord, self.digest(), record)

    def count_frames(self) -> int:
        """Number of frames, lost ones among them; 0 if the video cannot be decoded."""
        try:
            return self.record().n_frames
        except RawDataError:
            return 0

    def require_decodable(self) -> None:
        """Raise RawDataError unless a frame can be decoded."""
        self.size()

    def require_whole(self) -> None:
        """Raise RawDataError for a file of another kind, or a truncated one that loses frames."""
        with self._report_undecodable(), self._open() as video:
            if not count_missing(video, self.place):
                return
        self.refuse_cut_off(self.record())

    def refuse_cut_off(self, record: ClipRecord) -> None:
        """Raise RawDataError for a truncated file that loses frames, by its record."""
        if record.n_missing > MOST_LOST:
            expected = f"the {record.header_frames} frames that its header states"
            found = f"{record.n_frames - len(record.lost)} that decode: it is cut off"
            do = "Copy or download it again, or encode the frames as a new file."
            raise RawDataError(
                self.place, "video", expected, found, do, reason="frame_count_mismatch"
            )

    def read(self, frame_index: Iterable[int], survey: Survey | None = None) -> Iterator[Frame]:
        """As `FrameSource.read`. survey: gets the frames; the last frame, `video_ended`, has its
        record.
        """
        indices = increasing(frame_index)
        try:
            with self._open() as video:
                yield from _read(video, indices, self.place, survey)
        except Undecodable as error:
            for index in indices:
                yield Frame(index, None, str(error), "video_unreadable")

    @contextmanager
    def _open(self) -> Iterator[OpenVideo]:
        """The open video. Raises Undecodable."""
        problem = self.refusal()
        if problem:
            raise Undecodable(problem)
        with open_video(self.place) as video:
            yield video

    @contextmanager
    def _report_undecodable(self) -> Iterator[None]:
        """Raise RawDataError in place of Undecodable."""
        try:
            yield
        except Undecodable as error:
            raise self.unreadable(str(error)) from error

    def refusal(self) -> str:
        """Why no decoder may open it; "" if one may."""
        try:
            with open_regular(self.place) as stream:
                start = stream.read(KIND_BYTES)
        except OSError as error:
            note_fault(error)
            return f"{self.place} cannot be read: {error.strerror}"
        if not start:
            return f"{self.place} is empty"
        if not _is_video(start):
            # FFmpeg also follows play lists, which name other files and addresses.
            kind = identify_format(start, NO_TEXT)
            actual = f"is {kind}" if kind else f"begins with {start[:12]!r}"
            return f"{self.place} is no video of a known kind: it {actual}"
        return ""

    def unreadable(self, problem: str) -> RawDataError:
        expected = "a video that can be decoded"
        do = "Download or encode it again, or delete it."
        return RawDataError(self.place, "video", expected, problem, do, reason="video_unreadable")


def _read(
    video: OpenVideo, indices: Iterator[int], place: Path, survey: Survey | None
) -> Iterator[Frame]:
    """Frames of an open video. place: for messages."""
    frames = video.frames()
    painter: Painter | None = None
    current: NumberedFrame | None = None
    n_frames = 0
    record: ClipRecord | None = None

    for index in indices:
        while n_frames <= index:
            alive()
            current = next(frames, None)
            if current is None:
                break
            n_frames = current.number + 1
            if survey is not None:
                survey.add(current)
            if painter is None and current.decoded is not None:
                painter = Painter(view_of(video.stream, current.decoded))

        if current is None:
            if survey is not None and record is None:
                record = survey.record(video, place)
            problem = f"{place} ends after {n_frames} frames"
            yield Frame(index, None, problem, "video_ended", record=record)
        elif current.decoded is None or painter is None:
            yield Frame(index, None, f"{place}: frame {index} cannot be decoded", "frame_damaged")
        else:
            yield Frame(index, painter.image(current.decoded), None)


MOST_LOST: Final = 2  # frames that a decoder may lose at a video's end
KIND_BYTES: Final = 200  # of a file's start, which tell its kind
_NUMBER: Final = re.compile(r"\{:0(\d{1,2})d\}")
_STARTS: Final = (
    EBML,  # Matroska, WebM
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG video
    b"FLV\x01",
    b"\x30\x26\xb2\x75",  # ASF, Windows Media
)


def _is_video(start: bytes) -> bool:
    is_avi = start.startswith(b"RIFF") and start[8:12] == b"AVI "
    is_mp4 = start[4:8] in MP4
    is_transport = start[:1] == b"G" == start[188:189]
    is_m2ts = start[4:5] == b"G" == start[196:197]
    return is_avi or is_mp4 or is_transport or is_m2ts or start.startswith(_STARTS)


def increasing(frame_index: Iterable[int]) -> Iterator[int]:
    """The indices as int; shows progress for each. Raises ValueError if they do not increase from 0
    on.
    """
    before = -1
    for index in frame_index:
        if index <= before:
            raise ValueError(f"frame indices must increase from 0 on: {index} after {before}")
        before = int(index)
        alive()
        yield before


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
