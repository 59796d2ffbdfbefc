"""Sources of pixels, and videos.  [pixels] -> crops -> features

A `FrameSource` says where the pixels of one clip are: a `Video` (one file), or images
(`pictures.py`, `sources.py`). It opens nothing until it is asked, and then gives a `Frame` for each
frame index that the caller wants, in RGB.

Words:
    spec: one line of text that describes a source; it is stored in the cache.
        `pipeline.files.pixels.sources` makes the source of it again.
    problem: why a frame has no image, as a sentence. Bad files are common, so a problem is given
        with its frame, and the next frame is read; it is not raised.
    kind: of a problem, its name in the accounting, by which problems are counted.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Final, Protocol

from pipeline.errors import RawDataError, note_fault
from pipeline.files.formats.other_formats import other_than_text
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.pixels.decode import EBML, MP4
from pipeline.files.pixels.survey import Survey
from pipeline.files.pixels.video import OpenVideo, Undecodable, VideoHeader, open_video
from pipeline.files.pixels.view import Image as Image
from pipeline.files.pixels.view import Painter, View
from pipeline.files.raw.files import (
    cache_result,
    digest_or_problem,
    open_regular,
    recall,
    remember,
)
from pipeline.processes import alive, show_done

MOST_LOST: Final = 2  # frames that a decoder may lose at a video's end
_KIND_BYTES: Final = 200  # of a file's start, which tell its kind
_STARTS: Final = (
    EBML,  # Matroska, WebM
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG video
    b"FLV\x01",
    b"\x30\x26\xb2\x75",  # ASF, Windows Media
)


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: == of arrays is ambiguous
class Frame:
    """A frame that was asked for: its image, or its problem. Exactly one of both is None."""

    index: int
    image: Image | None  # (H, W, 3) RGB
    problem: str | None
    kind: str = ""  # of the problem: "picture_missing", "video_ended", ...
    # of the whole video, if a survey was asked for and the index is after the video's end
    record: ClipRecord | None = None


class FrameSource(Protocol):
    """Where the pixels of one clip are, and how to read them.

    Sources are small, picklable and hashable: they go to other processes, and are keys of caches.
    """

    @property
    def root(self) -> Path:
        """The dataset's raw folder."""

    @property
    def spec(self) -> str:
        """The source as one line of the cache, with its path below `root`."""

    @property
    def place(self) -> Path:
        """The folder of the images, or the video file. It need not exist."""

    def size(self) -> tuple[int, int]:
        """(width, height) px of its images, by the first one that can be read. Raises RawDataError
        if there is none.
        """

    def digest(self) -> str:
        """SHA-256, hex, of the content of its files. It stays when their folder or file is renamed
        or moved.
        """

    @property
    def random_access(self) -> bool:
        """Whether any frame can be read at once. If not, reading one decodes all before it: keep a
        reader, and go on with it.
        """

    def read(self, frame_index: Iterable[int]) -> Iterator[Frame]:
        """Decode the frames of these indices, each once, in order. A frame that cannot be read is
        yielded with its problem.

        The indices may be computed meanwhile: each is taken after the frame before it was used.
        Shows progress (`processes.alive`) for every frame, also for skipped ones. Raises ValueError
        if the indices do not increase strictly, from 0 on.
        """


