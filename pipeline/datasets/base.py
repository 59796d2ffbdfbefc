"""Base class of datasets.  [raw -> tracks] -> features -> windows

A reader is a subclass of `Dataset`. The conversion calls, in this order:

    detect_layout       the reader for the files in this raw folder
    videos              the raw videos of a split, by names alone
    read_accounted      `read` for one video, then checks of its tracks: one person each

A `VideoAccount` counts how many frames were found, kept and dropped. `body` is the SMPL body model.
"""

from __future__ import annotations

import itertools
import re
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

import cache
from pipeline import cameras
from pipeline.accounting import Accounting, Totals, VideoAccount
from pipeline.cameras import pose_in_camera
from pipeline.datasets.pixels import require_frames, require_source_pixels
from pipeline.errors import PipelineError, RawDataError, refuse
from pipeline.files.pixels.frames import Pictures, Video
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import caching
from pipeline.files.raw.opening import note_fault
from pipeline.skeletons import JOINTS, Number, add_confidence, zero_invalid_joints
from pipeline.track import Track, other_units

if TYPE_CHECKING:
    from pipeline.body import Body

PELVIS: Final = JOINTS["spin49"].index("OP MidHip")  # SMPL's joint 0: global orientation's centre
# regressed from the body's surface; 3D joints are stored relative to it
HIP: Final = JOINTS["spin49"].index("hip")
EXTRINSICS: Final = cache.ExtraColumn(  # only if the camera's position in a world is known
    name="extrinsics",
    about="world to camera, rows R t and 0 0 0 1, R a rotation",
    unit="m",
    shape=(4, 4),
    mirror=cameras.mirrored,
)
INTRINSICS: Final = cache.ExtraColumn(  # not mirrored, like boxes and a track's intrinsics
    name="intrinsics",
    about="camera matrix of the row, if the camera zooms",
    unit="px",
    shape=(3, 3),
)
UP: Final = cache.ExtraColumn(  # only if the world's vertical axis is known
    name="up",
    about="the axis of the world that points up, of length 1",
    shape=(3,),
    per="track",
    mirror=cameras.mirrored_axis,
)
CONVERT_UNITS: Final = (
    "Take the release's own files; a reader of your own converts to m, rad, px and shares of 1."
)
# number of boxes smaller than a pixel from which a video without usable boxes is taken to be in
# another unit
FEWEST_TINY: Final = 8


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


class Origin(NamedTuple):
    """Which person is in a video, and which recording it belongs to; None where unknown.

    They are derived from the video's name in the release. Within a dataset, equal names mean the
    same person or recording. Published videos (of YouTube, for example) are compared across
    datasets.
    """

    subject: str | None = None
    recording: str | None = None


