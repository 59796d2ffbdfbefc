"""Base class of datasets, and the release that a dataset is read from.  [raw -> tracks] -> features

A reader is a subclass of `Dataset`. The conversion calls, in this order:

    detect_layout       the reader for the files in this raw folder
    videos              the raw videos of a split, by names alone
    read_accounted      `read` for one video, then checks of its tracks: one person each

A `VideoAccount` counts how many frames were found, kept and dropped. `body` is the SMPL body model.

A reader declares a `Release`. `python -m pipeline doctor` compares the raw folder with it
(`pipeline.datasets.releases.examination`), and `leaks` compares the people and recordings of two
splits.
"""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple

import numpy as np

import cache
from pipeline.accounting import Accounting, Totals, VideoAccount
from pipeline.datasets.shared.checks import LabelRules
from pipeline.errors import MissingAssets, PipelineError, RawDataError, UnsafePickle, note_fault
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import caching
from pipeline.people.track import Track

if TYPE_CHECKING:
    from pipeline.people.body import Body
    from pipeline.people.smplx_body import SmplxBody


@dataclass(frozen=True, slots=True)
class ReleasePart:
    """A part of a dataset's download. Whether it is complete is checked by file names alone.

    `patterns` are alternative paths below the raw folder: `labels/<0001>.mat`; `<...>` and `*`
    stand for any part of a name, `{train,val}` for one of the two; a slash at the end matches
    folders only. Matches of all patterns are added up.
    """

    what: str  # "label files"
    patterns: tuple[str, ...]
    source: str  # which archive of the download contains it: "Penn_Action.tar.gz"
    splits: tuple[str, ...] = ()  # splits that need this part; empty: all
    known: int | None = None  # number of files or folders in the full release
    without: str = ""  # what is lost without this part; "": the dataset cannot be used without it
    instead: ReleasePart | None = None  # the part of another layout that can replace this one


class Mistake(NamedTuple):
    """A known mistake in unpacking a download: some path below the raw folder matches `pattern`."""

    pattern: str  # in the syntax of `ReleasePart.patterns`
    what: str  # end of the message that begins with the matching path: "is of PoseTrack 2017"
    do: str  # advice: "Download PoseTrack 2018."


class ImageFolders(NamedTuple):
    """A release in which each sequence has a folder with all its images, or with every n-th one."""

    # all cameras of a recording have the same number of images
    alike_by_camera: bool = False
    short: frozenset[str] = frozenset()  # videos that lack images in the release itself


class Licence(NamedTuple):
    """Terms of a dataset's files."""

    name: str = "not known"
    page: str = ""  # with its text; "": `Release.page`
    # whether rows that were made from the files may be passed on; ask: the terms are not known
    # here, so ask whoever made the files
    sharing: Literal["yes", "no", "ask"] = "ask"

    def __str__(self) -> str:
        return ", ".join(filter(None, (f"licence {self.name}", self.page)))


UNKNOWN_TERMS: Final = Licence()
REGISTERED: Final = Licence("accepted at registration")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Download of a dataset, or the user's own files: all that is known without opening a file."""

    page: str = ""  # where the official download is available; "": the user's own files
    access: str = ""  # what one must do or may expect there: "registration"
    licence: Licence = UNKNOWN_TERMS
    parts: tuple[ReleasePart, ...] = ()  # where each part of the download is expected
    mistakes: tuple[Mistake, ...] = ()  # known mistakes in unpacking it
    # number of videos and frames in the full release, by split
    totals: Mapping[str, Totals] = field(default_factory=dict)
    image_folders: ImageFolders | None = None  # None: videos, or other folders
    optional_splits: frozenset[str] = frozenset()  # splits that may be without any video
    # the dataset's word for a recording: sequence, motion, or (published) video
    recording: str = "recording"
    # where tracks are named <video>/<subject>: a name that datasets with the same subjects share
    people: str | None = None


class Origin(NamedTuple):
    """Which person is in a video, and which recording it belongs to; None where unknown.

    They are derived from the video's name in the release. Within a dataset, equal names mean the
    same person or recording. Published videos (of YouTube, for example) are compared across
    datasets.
    """

    subject: str | None = None
    recording: str | None = None


