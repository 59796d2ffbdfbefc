"""What a dataset is to the pipeline: a cheap list of raw videos, and a function that reads one of them into tracks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.accounting import Accounting, VideoAccount
from pipeline.datasets.release import Mistake, Part, Totals
from pipeline.errors import PipelineError, RawDataError
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body


@dataclass(frozen=True, slots=True)
class RawVideo:
    """One unit of conversion, of accounting and of "has it changed?". All paths are below the raw folder."""

    name: str  # unique within the dataset; without what is the same for all videos
    files: tuple[Path, ...]  # label files and videos: their content decides the tracks
    folders: tuple[Path, ...] = ()  # picture folders: the names in them decide the tracks
    label_folders: tuple[Path, ...] = ()  # folders of label files: names and content decide the tracks
    span: tuple[int, int] | None = None  # bytes [start, stop) of the one file that are this video's; None: all of it


@dataclass(frozen=True)
class Dataset(ABC):
    """Reader of one official layout. Subclasses are frozen dataclasses whose fields are the reader's options."""

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    version: ClassVar[int]  # raised by hand whenever the same raw files would give other tracks
    page: ClassVar[str]  # where the official download is to be had
    uses_body: ClassVar[bool] = False  # labels are derived through the body model
    has_pixels: ClassVar[bool] = True
    harmless: ClassVar[frozenset[str]] = frozenset()  # reasons that set a video aside though nothing is wrong with it
    parts: ClassVar[tuple[Part, ...]] = ()  # what of the official download has to lie where
    totals: ClassVar[Mapping[str, Totals]] = {}  # by split, or under "all" over all splits

    @property
    def genders(self) -> tuple[str, ...]:
        """Of the body models that the labels are derived through, where there are any."""
        return ("neutral",)

    @abstractmethod
    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        """Every video that may belong to `split`, sorted by name. Lists folders; reads no label.

        Raises RawDataError when the raw folder or what makes it recognisable is missing.
        """

    @abstractmethod
    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        """Names of the cache's columns that the split's tracks fill, `body`: when there is a body model."""

    @abstractmethod
    def read(self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None) -> Sequence[Track]:
        """The tracks of one video, with everything found, kept and dropped noted in `account`.

        Raises RawDataError when the video as a whole cannot be used.
        """

    def mistakes(self, raw: Path) -> Iterator[Mistake]:  # noqa: ARG002 - by default none is known
        """What is known to go wrong with this download and shows in names and small files: read in seconds.

        That something is missing, still packed or one folder too deep is told for every dataset without this.
        """
        return iter(())

    def known(self, raw: Path, part: Part) -> int | None:  # noqa: ARG002 - by default, the release is always the same
        """How many of this part the full release has; what lies in the raw folder may say it better than we know it."""
        return part.known

    def parameters(self) -> dict[str, Any]:
        """Every option that can change the tracks: part of the conversion's fingerprint."""
        return asdict(self)

    def read_accounted(
        self, raw: Path, split: str, video: RawVideo, body: Body | None = None
    ) -> tuple[Sequence[Track], VideoAccount]:
        """`read`, with a video that cannot be used set aside in its account instead of raised."""
        account = VideoAccount(video.name)
        try:
            tracks = self.read(raw, split, video, account, body)
        except RawDataError as error:
            account.put_aside(error.reason, str(error))
            tracks = []
        account.check()
        return tracks, account

    def tracks(
        self, raw_dir: Path | str, split: str, body: Body | None = None, report: Accounting | None = None
    ) -> Iterator[Track]:
        """Stream the split's tracks in a fixed order.

        What cannot be used is noted in `report` and skipped; without one, it raises RawDataError.
        """
        raw = Path(raw_dir)
        self.check_split(split)
        for video in self.videos(raw, split):
            account = VideoAccount(video.name) if report is None else report.video(video.name)
            try:
                tracks = self.read(raw, split, video, account, body)
            except RawDataError as error:
                if report is None:
                    raise
                account.put_aside(error.reason, str(error))
                continue
            account.check()
            yield from tracks

    def check_split(self, split: str) -> None:
        if split not in self.splits:
            raise PipelineError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
