"""Rows of an opened database file as videos and tracks of the cache.  [database files -> tracks],
features

`vibe_db.importing` takes the videos from a `FileReader`:

    neighbouring rows with one name -> a segment -> its labels (`_labels`) -> usable rows
    (`_usable_rows`) -> a track for each run of them whose frame numbers increase
    (`_increasing_runs`)

All rows with one name are one video; names written by our export contain video and person, such as
"0001/0_seg1". Joints that the dataset does not annotate have confidence 0; bodies and 3D joints
that are all zeros or not finite are unknown (`has_smpl` 0, `has_3d` 0).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

import cache
from cache.read.labels import COMMON_JOINTS
from pipeline.accounting import VideoAccount
from pipeline.errors import PipelineError
from pipeline.exchange.array_files import StampedFile
from pipeline.exchange.vibe_db.database import PICTURE, Database, Layout, Segment, names_of
from pipeline.files.formats.smpl_files import N_POSE
from pipeline.skeletons import (
    HIP,
    Array,
    Bools,
    Float32s,
    Ints,
    add_confidence,
    are_usable_numbers,
    convert,
    correspondence,
    zero_invalid_joints,
)
from pipeline.track import FLAGS, Track, column_problems, other_units

Labels = dict[str, Array]  # column of the cache -> values of some rows

# m, the median absolute coordinate of the joints: in mm, any body has a larger one
_FARTHEST_JOINT: Final = 10.0
_LARGEST_FRAME: Final = 2**40
# names written by our export: <video>/<person>, perhaps with a segment
_EXPORTED_NAME: Final = re.compile(r"(.+)/(\d+(?:_(?:seg|part)\d+)*)")
UNITS: Final = ("pose", "has_smpl")  # a column whose units are checked, and its flag
_OTHER_UNIT: Final = "Take the file as VIBE's scripts write it, in m and rad."
_LAST_NUMBER: Final = re.compile(r"([0-9]{1,18})([^0-9/]*)\Z")


@dataclass(frozen=True, slots=True, eq=False)
class _ImportedVideo:
    """One video for the cache, and the numbers of its rows in the file."""

    entry: cache.VideoEntry
    tracks: tuple[Track, ...]
    account: VideoAccount
    rows: Ints  # row numbers in the file, in the order of the tracks' rows


@dataclass(frozen=True, slots=True)
class FileReader:
    """Reads the videos of a split from a database file."""

    database: Database
    layout: Layout
    dataset: str
    split: str
    needs_evaluation: bool  # whether the split has kp_3d_eval, besides kp_3d
    file: StampedFile

    @property
    def columns(self) -> tuple[str, ...]:
        """The cache's columns that the file can fill."""
        fields = self.database.fields
        columns = ["frame_index"]
        if "joints2D" in fields:
            columns += ["bbox", "kp_2d"]
        if "joints3D" in fields:
            columns += ["has_3d"]
            if self.layout.joints_3d == "spin49":
                columns += ["kp_3d"]
            if self.needs_evaluation or self.layout.joints_3d == "common14":
                columns += ["kp_3d_eval"]
        if "theta" in fields or {"pose", "shape"} <= fields.keys():
            columns += ["pose", "betas", "has_smpl"]
        if "valid" in fields or "valid_i" in fields:
            columns += ["valid"]
        return tuple(columns)

    def videos(self) -> Iterator[_ImportedVideo]:
        """Yield every video, in the order of their first rows. Holds one video's labels, and all
        names.
        """
        for video, segments in _group_by_video(self.database.segments()).items():
            yield self._video(video, segments)

    def _video(self, video: str, segments: Sequence[tuple[str, Segment]]) -> _ImportedVideo:
        """Read a video's rows. segments: (person, segment) pairs, as of `_group_by_video`.

        A person's first track is called VIDEO/PERSON, the next one VIDEO/PERSON_part1.
        """
        n_rows = sum(len(segment.rows) for _, segment in segments)
        account = VideoAccount(video, found=n_rows)
        image_names: list[str] = []  # of all rows of the video
        frames: list[Ints] = []  # for each segment, the frame numbers of all its rows
        tracks: list[Track] = []
        rows = [np.zeros(0, np.int64)]  # for each track, the numbers of its rows in the file
        n_tracks = Counter[str]()  # person -> number of tracks
        for person, segment in segments:
            segment_names = self._image_names(segment)
            frame_index = self._frames(segment, segment_names)
            image_names += segment_names
            frames.append(frame_index)
            labels = _labels(self.database, self.layout, self.columns, segment.rows)
            usable = _usable_rows(labels, len(frame_index), account)
            for run in _increasing_runs(frame_index, usable):
                name = f"{video}/{person}"
                if n_tracks[person]:
                    name += f"_part{n_tracks[person]}"
                n_tracks[person] += 1
                run_labels = {column: values[run] for column, values in labels.items()}
                tracks.append(self._track(name, video, frame_index[run], run_labels))
                account.keep_track(len(run))
                rows.append(segment.rows.start + run)
        account.check()
        source = source_of(image_names, np.concatenate(frames))
        if image_names and not source:
            account.note("img_name is not kept: its names are no numbered images in a raw folder")
        fingerprint = hashlib.sha256(f"{self.file.sha256} {video}".encode()).hexdigest()
        entry = cache.VideoEntry(
            name=video, source=source, fingerprint=fingerprint, account=account.as_dict()
        )
        return _ImportedVideo(entry, tuple(tracks), account, np.concatenate(rows))

    def _image_names(self, segment: Segment) -> list[str]:
        """Names of a segment's images; [] if the file has none."""
        if "img_name" not in self.database.fields:
            return []
        return self.database.texts("img_name", segment.rows)

    def _track(self, name: str, video: str, frame_index: Ints, labels: Labels) -> Track:
        """The track of these rows. Raises RawDataError for the first problem with its values."""
        flags: dict[str, Any] = {
            flag: labels[flag].astype(bool) for flag in FLAGS if flag in labels
        }
        track = Track(
            dataset=self.dataset,
            split=self.split,
            name=name,
            video=video,
            fps=np.nan,
            frame_index=frame_index,
            crop_scale=self.layout.crop_scale,
            **(labels | flags),
        )
        problem = next(column_problems(track.columns), None)
        if problem:
            expected = "rows that comply with docs/cache-format.md"
            raise self.database.error("vid_name", expected, problem)
        checked: Labels = {column: labels[column] for column in UNITS if column in labels}
        for column, expected, actual in other_units(checked):
            raise self.database.error(column, expected, f"{actual} in {name}", _OTHER_UNIT)
        return track

    def _frames(self, segment: Segment, image_names: Sequence[str]) -> Ints:
        """Frame indices: the numbers in frame_id ("frame_000012" is 12), else in the image names,
        else 0, 1, 2, ... Raises RawDataError for numbers out of range.
        """
        rows = segment.rows
        field = "frame_id"
        frame_index = None
        stored = self.database.fields.get(field)
        if stored is not None and stored.dtype.kind in "biu":
            frame_index = self.database.read(field, rows).astype(np.int64)
        elif stored is not None:
            frame_index = _parse_numbers(self.database.texts(field, rows))
        if frame_index is None and image_names:
            field = "img_name"
            frame_index = _parse_numbers(image_names)
            if frame_index is not None and frame_index.min() >= self.layout.first_picture:
                frame_index = frame_index - self.layout.first_picture
        if frame_index is None:
            return np.arange(len(rows))
        lowest = frame_index.min()
        highest = frame_index.max()
        if lowest < 0 or highest > _LARGEST_FRAME:
            actual = f"{lowest} to {highest} in {segment.name!r}"
            raise self.database.error(field, "frame numbers from 0 on", actual)
        return frame_index