def below(root: Path, relative: str) -> Path:
    """The path `root / relative`, where `relative` comes from a file that nobody has checked.
    Raises RawDataError if it would lead out of `root`, or is no path.
    """
    path = PurePosixPath(relative)
    leaves_root = path.is_absolute() or ".." in path.parts
    is_path = relative and {"\0", "\\"}.isdisjoint(relative)
    if leaves_root or not is_path:
        expected = f"a path: it must be below {root}, without '..' or '\\'"
        do = "Rename it."
        raise RawDataError(root, "name", expected, repr(relative), do)
    return root / path


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A source in one file."""

    root: Path
    path: str  # below root

    def __post_init__(self) -> None:
        below(self.root, self.path)

    @property
    def place(self) -> Path:
        return self.root / self.path


@dataclass(frozen=True, slots=True)
class Video(SourceFile):
    """A video file. It is always decoded from its first frame on, because seeking to a frame finds
    a wrong one in many files.
    """

    random_access: ClassVar[bool] = False

    @property
    def spec(self) -> str:
        return f"video:{self.path}"

    def size(self) -> tuple[int, int]:
        """(width, height) px as a player shows it."""
        return self.view().size

    def sizes(self) -> list[tuple[int, int]]:
        """The sizes (width, height) px in whose pixels a file of keypoints may count: as tools have
        it that do not stretch pixels that are not square, and as a player shows it. Mostly, these
        are one.
        """
        view = self.view()
        return list(dict.fromkeys([view.unstretched, view.size]))

    def view(self) -> View:
        """How a player shows its frames. Raises RawDataError if none can be decoded."""
        return self.first_look().view

    @cache_result
    def first_look(self) -> ClipRecord:
        """What the video is, as far as the header and the first frame that can be decoded tell.
        Raises RawDataError if no frame can be decoded.
        """
        return self._survey(whole=False)

    def digest(self) -> str:
        return text_digest("video", digest_or_problem(self.place))

    @cache_result
    def header(self) -> VideoHeader:
        """The container's header. Raises RawDataError if it cannot be opened."""
        with self._report_undecodable(), self._open() as video:
            return video.header()

    @cache_result
    def record(self) -> ClipRecord:
        """What the video is, by decoding all of it, unless its record is known from before. Raises
        RawDataError if no frame can be decoded.
        """
        return self._survey(whole=True)

    def _survey(self, *, whole: bool) -> ClipRecord:
        """The known record; else that of the whole video, or of its start up to a decoded frame."""
        record = recall(ClipRecord, self.digest())
        if record is not None:
            return record
        survey = Survey()
        with self._report_undecodable(), self._open() as video:
            n_frames = video.header().n_frames or 0
            for frame in video.frames():
                alive(frame.number)
                show_done(frame.number, n_frames, "frames decoded")
                survey.add(frame)
                if frame.decoded is not None and not whole:
                    break
            return survey.record(video, self.place)

    def remember(self, record: ClipRecord) -> None:
        """Inside `caching`, let this be the record of the file's content: it is not decoded for
        its record any more.
        """
        remember(ClipRecord, self.digest(), record)

    def count_frames(self) -> int:
        """Number of frames, lost ones among them; 0 if the video cannot be decoded."""
        try:
            return self.record().n_frames
        except RawDataError:
            return 0

    def require_known_kind(self) -> None:
        """Raise RawDataError for a file that cannot be read, or that does not begin like a video:
        FFmpeg must not open it.
        """
        with self._report_undecodable():
            self._require_known_kind()

    def require_decodable(self) -> None:
        """Raise RawDataError unless a frame can be decoded."""
        self.size()

    def require_whole(self) -> None:
        """Raise RawDataError for a file that is no video, or that is truncated and thereby loses
        more than MOST_LOST frames.
        """
        with self._report_undecodable(), self._open() as video:
            if not video.count_missing(self.place):
                return
        self.refuse_cut_off(self.record())

    def refuse_cut_off(self, record: ClipRecord) -> None:
        """As `require_whole`, for a video whose record the caller has."""
        if record.n_missing > MOST_LOST:
            expected = f"the {record.header_frames} frames that its header states"
            actual = f"{record.n_frames - len(record.lost)} that decode: it is cut off"
            do = "Copy or download it again, or encode the frames as a new file."
            raise RawDataError(
                self.place, "video", expected, actual, do, reason="frame_count_mismatch"
            )

    def read(self, frame_index: Iterable[int], survey: Survey | None = None) -> Iterator[Frame]:
        """Decode frames as `FrameSource.read` says.

        survey: it is given all frames that are decoded. An index after the video's end gets a
        `Frame` of the kind `video_ended`, with the survey's record of the whole video.
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
        """Open the file, if it is safe to. Raises Undecodable."""
        self._require_known_kind()
        with open_video(self.place) as video:
            yield video

    @contextmanager
    def _report_undecodable(self) -> Iterator[None]:
        """Inside, an Undecodable becomes a RawDataError, which says what to do."""
        try:
            yield
        except Undecodable as error:
            raise self.unreadable(str(error)) from error

    def _require_known_kind(self) -> None:
        """`require_known_kind`, but raises Undecodable."""
        try:
            with open_regular(self.place) as stream:
                start = stream.read(_KIND_BYTES)
        except OSError as error:
            note_fault(error)
            raise Undecodable(f"{self.place} cannot be read: {error.strerror}") from error
        if not start:
            raise Undecodable(f"{self.place} is empty")
        if not _is_video(start):
            # FFmpeg also follows play lists, which name other files and addresses.
            kind = other_than_text(start)
            is_other = f": it is {kind}" if kind else ""
            raise Undecodable(f"{self.place} is no video of a known kind{is_other}")

    def unreadable(self, problem: str) -> RawDataError:
        """The error for a video that cannot be decoded, for the caller to raise."""
        expected = "a video that can be decoded"
        do = "Download or encode it again, or delete it."
        return RawDataError(self.place, "video", expected, problem, do, reason="video_unreadable")


def _read(
    video: OpenVideo, indices: Iterator[int], place: Path, survey: Survey | None
) -> Iterator[Frame]:
    """Decode an open video, and yield the frames of these indices. place: for messages."""
    index = next(indices, None)
    if index is None:
        return
    painter: Painter | None = None  # made of the first frame that is not lost
    n_frames = 0  # decoded so far
    for frame in video.frames():
        alive()
        n_frames = frame.number + 1
        if survey is not None:
            survey.add(frame)
        if painter is None and frame.decoded is not None:
            painter = Painter(View.from_frame(video.stream, frame.decoded))
        if n_frames <= index:
            continue
        if frame.decoded is None or painter is None:
            yield Frame(index, None, f"{place}: frame {index} cannot be decoded", "frame_damaged")
        else:
            yield Frame(index, painter.image(frame.decoded), None)
        index = next(indices, None)
        if index is None:
            return

    record = survey.record(video, place) if survey is not None else None
    problem = f"{place} ends after {n_frames} frames"
    for beyond in itertools.chain([index], indices):
        yield Frame(beyond, None, problem, "video_ended", record=record)


def _is_video(start: bytes) -> bool:
    """Whether a file that begins with these bytes is a video of a known container."""
    is_avi = start.startswith(b"RIFF") and start[8:12] == b"AVI "
    is_mp4 = start[4:8] in MP4
    is_transport = start[:1] == b"G" == start[188:189]
    is_m2ts = start[4:5] == b"G" == start[196:197]
    return is_avi or is_mp4 or is_transport or is_m2ts or start.startswith(_STARTS)


def increasing(frame_index: Iterable[int]) -> Iterator[int]:
    """Yield the indices as int, and show progress for each. Raises ValueError unless they increase
    strictly, from 0 on.
    """
    before = -1
    for index in frame_index:
        if index <= before:
            raise ValueError(f"frame indices must increase from 0 on: {index} after {before}")
        before = int(index)
        alive()
        yield before


def text_digest(*parts: str) -> str:
    """SHA-256, hex, of several texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