def globs(patterns: Iterable[str]) -> list[str]:
    """Expand patterns of `ReleasePart` into globs, one for each choice of `{...}`.

    >>> globs(["<class>/<clip>.{mp4,avi}", "labels/<0001>.mat"])
    ['*/*.mp4', '*/*.avi', 'labels/*.mat']
    """
    matches: list[str] = []
    for pattern in patterns:
        choices = []
        # split at {...}: every second piece lists alternatives
        for i, piece in enumerate(re.split(r"\{([^{}]*)\}", re.sub("<[^<>]*>", "*", pattern))):
            choices.append(piece.split(",") if i % 2 else [piece])
        matches += map("".join, itertools.product(*choices))
    return matches


@dataclass(frozen=True)
class Dataset(ABC):
    """Reader of one dataset, in the layout of its official release.

    Subclasses are frozen dataclasses whose fields, the variables with a type, are the reader's
    options. They state `name`, `splits` and `version` without one, and define `videos` and `read`;
    all else has defaults.
    """

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    version: ClassVar[int]  # raised by hand whenever the same raw files would give other tracks
    # shared code that makes its tracks -> its version, likewise: part of the identity from 2 on
    uses: ClassVar[dict[str, int]] = {"readers": 1}
    release: ClassVar[Release] = Release()
    labels: ClassVar[LabelRules] = LabelRules()
    # options that state something of clips by their names, as "slow/*=240, a.mp4=120": what the
    # last conversion took holds until another value is named
    by_clip: ClassVar[tuple[str, ...]] = ()
    # further options that hold likewise
    lasting_options: ClassVar[tuple[str, ...]] = ()
    corrects_people: ClassVar[bool] = False  # whether `read` does `RawVideo.corrections` of people
    # options that were added later -> the value that changes nothing, which identities leave out
    added: ClassVar[Mapping[str, Any]] = {}

    @property
    def genders(self) -> tuple[str, ...]:
        """Genders of the body models that `read` needs, if its `labels` use or check bodies.

        `read` gets the body of the first gender; `body.of(gender)` gives the others. A track's
        labels use the body of the person's gender if it is listed, else the first one.
        """
        return ("neutral",)

    @abstractmethod
    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        """List every video that may belong to `split`, sorted by name. Reads no label file.

        Raises RawDataError if the raw folder, or the part that identifies it, is missing.
        """

    def detect_layout(self, raw: Path, split: str) -> Dataset:
        """Return the reader whose columns fit the files in this raw folder.

        That is this reader, or one of a subclass if optional label files are present. Lists files.
        When a split's columns change, it is converted again; its features are kept.
        """
        return self

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        """Names of the cache's columns that the split's tracks fill; by default
        `LabelRules.columns` and, if there is a body model (`body`), `LabelRules.body_columns`.
        """
        if body:
            return (*self.labels.columns, *self.labels.body_columns)
        return self.labels.columns

    def extra_columns(self, split: str, *, body: bool) -> tuple[cache.ExtraColumn, ...]:
        """Columns that only this dataset has; by default `LabelRules.extra`.

        Every track of the split has them in `Track.extra`, except those in
        `LabelRules.optional_extra`. If a declaration changes in more than its description, the
        split is converted again.
        """
        return self.labels.extra

    @abstractmethod
    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Any
    ) -> Sequence[Track]:
        """Read the tracks of one video. Counts all that is found, kept and dropped in `account`.

        body: a `Body`, or by `LabelRules.body_model` an `SmplxBody`; None without a body model.

        Raises RawDataError if the video as a whole cannot be used.
        """

    def origin(self, video: str) -> Origin:
        """Derive person and recording from a video's name; by default unknown. Reads no file."""
        return Origin()

    def label_note(self, raw: Path, split: str) -> str:
        """One line on labels that are not used, that are there twice, or that are in the folder of
        another split; "" without any. Lists folders; reads no label file.
        """
        return ""

    def stated_images(self, raw: Path, video: RawVideo) -> int:
        """Number of images that a video's labels state; 0 if it is unknown. Raises OSError."""
        return 0

    def track(self, split: str, video: RawVideo, person: object = 0, **fields: Any) -> Track:
        """Make a track named <video>/<person>. `fields` are the fields of `Track` besides names.

        Arrays of float64 become float32, except extra columns.
        """
        for key, value in fields.items():
            if isinstance(value, np.ndarray) and value.dtype == np.float64:
                fields[key] = value.astype(np.float32)
        name = f"{video.name}/{person}"
        return Track(dataset=self.name, split=split, video=video.name, name=name, **fields)

    def shared(self, raw: Path) -> dict[str, str]:
        """Digests, by name, of files that the tracks of many videos depend on. Raises RawDataError.

        If a digest changes, the split is converted again; its features are kept.
        """
        return {}

    def versions(self) -> dict[str, int]:
        """Versions of shared code that decides the tracks, as `uses`."""
        return self.uses

    def parameters(self) -> dict[str, Any]:
        """Values of the dataset's options, which are part of the conversion's fingerprint."""
        return asdict(self)

    def _read(
        self,
        raw: Path,
        split: str,
        video: RawVideo,
        account: VideoAccount,
        body: Body | SmplxBody | None,
    ) -> Sequence[Track]:
        """Call `read`, and check the tracks (`LabelRules.check`).

        Raises RawDataError for a video that cannot be used, MissingAssets without a body model that
        it needs, and TypeError or CacheError for a bug of the reader.
        """
        self.require_body(body)
        reader = type(self).__name__
        limited = None if body is None else body.only(self.genders, reader)
        tracks = self.read(raw, split, video, account, limited)
        is_list = isinstance(tracks, Sequence)
        if not is_list or not all(isinstance(track, Track) for track in tracks):
            raise TypeError(f"{reader}.read: expected a list of Track, found {str(tracks)[:80]}")
        columns = self.columns(split, body=body is not None)
        extra = self.extra_columns(split, body=body is not None)
        self.labels.check(raw, video, tracks, account, columns, extra)
        return tracks

    def read_accounted(
        self,
        raw: Path,
        split: str,
        video: RawVideo,
        body: Body | SmplxBody | None = None,
        account: VideoAccount | None = None,
    ) -> tuple[Sequence[Track], VideoAccount]:
        """Read one video with all checks, and return its tracks and its account.

        Counts in `account`, or in a new one. A video that cannot be used gives no tracks, and its
        account has the reason.
        """
        account = VideoAccount(video.name) if account is None else account
        tracks: Sequence[Track] = ()
        try:
            tracks = self._read(raw, split, video, account, body)
        except RawDataError as error:
            note_fault(error)
            account.reject(error.reason, str(error))
        except UnsafePickle as error:
            account.reject("unsafe_pickle", str(error))
        account.check()
        return tracks, account

    def tracks(
        self,
        raw_dir: Path | str,
        split: str,
        body: Body | SmplxBody | None = None,
        report: Accounting | None = None,
    ) -> Iterator[Track]:
        """Stream the split's tracks in a fixed order.

        `report` counts what cannot be used; without it, RawDataError is raised. Raises CacheError
        for tracks that do not fit the split's columns, a bug of the reader.
        """
        raw = Path(raw_dir)
        self.check_split(split)
        reader = self.detect_layout(raw, split)
        for video in reader.videos(raw, split):
            if report is not None:
                account = report.video(video.name)
                tracks, _ = reader.read_accounted(raw, split, video, body, account)
            else:
                account = VideoAccount(video.name)
                with caching():
                    tracks = reader._read(raw, split, video, account, body)
                account.check()
            yield from tracks

    def load_body(self, folder: Path) -> Body | SmplxBody:
        """Load the body model that `read` gets, from a folder. Raises what loading it raises."""
        from pipeline.people.smplx_body import load_body  # imports torch

        return load_body(folder, self.labels.body_model, self.genders[0])

    def require_body(self, body: object | None) -> None:
        """Raise MissingAssets if there is no body model, and no track without it."""
        if self.labels.needs_body and body is None:
            raise MissingAssets(
                f"{self.name}: its labels are bodies, and there is no track without the body "
                "model's files. Name their folder: --body DIR, or [paths] body."
            )

    def check_split(self, split: str) -> None:
        """Raise PipelineError for a split that the dataset does not have."""
        if split not in self.splits:
            splits = ", ".join(self.splits)
            raise PipelineError(f"{self.name} has no split {split!r}; it has {splits}")