def _usable_rows(labels: Labels, n_rows: int, account: VideoAccount) -> Ints:
    """The rows of a segment that have a box and a visible joint, where the file has these; counts
    the others in the account.
    """
    usable = np.arange(n_rows)
    if "bbox" in labels:
        bbox = labels["bbox"]
        is_in_range = are_usable_numbers(bbox).all(axis=1)
        is_box = is_in_range & (bbox[:, 2] > 0)
        is_visible = (labels["kp_2d"][..., 2] > 0).any(axis=1)
        usable = np.flatnonzero(is_box & is_visible)
        account.drop("degenerate_box", int((~is_box).sum()))
        account.drop("no_visible_joint", int((is_box & ~is_visible).sum()))
    if not len(usable):
        account.drop_track("no_frame_left", 0)
    return usable


def _increasing_runs(frame_index: Ints, rows: Ints) -> list[Ints]:
    """Split row numbers where the rows' frame numbers do not increase. frame_index: of
    all rows.

    >>> [run.tolist() for run in _increasing_runs(np.array([3, 4, 4, 7]), np.array([0, 1, 2, 3]))]
    [[0, 1], [2, 3]]
    """
    if not len(rows):
        return []
    starts = np.flatnonzero(np.diff(frame_index[rows]) <= 0) + 1
    return np.split(rows, starts)


