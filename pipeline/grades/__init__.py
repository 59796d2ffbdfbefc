"""Grades of tracks: what is seen, shaking joints, changing limbs, sliding feet.  raw -> [tracks] ->
features

`video_grades` grades the tracks of a video in the cache; `grades_of`, those of any video, by their
columns; `grade`, a single track. `joints` computes the statistics, and `words` has the limits. The
page docs/clips/grades.md describes the numbers.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

import cache
from pipeline.clips.files import moved_frames
from pipeline.clips.labels.people_table import BLOCK, blocks
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.pixels.frames import FrameSource, Video
from pipeline.grades.joints import (
    CONTACT_M,
    LIMB_ENDS,
    CameraMotion,
    Joints,
    Timing,
    numbers_of_motion,
    seen_points,
)
from pipeline.grades.same_person import find_same_people
from pipeline.grades.sums import sums_of
from pipeline.grades.words import MEASURES, VERSION, WORDS, Grade, Word
from pipeline.people.boxes import extents, largest_shares
from pipeline.people.estimates import fits_of
from pipeline.people.skeletons import (
    BLAZE_12,
    PELVIS,
    Array,
    Bools,
    Doubles,
    Floats,
    Ints,
    are_usable_numbers,
    keypoints_13,
)
from pipeline.people.track import CROP_SCALE, Track, usual_step

Columns = Mapping[str, Any]  # arrays, or `_StoredColumn`s

COLUMNS: Final = (
    "frame_index", "bbox", "kp_2d", "kp_3d", "has_3d", "pose", "trans", "extrinsics", "up",
)  # fmt: skip
ARM_ENDS: Final = [2, 3, 4, 5]  # elbows and wrists
LEG_ENDS: Final = [8, 9, 10, 11]  # knees and ankles
BLAZE_JOINTS: Final = "blaze_joints"  # a stream of BlazePose's joints (33, 4): m m m visibility
VISIBLE: Final = 0.5  # least visibility of a joint of BlazePose that counts as seen
MOVED: Final = 1e-5  # largest change of an element of the extrinsics of a still camera
OUTSIDE: Final = 0.02  # of the box's side: a joint that is farther outside the image is a guess
# of the box's side: if a limb begins nearer to the image's edge, its unseen end may be outside
NEAR: Final = 0.05
COVERED: Final = 0.4  # share of the box around the joints that another person must cover
SAME_POSE_RAD: Final = 1e-5  # elements of poses that differ by less are equal
# height up to which a foot is on the ground
CONTACT_BOX: Final = 0.03  # of the box's side, in 2D


def grade(
    columns: Columns,
    fps: float = math.nan,
    source: FrameSource | None = None,
    record: ClipRecord | None = None,
    crop_scale: float = CROP_SCALE,
) -> Grade:
    """Grade a track by its T rows, as if it were alone in its video.

    Args:
        columns: The track's arrays (T, ...), by the names in COLUMNS and BLAZE_JOINTS.
        fps: Frame rate of the video during the track; nan: speeds stay unknown.
        source: The video. Without `extrinsics`, its file of `detect` says where the camera moved.
        record: Of the video, if known: it has the times of uneven frames, the image's size, and the
            numbers of repeated and lost frames.
        crop_scale: side of the crop / side of the box.
    """
    timing = _timing_of(columns, fps, record)
    camera = _camera_of(columns, source)
    numbers: dict[str, Any] = _numbers_3d(columns, timing, camera)
    size = None
    if record is not None:
        size = record.view.size
        if record.n_frames:
            numbers["repeated_percent"] = 100 * record.n_repeated / record.n_frames
            numbers["lost_percent"] = 100 * len(record.lost) / record.n_frames
    if _has_joints(columns):
        numbers |= _numbers_2d(columns, timing, camera, size, crop_scale)
    if "pose" in columns:
        pose = columns["pose"][:]
        steps = np.diff(pose[:, 3:], axis=0, prepend=np.nan)  # without the pelvis
        is_repeated = np.abs(steps).max(axis=1) < SAME_POSE_RAD
        of_clip = numbers.get("repeated_percent", 0.0)
        numbers["repeated_percent"] = max(of_clip, 100 * float(is_repeated.mean()))
        if "bbox" not in columns and "trans" in columns:
            numbers |= numbers_of_motion(pose, columns["trans"][:], timing)
    return Grade(**numbers)


def find_jumps(columns: Columns, fps: float = math.nan, record: ClipRecord | None = None) -> Ints:
    """Rows of a track in which a joint jumps (`Grade.jumps_percent`). Arguments as of `grade`."""
    if not _has_joints(columns):
        return np.zeros(0, np.int64)
    points = seen_points(columns["kp_2d"][:])
    side = np.maximum(columns["bbox"][:, 2].astype(np.float64), 1)
    _, is_jump = Joints(_timing_of(columns, fps, record), points, side).find_jumps()
    return np.flatnonzero(is_jump) + 2


def _timing_of(columns: Columns, fps: float, record: ClipRecord | None) -> Timing:
    """The times of the rows: frames, or ticks of the clip's clock if its frames are uneven."""
    frames = columns["frame_index"][:].astype(np.int64)
    ticks = frames
    ticks_per_second = fps
    if record is not None and not record.is_even:
        ticks = record.clock[frames]
        ticks_per_second *= record.usual_fps / record.fps_of(frames)
    step = usual_step(ticks)
    return Timing((ticks - ticks[0]) / step, ticks_per_second / step)


