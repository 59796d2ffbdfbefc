"""SAM 3D Body's people, who have no identity: which track each of them is.  [files of other
programs] -> tracks
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.cli.text import count
from pipeline.clips.labels.sam_3d_body import TOOL, load, number_of, read_people, spin49_joints
from pipeline.datasets.shared.mhr import MHR_COLUMNS, MHR_JOINTS
from pipeline.errors import RawDataError
from pipeline.extras.exchange.bodies.estimate import BodyEstimate, pinhole
from pipeline.people.skeletons import Doubles, Ints
from pipeline.people.smpl_files import N_BETAS, N_POSE

MOST_OFF: Final = 0.01  # px, of the tool's own 2D joints from the projection of its 3D joints


def read_estimate(files: Sequence[Path]) -> BodyEstimate:
    """All people in files, in the order of frames. Raises RawDataError and UnsafePickle."""
    people = []
    for file in files:
        people += read_people(file, load(file), number_of(file.name))
    people.sort(key=lambda person: person.frame)
    n = len(people)
    points = np.array([person.points for person in people])
    joints = np.array([person.joints for person in people])
    trans = np.array([person.place for person in people])
    joints = joints.reshape(n, -1, 3)
    extra = {MHR_JOINTS.name: joints}
    for key, column in MHR_COLUMNS.items():
        values = extra[column.name] = np.full((n, *column.shape), np.nan)
        for row, person in enumerate(people):
            if key in person.mhr.content:
                values[row] = person.mhr.take(key, *column.shape, finite=True)
    # added as by the tool, whose rounding is in its 2D joints
    in_camera = np.float32(joints) + np.float32(trans.reshape(n, 1, 3))
    return BodyEstimate(
        tool=TOOL,
        person="",
        frames=np.array([person.frame for person in people], np.int64),
        pose=np.full((n, N_POSE), np.nan),
        betas=np.full((n, N_BETAS), np.nan),
        trans=trans.reshape(n, 3),
        joints=spin49_joints(joints),
        projected=np.concatenate([in_camera, points.reshape(n, -1, 2)], axis=2),
        focals=np.array([person.focal for person in people]),
        extra=extra,
    )


def add_cameras(file: Path, estimate: BodyEstimate, size: tuple[int, int]) -> BodyEstimate:
    """The estimate with `intrinsics` (N, 3, 3) px, by which its 3D joints are at its 2D joints.

    With a stored focal length, the principal point is where it must be; without, it is the image's
    centre, and the focal length is the one that fits. Raises RawDataError for people of whom no
    such camera is within MOST_OFF.
    """
    assert estimate.projected is not None and estimate.focals is not None
    points = estimate.projected[..., 3:]
    slopes = estimate.projected[..., :2] / estimate.projected[..., 2:3]  # (N, J, 2): x/z, y/z
    cameras = np.tile(pinhole(1.0, size), (len(points), 1, 1))
    from_center = points - cameras[:, None, :2, 2]
    products = slopes * from_center
    squares = slopes**2
    fitting = products.sum(axis=(1, 2)) / squares.sum(axis=(1, 2))

    is_stated = ~np.isnan(estimate.focals)
    focal = np.where(is_stated, estimate.focals, fitting)
    scaled = slopes * focal[:, None, None]
    shift = np.mean(points - scaled, axis=1)
    cameras[is_stated, :2, 2] = shift[is_stated]
    cameras[:, 0, 0] = focal
    cameras[:, 1, 1] = focal

    error = scaled + cameras[:, None, :2, 2] - points
    distance = np.linalg.norm(error, axis=2)
    farthest = distance.max(axis=1, initial=0)
    is_right = (farthest <= MOST_OFF) & (focal > 0)
    if not is_right.all():
        row = int(is_right.argmin())
        expected = f"3D joints that one focal length puts on the 2D joints, within {MOST_OFF} px"
        actual = f"{farthest[row]:.3g} px in frame {estimate.frames[row]}"
        do = "Save what process_one_image returned, of the clip's images as they are decoded."
        raise RawDataError(file, "pred_keypoints_3d", expected, actual, do)
    return replace(estimate, intrinsics=cameras)


def split_by_track(
    people: BodyEstimate,
    distances: Callable[[BodyEstimate], Doubles],
    names: Sequence[str],
    *,
    most: float,
    notes: list[str],
) -> Iterator[BodyEstimate]:
    """Yield the people on each track as one person; in each frame, the closest pair first.

    Args:
        people: in the order of frames.
        distances: function that returns the distances (T, N) of an estimate's people from T tracks.
        names: of the tracks.
        most: distance beyond which a person is not on a track.
        notes: gets those who are on no track, and where people change places in the files.

    If nobody is on a track, yields the first people of the frames.
    """
    frames = people.frames
    _, first, frame_number = np.unique(frames, return_index=True, return_inverse=True)
    # of each person in its frame
    place = np.arange(len(frames)) - first[frame_number]
    by_track = np.full((len(names), len(frames)), np.inf)
    for number in np.unique(place):
        rows = np.flatnonzero(place == number)
        by_track[:, rows] = distances(people.only(rows, ""))
    track_of = _assign(by_track, frames, most)

    for track, name in enumerate(names):
        rows = np.flatnonzero(track_of == track)
        is_change = np.diff(place[rows]) != 0
        changes = int(is_change.sum())
        if changes:
            notes.append(f"{name}: {TOOL}'s lists have this person {changes} times at a new place")
        if len(rows):
            person = people.only(rows, "")
            yield replace(person, person=f"on {name}", dropped={})
    others = np.flatnonzero(track_of < 0)
    if len(others) == len(frames):
        first_ones = people.only(first, "")
        yield replace(first_ones, person="1", dropped={})
    elif len(others):
        n_people = count(len(others), "person")
        where = np.unique(frames[others])[:8].tolist()
        notes.append(f"{TOOL}: {n_people} on no track, in frames {where}")


def _assign(distances: Doubles, frames: Ints, most: float) -> Ints:
    """The track (N,) of each person, -1 for none: at most one person of a frame on each."""
    track_of = np.full(len(frames), -1)
    # of a frame on a track
    taken = set[tuple[int, int]]()
    tracks, rows = np.nonzero(distances <= most)  # not with nan
    of_pairs = distances[tracks, rows]
    for pair in np.argsort(of_pairs, kind="stable"):
        row = rows[pair]
        key = int(tracks[pair]), int(frames[row])
        if track_of[row] < 0 and key not in taken:
            track_of[row] = tracks[pair]
            taken.add(key)
    return track_of