def _group_by_video(segments: Iterator[Segment]) -> dict[str, list[tuple[str, Segment]]]:
    """Video -> (person, segment) pairs in file order.

    >>> segments = [Segment("0001/0_seg1", range(9)), Segment("2.mat", range(9, 12))]
    >>> _group_by_video(iter(segments))
    {'0001': [('0_seg1', Segment(name='0001/0_seg1', rows=range(0, 9)))], \
'2.mat': [('0', Segment(name='2.mat', rows=range(9, 12)))]}
    """
    videos: dict[str, list[tuple[str, Segment]]] = {}
    for segment in segments:
        video = segment.name
        person = "0"
        exported = _EXPORTED_NAME.fullmatch(segment.name)
        if exported is not None:
            video, person = exported.groups()
        videos.setdefault(video, []).append((person, segment))
    return videos


def _labels(database: Database, layout: Layout, columns: Sequence[str], rows: range) -> Labels:
    """Rows of the file as columns, without frame_index. Raises RawDataError for values that
    violate the layout.
    """
    labels: Labels = {}
    if "kp_2d" in columns:
        joints = database.read("joints2D", rows).astype(np.float64)
        kp_2d, _ = zero_invalid_joints(convert(joints, source=layout.joints_2d, target="spin49"))
        kp_2d[..., 2] = np.clip(kp_2d[..., 2], 0, 1)
        labels["kp_2d"] = kp_2d.astype(np.float32)
        labels["bbox"] = _boxes(database, layout, rows)
    if "has_3d" in columns:
        joints_3d = database.read("joints3D", rows)
        _require_metres(database, joints_3d, rows.start)
        labels |= _labels_3d(joints_3d, layout, columns)
    if "has_smpl" in columns:
        labels |= _smpl_labels(database, rows)
    if "valid" in columns:
        field = "valid" if "valid" in database.fields else "valid_i"
        with np.errstate(invalid="ignore"):
            is_valid = database.read(field, rows).reshape(len(rows)) > 0
        labels["valid"] = is_valid.astype(np.uint8)
    return labels


def _require_metres(database: Database, joints_3d: Array, start: int) -> None:
    """Raise RawDataError if the 3D joints of a row are so far from the pelvis that they must be in
    mm. start: number of the first row.
    """
    coordinates = np.abs(joints_3d.reshape(len(joints_3d), -1).astype(np.float64))
    is_labelled = np.isfinite(coordinates) & (coordinates != 0)
    rows = np.flatnonzero(is_labelled.any(axis=1))
    distances = np.nanmedian(np.where(is_labelled, coordinates, np.nan)[rows], axis=1)
    is_far = distances > _FARTHEST_JOINT
    if is_far.any():
        first = int(np.argmax(is_far))
        expected = "joints in m, relative to the pelvis"
        actual = f"{distances[first]:.0f}, as in mm, in row {start + rows[first]}"
        raise database.error("joints3D", expected, actual, _OTHER_UNIT)


def _smpl_labels(database: Database, rows: range) -> Labels:
    """The columns of SMPL's parameters: `theta` is pose and betas."""
    fields = ("theta",) if "theta" in database.fields else ("pose", "shape")
    stored = [database.read(field, rows) for field in fields]
    theta = np.concatenate(stored, axis=1)
    has_smpl = np.asarray(are_usable_numbers(theta).all(axis=1) & theta.any(axis=1))
    theta = _nan_unless(has_smpl, theta)
    return {
        "pose": theta[:, :N_POSE],
        "betas": theta[:, N_POSE:],
        "has_smpl": has_smpl.astype(np.uint8),
    }


def _boxes(database: Database, layout: Layout, rows: range) -> Float32s:
    """Boxes (n, 4) px of rows; the whole image where images are crops. Raises RawDataError for
    boxes that are not square.
    """
    if layout.in_crops:
        centre = PICTURE / 2
        box = np.array([centre, centre, PICTURE, PICTURE], np.float32)
        return np.tile(box, (len(rows), 1))
    bbox = database.read("bbox", rows).astype(np.float32)
    is_finite = np.isfinite(bbox).all(axis=1)
    is_oblong = is_finite & (bbox[:, 2] != bbox[:, 3])
    if is_oblong.any():
        row = int(is_oblong.argmax())
        found = f"{bbox[row].tolist()} in row {rows[row]}"
        raise database.error("bbox", "square boxes: centre x, centre y, width, height in px", found)
    return bbox