@dataclass(frozen=True)
class Dataset(ABC):
    """Reader of one dataset, in the layout of its official release.

    Subclasses are frozen dataclasses whose fields are the reader's options. They define `videos`
    and `read`; the other methods have defaults.
    """

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    optional_splits: ClassVar[frozenset[str]] = frozenset()  # splits that may be without any video
    version: ClassVar[int]  # raised by hand whenever the same raw files would give other tracks
    page: ClassVar[str]  # where the official download is available
    uses_body: ClassVar[bool] = False  # labels are derived through the body model
    # SMPL bodies that other authors fitted are compared with the joints, if there is a body model
    checks_fits: ClassVar[bool] = False
    has_pixels: ClassVar[bool] = True
    # origin of kp_2d: "labels", or "detected" by a detector
    keypoints_from: ClassVar[str] = "labels"
    checks_joints: ClassVar[bool] = False  # `read` itself refuses joints that are not in the image
    # parts of the official download, and where each is expected
    parts: ClassVar[tuple[ReleasePart, ...]] = ()
    mistakes: ClassVar[tuple[Mistake, ...]] = ()  # known mistakes in unpacking this download
    # a sequence has a folder with each of its images, or with every n-th one
    has_image_folders: ClassVar[bool] = False
    # the same, and all cameras of a recording have the same number of images
    films_by_cameras: ClassVar[bool] = False
    # videos that lack images in the release itself
    short_in_release: ClassVar[frozenset[str]] = frozenset()
    # number of videos and frames in the full release, by split
    totals: ClassVar[Mapping[str, Totals]] = {}
    # names of extra columns that a track may lack: the cache stores the fill value for it
    optional_extra: ClassVar[tuple[str, ...]] = ()
    # the dataset's word for a recording: sequence, motion, or (published) video
    recording: ClassVar[str] = "recording"
    # options that were added later: part of the identity only if they differ from the default
    added: ClassVar[tuple[str, ...]] = ()
    # where tracks are named <video>/<subject>: a name that datasets with the same subjects share
    people: ClassVar[str] = ""

    @property
    def genders(self) -> tuple[str, ...]:
        """Genders of the body models that `read` needs, if `uses_body` or `checks_fits`.

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
        """Names of the cache's columns that the split's tracks fill; by default those of 2D
        keypoints.

        `body`: whether there is a body model.
        """
        return ("frame_index", "bbox", "kp_2d")

    def extra_columns(self, split: str, *, body: bool) -> tuple[cache.ExtraColumn, ...]:
        """Declare columns that only this dataset has, such as `foot_contact`.

        Every track of the split has them in `Track.extra`, except those in `optional_extra`. If a
        declaration changes in more than its description, the split is converted again.
        """
        return ()

    @abstractmethod
    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        """Read the tracks of one video. Counts all that is found, kept and dropped in `account`.

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
        """Make a track named <video>/<person>. `fields` are the fields of `Track` besides names."""
        name = f"{video.name}/{person}"
        return Track(dataset=self.name, split=split, video=video.name, name=name, **fields)

    def shared(self, raw: Path) -> dict[str, str]:
        """Digests, by name, of files that the tracks of many videos depend on. Raises RawDataError.

        If a digest changes, the split is converted again; its features are kept.
        """
        return {}

    def parameters(self) -> dict[str, Any]:
        """Values of the dataset's options, which are part of the conversion's fingerprint."""
        return asdict(self)

    def _read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        """Call `read`, and check the tracks.

        Checks columns, units, frame numbers and whether joints lie in the images. Raises
        RawDataError for a video that cannot be used, and TypeError or CacheError for a bug of the
        reader.
        """
        reader = type(self).__name__
        limited = None if body is None else body.only(self.genders, reader)
        tracks = self.read(raw, split, video, account, limited)
        is_list = isinstance(tracks, Sequence)
        if not is_list or not all(isinstance(track, Track) for track in tracks):
            raise TypeError(f"{reader}.read: expected a list of Track, found {str(tracks)[:80]}")

        columns = self.columns(split, body=body is not None)
        extra = self.extra_columns(split, body=body is not None)
        candidates = (*video.label_folders, *video.files, Path(video.name))
        labels = raw / candidates[0]  # for messages
        if not tracks:
            _refuse_tiny_boxes(labels, account)
            return tracks

        _require_own_names(tracks)
        for track in tracks:
            cache.check_track(track.rows, video.name, columns, extra)
            declared = {*columns, *(column.name for column in extra)} - {*self.optional_extra}
            missing = sorted(declared - track.columns.keys() - track.extra.keys())
            if missing:
                raise cache.CacheError(
                    f"{track.name}: has no {', '.join(missing)}, which its reader declares"
                )

        for track in tracks:
            for column, expected, found in other_units(track.columns | dict(track.extra)):
                _refuse_unit(labels, column, expected, f"{found} in {track.name}")
        self._check_frames(labels, tracks)
        return tracks

    def _check_frames(self, labels: Path, tracks: Sequence[Track]) -> None:
        """Refuse tracks whose frame numbers or joints do not fit the video's images.

        Sources other than `Pictures` and `Video` are not checked: their images vary in size.
        """
        sources = [track.frames for track in tracks if track.frames is not None]
        if not sources:
            return

        source = sources[0]
        if isinstance(source, Video):
            last = max(int(track.frame_index[-1]) for track in tracks)
            require_frames(labels, source, [0, last], VideoAccount(""))

        keypoints = [track.kp_2d for track in tracks if track.kp_2d is not None]
        if not keypoints or self.checks_joints:
            return
        if isinstance(source, Pictures | Video):
            require_source_pixels(labels, np.concatenate(keypoints), source)

    def read_accounted(
        self,
        raw: Path,
        split: str,
        video: RawVideo,
        body: Body | None = None,
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
        account.check()
        return tracks, account

    def tracks(
        self,
        raw_dir: Path | str,
        split: str,
        body: Body | None = None,
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

    def check_split(self, split: str) -> None:
        """Raise PipelineError for a split that the dataset does not have."""
        if split not in self.splits:
            splits = ", ".join(self.splits)
            raise PipelineError(f"{self.name} has no split {split!r}; it has {splits}")


def _refuse_unit(labels: Path, column: str, expected: str, found: str) -> None:
    refuse(RawDataError(labels, column, expected, found, CONVERT_UNITS, reason="other_unit"))


def _refuse_tiny_boxes(labels: Path, account: VideoAccount) -> None:
    """Refuse a video that gave no tracks because most boxes are smaller than a pixel."""
    n_tiny = account.dropped["degenerate_box"]
    if n_tiny >= max(FEWEST_TINY, account.found / 2):
        found = f"{n_tiny} of {account.found} boxes smaller than a pixel"
        _refuse_unit(labels, "joints", "joints in pixels", found)


def _require_own_names(tracks: Sequence[Track]) -> None:
    """Raise CacheError if two tracks have one name."""
    for name, times in Counter(track.name for track in tracks).items():
        if times > 1:
            raise cache.CacheError(
                f"{name}: {times} tracks have this name; its reader must tell them apart"
            )


def smpl_labels(
    pose: NDArray[np.float64],
    betas: ArrayLike,
    trans: ArrayLike,
    to_camera: ArrayLike,
    body: Body | None,
    *,
    evaluation: bool,
) -> dict[str, Any]:
    """Make `Track` fields from SMPL parameters in a world, seen by a camera that may move.

    pose: (T, 72) axis-angle in rad, the first three the global orientation in the world. betas:
    (10,) or (T, 10). trans: (T, 3) m in the world, as SMPL adds it to its vertices. to_camera: (T,
    4, 4) or (4, 4), world to camera, m; `np.eye(4)` for parameters in the camera.

    Returns `pose`, `betas` and `has_smpl`; with a body also `trans`, `has_3d`, and `kp_3d_eval` for
    `evaluation`, else `kp_3d`. Joints and `trans` depend on the body: choose its gender with
    `body.of(...)`.
    """
    n_frames = len(pose)
    camera = np.broadcast_to(np.asarray(to_camera, np.float64), (n_frames, 4, 4))
    pose = pose_in_camera(pose, camera[:, :3, :3])
    betas = np.asarray(betas)
    if betas.ndim == 1:
        betas = np.tile(betas, (n_frames, 1))
    labels: dict[str, Any] = {
        "pose": pose.astype(np.float32),
        "betas": betas.astype(np.float32),
        "has_smpl": np.ones(n_frames, np.bool_),
    }
    if body is None:
        return labels

    joints, common14 = body.posed_joints(pose, betas)
    in_view = cameras.to_camera(np.zeros(3), trans, camera, joints[:, PELVIS])[1]
    labels["trans"] = in_view.astype(np.float32)
    labels["has_3d"] = np.ones(n_frames, np.bool_)
    if evaluation:
        labels["kp_3d_eval"] = common14.astype(np.float32)
    else:
        about_hip = joints - joints[:, HIP : HIP + 1]
        labels["kp_3d"] = add_confidence(about_hip).astype(np.float32)
    return labels


def finite_joints(
    keypoints: NDArray[Number], account: VideoAccount, where: str = ""
) -> NDArray[Number]:
    """Mark joints that are not finite as not annotated (`zero_invalid_joints`), and note how many.

    `where` is added to the note.
    """
    joints, n_bad = zero_invalid_joints(keypoints)
    if n_bad:
        account.notes.append(f"{n_bad} joints are not finite{where}: not used")
    return joints


def describe_error(error: Exception) -> str:
    """Describe an unexpected exception in a reader: its message, and the line that raised it.

    >>> try:
    ...     {}["joints"]
    ... except KeyError as error:
    ...     print(describe_error(error).partition(" (at ")[0])
    KeyError: 'joints'
    """
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (at {Path(where.filename).name}:{where.lineno})"
