"""The end of a reader: a person's labelled frames -> the track of those that can be used.  raw ->
[tracks] -> features
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cache import COLUMNS, ExtraColumn
from cache.read.labels import COMMON_JOINTS
from pipeline.accounting import DEGENERATE_BOX, VideoAccount
from pipeline.datasets.base import Dataset
from pipeline.datasets.shared.contradictions import note_contradictions
from pipeline.files.pixels.frames import FrameSource
from pipeline.files.raw import RawVideo
from pipeline.people.boxes import tight_boxes
from pipeline.people.skeletons import (
    Doubles,
    Floats,
    Ints,
    Skeleton,
    add_confidence,
    convert,
    joint_names,
)
from pipeline.people.track import Track


def labelled_track(
    dataset: Dataset,
    split: str,
    video: RawVideo,
    account: VideoAccount,
    frames: FrameSource,
    person: object = 0,
    *,
    reasons: Mapping[str, ArrayLike],
    skeleton: Skeleton,
    kp_2d: Floats,
    kp_3d: Doubles | None = None,
    root: str = "hip",
    evaluation: bool = False,
    frame_index: Ints | None = None,
    bbox: Floats | None = None,
    box_factor: float = 1.0,
    boxes: Floats | None = None,
    extrinsics: Floats | None = None,
    labels_of: Callable[[Ints], dict[str, Any]] = lambda _: {},
    **fields: Any,
) -> list[Track]:
    """Make the track of a person with F labelled frames, and count all of these in `account`.

    Frames to which a reason applies are dropped; without any other, there is no track: [].

    Args:
        frames: Where the images of the frames are.
        reasons: Reason to drop a frame -> (F,) whether it applies, in the order in which they
            count. Name `no_picture` (`frames_there`) and `label_not_finite` (`finite_rows`).
        skeleton: Order of the J joints.
        kp_2d: (F, J, 3) px px confidence.
        kp_3d: (F, J, 3) m in the camera's axes, with the root at its place in the camera, or at 0.
            Frames with a joint that is not finite stay without 3D joints; a note counts them.
        root: Joint of `kp_3d` that is put at 0.
        evaluation: Also make `kp_3d_eval` of `kp_3d`.
        frame_index: (F,) numbers of the frames; None: 0 to F - 1.
        bbox: (F, 4) px, boxes of the frames. None: the visible joints' extent, times `box_factor`;
            then frames without one are dropped, too (`no_visible_joint`, `degenerate_box`).
        boxes: (F, 4) px, boxes that the labels state beside `bbox`: compared with the joints alone.
        extrinsics: World to camera, (4, 4) or (F, 4, 4), m; None: there is no such extra column.
        labels_of: Given the indices (T,) of the frames that stay, returns further fields of `Track`
            for them: those that cannot be computed for the others, such as bodies.
        fields: Other fields of `Track`, the columns and extra columns among them for all F frames.
    """
    if bbox is None:
        bbox, empty, degenerate = tight_boxes(kp_2d, box_factor)
        reasons = {**reasons, "no_visible_joint": empty, DEGENERATE_BOX: degenerate}
    rows = account.keep_rows(reasons)
    if not len(rows):
        return []

    extra = dict(fields.pop("extra", {}))
    if extrinsics is not None:
        extra["extrinsics"] = np.broadcast_to(extrinsics, (len(kp_2d), 4, 4))
    _select_rows(fields, extra, dataset.extra_columns(split, body=True), rows)
    fields["frame_index"] = rows if frame_index is None else frame_index[rows]
    fields["bbox"] = bbox[rows]
    fields["kp_2d"] = convert(kp_2d[rows], source=skeleton, target="spin49")
    place = None
    if kp_3d is not None:
        place = kp_3d[rows, joint_names(skeleton).index(root)]
        about_root = kp_3d[rows] - place[:, None]
        fields |= _joints_3d(about_root, skeleton, account, evaluation=evaluation)
    fields |= labels_of(rows)
    extra |= fields.pop("extra", {})
    track = dataset.track(split, video, person, frames=frames, extra=extra, **fields)
    note_contradictions(track, account, place, None if boxes is None else boxes[rows])
    return [track]


def _select_rows(
    fields: dict[str, Any], extra: dict[str, Any], columns: Iterable[ExtraColumn], rows: Ints
) -> None:
    """Leave these rows of the columns, and of the extra columns with a value for each frame, in
    their dtypes.
    """
    for name in fields.keys() & COLUMNS.keys():
        fields[name] = None if fields[name] is None else fields[name][rows]
    for column in columns:
        if column.name in extra and column.per == "row":
            of_rows = extra[column.name][rows]
            extra[column.name] = of_rows.astype(column.dtype, casting="same_kind")


def _joints_3d(
    about_root: Doubles, skeleton: Skeleton, account: VideoAccount, *, evaluation: bool
) -> dict[str, Any]:
    """The fields `kp_3d` and `has_3d`, for an evaluation `kp_3d_eval` as well, of joints
    (T, J, 3) m, of which some may not be finite.
    """
    joints = convert(add_confidence(about_root), source=skeleton, target="spin49")
    has_3d = np.isfinite(joints).all(axis=(1, 2))
    joints[~has_3d] = np.nan
    n_unknown = int((~has_3d).sum())
    if n_unknown:
        account.note(f"{n_unknown} of the kept frames are not finite in 3D: without kp_3d")
    fields: dict[str, Any] = {"kp_3d": joints, "has_3d": has_3d}
    if evaluation:
        fields["kp_3d_eval"] = joints[:, COMMON_JOINTS, :3]
    return fields