def grades_of(
    tracks: Sequence[Track | cache.TrackRecord | cache.TrackRows],
    people: Sequence[Columns],
    account: Mapping[str, Any],
    source: FrameSource | None = None,
) -> list[Grade]:
    """Grade all tracks of a video as `grade` does, and add how much they cover each other, which
    may be one person, and the distance of imported bodies.

    people: the columns of each track. account: of the video, as in the manifest.
    """
    record = ClipRecord.from_dict(account.get("clip", {}))
    grades = []
    for track, columns, share in zip(tracks, people, _overlaps(people), strict=True):
        distances = [fit.distance for fit in fits_of(account, track.name)]
        of_video = {
            "overlap_percent": 100 * share,
            "estimate_percent": 100 * max(distances, default=math.nan),
            "doubts": account.get("doubts", math.nan),
            "identity_changes": account.get("identity_changes", {}).get(track.name, math.nan),
        }
        graded = grade(columns, track.fps, source, record, track.crop_scale)
        grades.append(replace(graded, **of_video))
    fps = min((track.fps for track in tracks), default=math.nan)
    names = [track.name for track in tracks]
    partners = find_same_people(people, fps, account.get("cuts", ()))
    return [
        replace(grade, same_person=number).name_other(names)
        for grade, number in zip(grades, partners, strict=True)
    ]


def tracks_of(split: cache.Split, video: int) -> list[int]:
    """Numbers of a video's tracks in the split."""
    is_of_video = split.tracks.video == video
    numbers: list[int] = np.flatnonzero(is_of_video).tolist()
    return numbers


def video_grades(
    split: cache.Split, numbers: Sequence[int], source: FrameSource | None
) -> dict[str, Grade]:
    """Grade all tracks of a video of the cache: name -> grade.

    numbers: all tracks of one video (`tracks_of`). Raises CacheError if rows cannot be read.
    """
    video = int(split.tracks.video[numbers[0]])
    entry = split.videos[video]
    tracks = [split.tracks[number] for number in numbers]
    read = functools.lru_cache(3)(split.rows)  # so that a short track is read once
    people = [_columns_of(split, track, read) for track in tracks]
    grades = grades_of(tracks, people, entry.account, source)
    return {track.name: grade for track, grade in zip(tracks, grades, strict=True)}


def video_numbers(
    tracks: Sequence[cache.TrackRows],
    account: Mapping[str, Any],
    source: FrameSource | None = None,
) -> dict[str, Any]:
    """What the entry of a video that is written to the cache has of its grades, by the fields of
    `cache.VideoEntry`: `sums`, which are SUMS and its tracks by `word_key`; and `measures`, the
    numbers of its tracks for `unpack_numbers`.
    """
    people = [_as_stored({**track.extra, **track.columns}) for track in tracks]
    grades = grades_of(tracks, people, account, source)
    words = Counter(grade.word for grade in grades)
    sums = sums_of(tracks) | {word_key(word): float(words[word]) for word in WORDS}
    numbers = np.array([grade.numbers for grade in grades], "<f8")
    return {"sums": sums, "measures": numbers.tobytes().hex()}


def unpack_numbers(measures: str) -> Doubles:
    """The numbers (n, M) of n tracks, in the order of MEASURES, that `video_numbers` has packed."""
    numbers = np.frombuffer(bytes.fromhex(measures), "<f8")
    return numbers.reshape(-1, len(MEASURES))


def _as_stored(columns: Columns) -> dict[str, Array]:
    """The columns by which a track is graded, to the bit as the cache will have them."""
    stored = {}
    for name in COLUMNS:
        if name in columns:
            dtype = cache.COLUMNS[name].dtype if name in cache.COLUMNS else None
            stored[name] = np.asarray(columns[name], dtype, order="C")
    return stored


def word_key(word: Word) -> str:
    """Name of the number of tracks with a word, by today's limits."""
    return f"{word}_v{VERSION}"


