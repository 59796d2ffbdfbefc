"""Rules for the labels of a dataset, and checks that the tracks of all readers pass.  raw ->
[tracks]

A dataset declares `LabelRules`. `Dataset` checks what a reader returns for a video by
`LabelRules.check`. Readers call the other functions themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

import cache
from cache.read.labels import missing_in_3d
from pipeline.accounting import DEGENERATE_BOX, VideoAccount
from pipeline.datasets.shared.images import require_frames, require_source_pixels
from pipeline.errors import RawDataError, refuse, require_options
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.raw import RawVideo
from pipeline.people.skeletons import (
    JOINTS,
    Array,
    Bools,
    Floats,
    Number,
    are_usable_numbers,
    zero_invalid_joints,
)
from pipeline.people.smpl_files import Model
from pipeline.people.track import Track, other_units

CONVERT_UNITS: Final = (
    "Take the release's own files; a reader of your own converts to m, rad, px and shares of 1."
)
# number of boxes smaller than a pixel from which a video without usable boxes is taken to be in
# another unit
FEWEST_TINY: Final = 8
MISSING_3D: Final = (
    "rows lack 3D joints (metrics use rows with all 14; trainings use the joints of rows with both "
    "hips)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRules:
    """How a reader makes the labels of its tracks, and which checks they need."""

    # Origin of kp_2d. projected: joints of the labelled bodies; none: tracks have no kp_2d.
    keypoints_from: Literal["labels", "detected", "projected", "none"] = "labels"
    uses_body: bool = False  # labels are derived through the body model
    body_model: Model = "smpl"  # which one `read` gets
    needs_body: bool = False  # without the body model there are no tracks
    # SMPL bodies that other authors fitted are compared with the joints, if there is a body model
    checks_fits: bool = False
    checks_joints: bool = False  # `read` itself refuses joints that are not in the image
    columns: tuple[str, ...] = ("frame_index", "bbox", "kp_2d")  # of the cache, that tracks fill
    body_columns: tuple[str, ...] = ()  # further ones, if there is a body model
    extra: tuple[cache.ExtraColumn, ...] = ()  # columns that only this dataset has: `foot_contact`
    # names of extra columns that a track may lack: the cache stores the fill value for it
    optional_extra: tuple[str, ...] = ()
    # names of extra columns without a mirror: they are the same for a mirrored image
    unmirrored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_options(self)

    def check(
        self,
        raw: Path,
        video: RawVideo,
        tracks: Sequence[Track],
        account: VideoAccount,
        columns: Sequence[str],
        extra: Sequence[cache.ExtraColumn],
    ) -> None:
        """Check the tracks that a reader has made of a video: their columns, units, frame numbers,
        and whether joints lie in the images.

        columns, extra: of the split, as its dataset declares them.

        Raises RawDataError for a video that cannot be used, and CacheError for a bug of the reader.
        """
        declared = {*columns, *(column.name for column in extra)} - {*self.optional_extra}
        for name, times in Counter(track.name for track in tracks).items():
            if times > 1:
                raise cache.CacheError(
                    f"{name}: {times} tracks have this name; its reader must tell them apart"
                )
        for track in tracks:
            cache.check_track(track.rows, video.name, columns, extra)
            missing = sorted(declared - track.columns.keys() - track.extra.keys())
            if missing:
                raise cache.CacheError(
                    f"{track.name}: has no {', '.join(missing)}, which its reader declares"
                )

        candidates = (*video.label_folders, *video.files, Path(video.name))
        labels = raw / candidates[0]  # for messages
        _require_units(labels, tracks, account)
        _require_images(labels, tracks, has_checked_joints=self.checks_joints)
        account.unread |= missing_joints(track.columns for track in tracks)


def _require_units(labels: Path, tracks: Sequence[Track], account: VideoAccount) -> None:
    """Refuse tracks in other units than those of the columns (`other_unit`), and a video that gave
    no tracks because most boxes are smaller than a pixel.
    """
    n_tiny = account.dropped[DEGENERATE_BOX]
    if not tracks and n_tiny >= max(FEWEST_TINY, account.found / 2):
        actual = f"{n_tiny} of {account.found} boxes smaller than a pixel"
        refuse(other_unit(labels, "joints", "joints in pixels", actual))
    for track in tracks:
        for column, expected, actual in other_units(track.columns | dict(track.extra)):
            refuse(other_unit(labels, column, expected, f"{actual} in {track.name}"))


def _require_images(labels: Path, tracks: Sequence[Track], *, has_checked_joints: bool) -> None:
    """Refuse tracks of a video whose frame numbers or joints do not fit its images.

    Sources other than `Pictures` and `Video` are not checked: their images vary in size.

    has_checked_joints: whether the reader has compared the joints with the images.
    """
    sources = [track.frames for track in tracks if track.frames is not None]
    if not sources:
        return
    source = sources[0]
    if isinstance(source, Video):
        last = max(int(track.frame_index[-1]) for track in tracks)
        require_frames(labels, source, np.array([0, last]), VideoAccount(""))
    keypoints = [track.kp_2d for track in tracks if track.kp_2d is not None]
    if keypoints and not has_checked_joints and isinstance(source, Pictures | Video):
        require_source_pixels(labels, np.concatenate(keypoints), source)


def missing_joints(tracks: Iterable[Mapping[str, Array]]) -> dict[str, dict[str, int]]:
    """A kind of `VideoAccount.unread`: which 3D joints are missing, in how many rows. Empty if none
    is. tracks: the columns (T, ...) of each.
    """
    n_missing = Counter[str]()
    for columns in tracks:
        counts = missing_in_3d(columns).sum(axis=0).tolist()
        n_missing.update(dict(zip(JOINTS["common14"], counts, strict=True)))
    n_missing = +n_missing  # without zeros
    return {MISSING_3D: dict(n_missing)} if n_missing else {}


def finite_rows(*labels: Floats) -> Bools:
    """Whether each row of all arrays (N, ...) has only finite numbers below LARGEST, (N,)."""
    are_finite = []
    for array in labels:
        inner_axes = tuple(range(1, array.ndim))
        are_finite.append(are_usable_numbers(array).all(axis=inner_axes))
    return np.asarray(np.logical_and.reduce(are_finite))


def require_labels(file: Path, do: str) -> None:
    """Raise RawDataError (`no_label`) for images without their label file."""
    if not file.is_file():
        raise RawDataError(file, "file", "labels", "only images", do, reason="no_label")


def finite_joints(
    keypoints: NDArray[Number], account: VideoAccount, where: str = "", *, copy: bool = True
) -> NDArray[Number]:
    """Mark joints that are not finite as not annotated (`zero_invalid_joints`), and note how many.

    `where` is added to the note.
    """
    joints, n_bad = zero_invalid_joints(keypoints, copy=copy)
    if n_bad:
        account.note(f"{n_bad} joints are not finite{where}: not used")
    return joints


def other_unit(labels: Path, column: str, expected: str, found: str) -> RawDataError:
    """The error for labels in another unit than the column's."""
    return RawDataError(labels, column, expected, found, CONVERT_UNITS, reason="other_unit")