def _labels_3d(joints: Array, layout: Layout, columns: Sequence[str]) -> Labels:
    """The columns of 3D joints (n, J, 3) m in the layout's order: about the pelvis if they are
    spin49.
    """
    joints = joints.astype(np.float64)
    if layout.joints_3d == "common14":
        has_3d = _have_body(joints)
        return {"kp_3d_eval": _nan_unless(has_3d, joints), "has_3d": has_3d.astype(np.uint8)}

    joints = joints - joints[:, HIP : HIP + 1]
    annotated = correspondence(layout.known_3d, "spin49")[1]  # the joints that the dataset has
    is_annotated = np.isin(np.arange(joints.shape[1]), annotated)  # (49,)
    are_finite = np.isfinite(joints[:, annotated]).all(axis=(1, 2))
    has_3d = _have_body(joints[:, COMMON_JOINTS]) & are_finite  # (n,) rows
    # A joint exactly at the pelvis is not annotated in this row.
    is_present: Bools = np.asarray(joints.any(axis=-1))  # (n, 49)
    is_present[:, HIP] = True
    is_labelled = is_annotated & is_present & has_3d[:, None]  # (n, 49)

    kp_3d = np.where(is_labelled[..., None], add_confidence(joints), 0).astype(np.float32)
    labels: Labels = {"kp_3d": kp_3d, "has_3d": has_3d.astype(np.uint8)}
    if "kp_3d_eval" in columns:
        common = convert(kp_3d[..., :3], source="spin49", target="common14")
        labels["kp_3d_eval"] = _nan_unless(has_3d, common)
    return labels


def _have_body(joints: Array) -> Bools:
    """Joints (n, J, 3) -> (n,) whether they are finite, in range, and not all at one point."""
    with np.errstate(invalid="ignore"):
        are_in_range = are_usable_numbers(joints).all(axis=(1, 2))
        are_apart = (joints != joints[:, :1]).any(axis=(1, 2))
    return np.asarray(are_in_range & are_apart)


def _nan_unless(is_known: Bools, values: Array) -> Float32s:
    """Values (n, ...) with NaN in rows that are not known. is_known: (n,)."""
    n_trailing = values.ndim - 1
    row_is_known = is_known.reshape(-1, *[1] * n_trailing)
    return np.where(row_is_known, values, np.nan).astype(np.float32)


def _parse_numbers(texts: Sequence[str]) -> Ints | None:
    """The last number in each text, such as 12 in "frames/0001/000012.jpg"; None if a text has no
    number.
    """
    numbers = []
    for text in texts:
        match = _LAST_NUMBER.search(text)
        if match is None:
            return None
        numbers.append(int(match[1]))
    return np.array(numbers, np.int64)


def source_of(names: Sequence[str], frame_index: Ints) -> str:
    """The pixel source whose frames have these names; "" if there is none in a raw folder.

    >>> source_of(["a/000007.jpg", "a/000009.jpg"], np.array([6, 8]))
    'pictures:a/{:06d}.jpg+1'
    >>> source_of(["/elsewhere/000007.jpg"], np.array([6]))
    ''
    """
    numbers = _parse_numbers(names)
    if numbers is None or not len(numbers):
        return ""
    first, *other_numbers = set((numbers - frame_index).tolist())  # numbers of the image of frame 0
    if other_numbers:
        return ""
    # guess the source from the first name, then compare the names of all its frames
    match = _LAST_NUMBER.search(names[0])
    assert match is not None
    before = names[0][: match.start()]
    after = match[2]
    if before.endswith("#") and not after and first == 0:
        candidate = f"video:{before.removesuffix('#')}"
    else:
        texts = [name[len(before) : len(name) - len(after)] for name in names]
        padded = [len(text) for text in texts if text.startswith("0")]
        digits = padded[0] if padded else 1
        candidate = f"pictures:{before}{{:0{digits}d}}{after}+{first}"
    try:
        name_of = names_of(candidate)
    except (PipelineError, ValueError):  # an absolute path, or one with '..'
        return ""
    assert name_of is not None
    for frame, name in zip(frame_index.tolist(), names, strict=True):
        if name_of(frame) != name:
            return ""
    return candidate