@dataclass(frozen=True, slots=True)
class _StoredColumn:
    """The rows of a track in a column of the cache, read where they are used."""

    read: Callable[[str, int, int], Array]  # as `cache.Split.rows`
    name: str
    track: range

    def __len__(self) -> int:
        return len(self.track)

    def __getitem__(self, rows: slice, /) -> Array:
        chosen = self.track[rows]
        return self.read(self.name, chosen.start, chosen.stop)


def _columns_of(
    split: cache.Split, track: cache.TrackRecord, read: Callable[[str, int, int], Array]
) -> dict[str, Any]:
    """The columns of a track in the cache by which it is graded."""
    rows = range(track.start, track.stop)
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        if name in split.columns or name in split.extra:
            columns[name] = _StoredColumn(read, name, rows)
    if BLAZE_JOINTS in split.streams:
        with contextlib.suppress(cache.CacheError):  # rows that are not extracted yet
            name = f"features/{BLAZE_JOINTS}"
            columns[BLAZE_JOINTS] = split.rows(name, track.start, track.stop)
    return columns


def _reduce_blocks(column: Any, reduce: Callable[[Array], Array]) -> Array:
    """What `reduce` makes of the rows, (T, ...), block by block."""
    return np.concatenate([reduce(column[rows]) for rows in blocks(len(column))])


def _has_joints(columns: Columns) -> bool:
    if not {"kp_2d", "bbox"} <= columns.keys():
        return False
    kp_2d = columns["kp_2d"]
    for rows in blocks(len(kp_2d)):
        if (kp_2d[rows][..., 2] > 0).any():
            return True
    return False


def _numbers_2d(
    columns: Columns,
    timing: Timing,
    camera: CameraMotion,
    size: tuple[int, int] | None,
    crop_scale: float,
) -> dict[str, float]:
    """Numbers of `Grade` from 2D joints. size: width and height of the image, px; None: unknown."""
    points = _reduce_blocks(columns["kp_2d"], seen_points)
    bbox = columns["bbox"][:]
    side = np.maximum(bbox[:, 2].astype(np.float64), 1)
    inside = ~np.isnan(points[..., 0])
    numbers = {}
    if size is not None:
        parts = [_find_edge(points[rows], side[rows], size) for rows in blocks(len(points))]
        inside, is_cut = map(np.concatenate, zip(*parts, strict=True))
        numbers["cut_percent"] = 100 * float(is_cut.mean())
    is_outside = outside_crop(points, bbox, crop_scale)
    n_seen = np.isfinite(points[..., 0]).sum()
    joints = Joints(timing, points, side)
    in_image = camera._replace(up=np.array([0.0, -1.0]))
    return numbers | {
        "visible_percent": 100 * float(inside.mean()),
        "arms_visible_percent": 100 * float(inside[:, ARM_ENDS].mean()),
        "legs_visible_percent": 100 * float(inside[:, LEG_ENDS].mean()),
        "jitter_2d_percent": 100 * joints.jitter(),
        "limb_spread_2d_percent": 100 * joints.limb_spread(),
        "skating_2d_percent_s": 100 * joints.skating(in_image, CONTACT_BOX),
        "jumps_percent": 100 * joints.jumps(),
        "outside_crop_percent": 100 * float(is_outside.sum() / max(n_seen, 1)),
    }


def outside_crop(points: Floats, bbox: Array, crop_scale: float) -> Bools:
    """(T, 12) whether a joint is outside the crop. points: (T, 12, 2) px, nan if not seen; bbox:
    (T, 4); crop_scale: side of the crop / side of the box.
    """
    side = np.maximum(bbox[:, 2].astype(np.float64), 1)
    offsets = np.abs(points - bbox[:, None, :2]).max(axis=-1)
    is_outside: Bools = offsets > crop_scale * side[:, None] / 2  # False for nan
    return is_outside


def _find_edge(points: Floats, side: Doubles, size: tuple[int, int]) -> tuple[Bools, Bools]:
    """Compare joints (T, 12, 2) px with the image's edge; nan if not seen.

    Returns whether each joint is inside the image (T, 12), and whether the edge cuts the person
    (T,): a joint is outside, or a limb that begins near the edge has no visible end. side: (T,) px,
    the box's side.
    """
    by_axis = np.maximum(-points, points - np.array(size))
    beyond = by_axis.max(axis=-1)  # px; below 0 inside
    limit = OUTSIDE * side[:, None]
    is_inside = beyond <= limit  # False for nan, as the others
    is_cut = (beyond > limit).any(axis=1)
    is_near = is_inside & (beyond > -NEAR * side[:, None])
    for start, end in LIMB_ENDS:
        is_cut |= is_near[:, start] & ~is_inside[:, end]
    return is_inside, is_cut


def _numbers_3d(columns: Columns, timing: Timing, camera: CameraMotion) -> dict[str, float]:
    """Numbers of `Grade` from 3D joints; also the visible share, for tracks without 2D joints."""
    if not columns.keys() & {"kp_3d", BLAZE_JOINTS}:
        return {}
    points = _points_3d(columns)
    is_seen = ~np.isnan(points[..., 0])
    if not is_seen.any():
        return {}
    joints = Joints(timing, points, np.ones(len(points)))
    in_camera = joints._replace(points=points + _shift_to_camera(columns)[:, None])
    return {
        "visible_percent": 100 * float(is_seen.mean()),
        "jitter_3d_mm": 1000 * joints.jitter(),
        "limb_spread_3d_percent": 100 * joints.limb_spread(),
        "skating_3d_cm_s": 100 * in_camera.skating(camera, CONTACT_M),
    }


def _overlaps(people: Sequence[Columns]) -> list[float]:
    """For each track, the share of frames in which another person covers much of its box (COVERED).

    The box is that around the joints; nan without joints.
    """
    n_covered = np.zeros(len(people), np.int64)
    n_seen = np.zeros(len(people), np.int64)
    frames = {
        number: columns["frame_index"][:]
        for number, columns in enumerate(people)
        if {"kp_2d", "bbox"} <= columns.keys()
    }
    in_blocks = set[int]()
    for index in frames.values():
        in_blocks.update(np.unique(index // BLOCK).tolist())
    for block in in_blocks:
        first = block * BLOCK
        parts = []
        for number, index in frames.items():
            start, stop = np.searchsorted(index, (first, first + BLOCK))
            corners, is_seen = extents(people[number]["kp_2d"][start:stop])
            tracks = np.full(len(corners), number)
            parts.append((tracks[is_seen], index[start:stop][is_seen], corners[is_seen]))
        track, frame, boxes = map(np.concatenate, zip(*parts, strict=True))
        is_covered = largest_shares(boxes, frame) > COVERED
        n_covered += np.bincount(track[is_covered], minlength=len(people))
        n_seen += np.bincount(track, minlength=len(people))
    with np.errstate(invalid="ignore"):  # nan of tracks without joints
        shares: list[float] = (n_covered / n_seen).tolist()
    return shares


def _camera_of(columns: Columns, source: FrameSource | None) -> CameraMotion:
    """The camera's motion and direction up: those of a motion's world, from `extrinsics`, or from
    the video's file of `detect`, which does not know where up is.
    """
    if "bbox" not in columns:  # motion without a camera
        return CameraMotion.still(len(columns["frame_index"]))
    if "extrinsics" in columns:
        extrinsics = columns["extrinsics"][:].astype(np.float64)
        is_known = are_usable_numbers(extrinsics).all(axis=(1, 2))
        extrinsics[~is_known] = np.nan
        steps = np.diff(extrinsics, axis=0)
        change = np.abs(steps).max(axis=(1, 2))
        is_still = change <= MOVED  # False for nan
        still_runs = np.append(0, np.cumsum(~is_still))
        up = np.full(3, np.nan)
        if "up" in columns:
            up = np.ravel(columns["up"][:3])[:3]
        if not is_known.any() or not are_usable_numbers(up).all():
            return CameraMotion(still_runs)
        return CameraMotion(still_runs, extrinsics[is_known][0, :3, :3] @ up)
    if isinstance(source, Video):
        moved = moved_frames(source)
        if moved is not None:
            frames = columns["frame_index"][:]
            return CameraMotion(np.searchsorted(moved, frames, side="right"))
    return CameraMotion()


def _points_3d(columns: Columns) -> Floats:
    """The 12 joints (T, 12, 3) m; nan if unknown.

    They are the labels' joints or else BlazePose's, each from an origin in the body.
    """
    if "kp_3d" in columns:
        kp = _reduce_blocks(columns["kp_3d"], lambda block: keypoints_13(block)[:, 1:])
        has_3d = columns["has_3d"][:][:, None] == 1
        is_known = has_3d & (kp[..., 3] > 0)
    else:
        kp = _reduce_blocks(
            columns[BLAZE_JOINTS], lambda block: block.reshape(-1, 33, 4)[:, BLAZE_12]
        )
        is_known = kp[..., 3] >= VISIBLE
    kp[~is_known] = np.nan
    return kp[..., :3]


def _shift_to_camera(columns: Columns) -> Doubles:
    """(T, 3) m, the shift that moves `_points_3d` to their position in the camera; nan if unknown.

    `trans` states the pelvis's position.
    """
    if not {"kp_3d", "trans"} <= columns.keys():
        return np.full((len(columns["frame_index"]), 3), np.nan)
    pelvis = _reduce_blocks(columns["kp_3d"], lambda block: block[:, PELVIS, :3].astype(np.float64))
    return np.asarray(columns["trans"][:] - pelvis)
