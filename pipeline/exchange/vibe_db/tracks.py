"""An untrusted database file, opened and checked; its rows as videos and tracks.  [database files
-> tracks], features

All rows with one name are one video; names written by our export contain video and person. A name
that appears again later, or a frame number that does not increase, starts a new track. Joints that
the dataset does not annotate have confidence 0; bodies and 3D joints that are all zeros or not
finite are unknown (`has_smpl` 0, `has_3d` 0).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.accounting import VideoAccount
from pipeline.errors import RawDataError
from pipeline.exchange.rows import COMMON
from pipeline.exchange.vibe_db.joblib_files import stored_arrays, text_of
from pipeline.exchange.vibe_db.layouts import (
    FIELDS,
    PICTURE,
    REQUIRED,
    Layout,
    parse_numbers,
    source_of,
)
from pipeline.files.formats.arrays import fits, reading, refuse
from pipeline.files.formats.hdf5 import filters_of, own_object
from pipeline.files.raw.opening import open_unbuffered
from pipeline.skeletons import JOINTS, LARGEST, convert, correspondence, zero_invalid_joints
from pipeline.track import FLAGS, Track, column_problems, other_units

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]

PELVIS: Final = JOINTS["spin49"].index("hip")
N_POSE: Final = 72
# m, the median absolute coordinate of the joints: in mm, any body has a larger one
FARTHEST_JOINT: Final = 10.0
LARGEST_FRAME: Final = 2**40
# <video>/<person>, perhaps with a segment
_OWN: Final = re.compile(r"(.+)/(\d+(?:_(?:seg|part)\d+)*)")

HDF5: Final = b"\x89HDF\r\n\x1a\n"
NAMES_AT_ONCE: Final = 65536
MAX_NAME: Final = 4000  # bytes: the cache's tables hold 4096, with the person
AGAIN: Final = "Write the file again."
OTHER_UNIT: Final = "Take the file as VIBE's scripts write it, in m and rad."
# dtype in the layout -> dtype kinds that a file may have; for other dtypes, any numbers
KINDS: Final = {"U": "US", "<i8": "biuUS"}


class Segment(NamedTuple):
    """Rows [start, stop) with the same name."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Database:
    """The fields of an open file that its layout defines; all have `rows` rows."""

    file: Path
    fields: Mapping[str, Array]  # memory-mapped, or of h5py
    rows: int
    ignored: tuple[str, ...]  # names of other content

    def read(self, field: str, start: int, stop: int) -> Array:
        """Rows [start, stop) of a field."""
        return np.array(self.fields[field][start:stop])

    def texts(self, field: str, start: int, stop: int) -> list[str]:
        """Rows [start, stop) of a text field, which may be stored as bytes."""
        return [text_of(value) for value in self.read(field, start, stop).tolist()]

    def segments(self) -> Iterator[Segment]:
        """Yield runs of rows with equal `vid_name`, in order. Raises RawDataError for an invalid
        name.
        """
        name = ""
        start = 0
        for first_row in range(0, self.rows, NAMES_AT_ONCE):
            values = self.read("vid_name", first_row, min(first_row + NAMES_AT_ONCE, self.rows))
            is_change = np.r_[True, values[1:] != values[:-1]]
            for change in np.flatnonzero(is_change).tolist():
                row = first_row + change
                text = text_of(values[change])
                encoded = text.encode("utf-8", "surrogatepass")
                is_utf8 = encoded.decode("utf-8", "replace") == text
                is_short = 0 < len(encoded) <= MAX_NAME
                if "\0" in text or not (is_utf8 and is_short):
                    expected = f"UTF-8 of 1 to {MAX_NAME} bytes in row {row}"
                    raise self.error("vid_name", expected, repr(text[:80]))
                if text != name:
                    if name:
                        yield Segment(name, start, row)
                    name = text
                    start = row
        if name:
            yield Segment(name, start, self.rows)

    def error(self, field: str, expected: str, found: str, do: str = AGAIN) -> RawDataError:
        return RawDataError(self.file, field, expected, found, do)


@contextmanager
def open_database(file: Path, layout: Layout) -> Iterator[Database]:
    """Open a joblib or HDF5 file with the fields of `layout`.

    Raises RawDataError if the file is unreadable, a required field is missing, or a type, shape or
    length is wrong; UnsafePickle if it would run code; OSError.
    """
    with open_unbuffered(file) as stream:
        start = stream.read(len(HDF5))
    if start != HDF5:
        yield _check_fields(file, layout, *stored_arrays(file))
        return
    with ExitStack() as opened:
        with reading(file, "an HDF5 file", do="Copy it again."):
            stored = opened.enter_context(h5py.File(file, "r", locking=False))
            objects = {name: _plain_array(file, stored, name) for name in stored}
        arrays = {name: array for name, array in objects.items() if array is not None}
        others = tuple(objects.keys() - arrays.keys())
        yield _check_fields(file, layout, arrays, others)


def _check_fields(
    file: Path, layout: Layout, arrays: Mapping[str, Array], others: tuple[str, ...]
) -> Database:
    fields = {name: array for name, array in arrays.items() if name in layout.fields}
    ignored = tuple(sorted({*arrays, *others} - fields.keys()))
    n_rows = 0
    if "vid_name" in fields:
        n_rows = (*fields["vid_name"].shape, 0)[0]
    database = Database(file, fields, n_rows, ignored)
    for name in REQUIRED:
        if name in layout.fields and name not in fields:
            found = f"only {', '.join(sorted(arrays)) or 'no arrays'}"
            if name in others:
                found = "another Python object of this name; store numbers as an array of numbers"
            do = "Check that this is the dataset's file."
            raise database.error(name, "an array of this name", found, do)
    if not n_rows:
        raise database.error("vid_name", "rows", "none")

    for name, array in fields.items():
        found = f"{array.dtype} {array.shape}"
        field = FIELDS[name]
        if array.shape[:1] != (n_rows,):
            raise database.error(name, f"{n_rows} rows, as in vid_name", found)
        has_shape = any(fits(array.shape[1:], shape) for shape in field.shapes)
        has_kind = array.dtype.kind in KINDS.get(field.dtype, "biuf")
        if 0 in array.shape or not (has_shape and has_kind):
            shapes = " or ".join(f"(rows, {', '.join(map(str, shape))})" for shape in field.shapes)
            content = "texts" if field.dtype == "U" else "numbers"
            expected = f"{content} of shape {shapes.replace('None', 'any')}"
            raise database.error(name, expected, found)
    return database


def _plain_array(file: Path, stored: h5py.File, name: str) -> h5py.Dataset | None:
    """The dataset; None for another object. Raises RawDataError for a dataset in another file, or
    with filters.
    """
    with reading(file, "an array in this file", key=name, do=AGAIN):
        dataset = own_object(stored, name)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            return None
        if filters_of(dataset):
            expected = "an array without filters"
            do = f"Write it without them: h5repack -f NONE {file} PLAIN"
            raise RawDataError(file, name, expected, "filters (compression)", do)
        n_stored = dataset.id.get_storage_size()
        if n_stored < dataset.nbytes:
            refuse(f"{n_stored:,} of its {dataset.nbytes:,} bytes")
    return dataset


# --------------------------------------------------------------------------------------------------
# tracks


@dataclass(frozen=True, slots=True, eq=False)
class _ImportedVideo:
    """One video for the cache, and its rows in the file."""

    entry: cache.VideoEntry
    tracks: tuple[Track, ...]
    account: VideoAccount
    rows: Rows  # row numbers in the file, in the order of the tracks' rows


def columns_of(database: Database, layout: Layout, *, evaluation: bool) -> tuple[str, ...]:
    """The cache's columns that the file can fill."""
    fields = database.fields
    columns = ["frame_index"]
    if "joints2D" in fields:
        columns += ["bbox", "kp_2d"]
    if "joints3D" in fields:
        columns += ["has_3d"]
        if layout.joints_3d == "spin49":
            columns += ["kp_3d"]
        if evaluation or layout.joints_3d == "common14":
            columns += ["kp_3d_eval"]
    if "theta" in fields or {"pose", "shape"} <= fields.keys():
        columns += ["pose", "betas", "has_smpl"]
    if "valid" in fields or "valid_i" in fields:
        columns += ["valid"]
    return tuple(columns)


@dataclass(frozen=True, slots=True)
class FileReader:
    """Reads videos from a database file. `columns`: the cache's columns to fill."""

    database: Database
    layout: Layout
    dataset: str
    split: str
    columns: tuple[str, ...]
    digest: str  # SHA-256 of the file
    state: tuple[int, int]  # its size and time (ns) before it was read

    def videos(self) -> Iterator[_ImportedVideo]:
        """Yield every video, in the order of their first rows. Holds one video's labels, and all
        names.
        """
        for video, parts in _group_by_video(self.database.segments()).items():
            yield self._video(video, parts)

    def _video(self, video: str, parts: Sequence[tuple[str, Segment]]) -> _ImportedVideo:
        n_rows = sum(part.stop - part.start for _, part in parts)
        account = VideoAccount(video, found=n_rows)
        tracks: list[Track] = []
        rows = [np.zeros(0, np.int64)]
        frames = [np.zeros(0, np.int64)]
        pictures: list[str] = []
        numbers: dict[str, int] = {}
        for person, part in parts:
            names = None
            if "img_name" in self.database.fields:
                names = self.database.texts("img_name", part.start, part.stop)
                pictures += names
            frame = self._frames(part, names)
            frames.append(frame)
            labels = _labels(self.database, self.layout, self.columns, part.start, part.stop)
            keep = np.ones(len(frame), bool)
            if "bbox" in labels:
                bbox = labels["bbox"]
                is_in_range = (np.abs(bbox) < LARGEST).all(axis=1)
                is_box = is_in_range & (bbox[:, 2] > 0)
                is_visible = (labels["kp_2d"][..., 2] > 0).any(axis=1)
                keep = is_box & is_visible
                account.drop("degenerate_box", int((~is_box).sum()))
                account.drop("no_visible_joint", int((is_box & ~is_visible).sum()))
            if not keep.any():
                account.drop_track("no_frame_left", 0)
            for run in _increasing_runs(frame, np.flatnonzero(keep)):
                number = numbers.get(person, 0)
                numbers[person] = number + 1
                name = f"{video}/{person}"
                if number:
                    name += f"_part{number}"
                of_run = {column: values[run] for column, values in labels.items()}
                tracks.append(self._track(name, video, frame[run], of_run))
                account.keep_track(len(run))
                rows.append(run + part.start)
        account.check()
        source = source_of(pictures, np.concatenate(frames))
        if pictures and not source:
            account.notes.append(
                "img_name is not kept: its names are no numbered images in a raw folder"
            )
        fingerprint = hashlib.sha256(f"{self.digest} {video}".encode()).hexdigest()
        entry = cache.VideoEntry(
            name=video, source=source, fingerprint=fingerprint, account=account.as_dict()
        )
        return _ImportedVideo(entry, tuple(tracks), account, np.concatenate(rows))

    def _track(self, name: str, video: str, frame: Rows, labels: dict[str, Array]) -> Track:
        flags: dict[str, Any] = {
            flag: labels[flag].astype(bool) for flag in FLAGS if flag in labels
        }
        track = Track(
            dataset=self.dataset,
            split=self.split,
            name=name,
            video=video,
            fps=np.nan,
            frame_index=frame,
            crop_scale=self.layout.crop_scale,
            **(labels | flags),
        )
        for problem in column_problems(track.columns):
            expected = "rows that comply with docs/cache-format.md"
            raise self.database.error("vid_name", expected, problem)
        bodies: dict[str, Array] = {
            column: labels[column] for column in ("pose", "has_smpl") if column in labels
        }
        for column, expected, found in other_units(bodies):
            raise self.database.error(column, expected, f"{found} in {name}", OTHER_UNIT)
        return track

    def _frames(self, part: Segment, pictures: list[str] | None) -> Rows:
        """Frame indices: the numbers in frame_id ("frame_000012" is 12), else in the image names,
        else 0, 1, 2, ...
        """
        frame = None
        stored = self.database.fields.get("frame_id")
        if stored is not None and stored.dtype.kind in "biu":
            frame = self.database.read("frame_id", part.start, part.stop).astype(np.int64)
        elif stored is not None:
            frame = parse_numbers(self.database.texts("frame_id", part.start, part.stop))
        if frame is None and pictures is not None:
            frame = parse_numbers(pictures)
            if frame is not None and frame.min() >= self.layout.first_picture:
                frame = frame - self.layout.first_picture
        if frame is None:
            return np.arange(part.stop - part.start)
        least = frame.min()
        most = frame.max()
        if least < 0 or most > LARGEST_FRAME:
            found = f"{least} to {most} in {part.name!r}"
            raise self.database.error("frame_id", "frame numbers from 0 on", found)
        return frame


def _increasing_runs(frame: Rows, kept: Rows) -> list[Rows]:
    """Split the row numbers `kept` at frame numbers that do not increase.

    >>> [run.tolist() for run in _increasing_runs(np.array([3, 4, 4, 7]), np.array([0, 1, 2, 3]))]
    [[0, 1], [2, 3]]
    """
    if not len(kept):
        return []
    starts = np.flatnonzero(np.diff(frame[kept]) <= 0) + 1
    return np.split(kept, starts)


def _group_by_video(segments: Iterator[Segment]) -> dict[str, list[tuple[str, Segment]]]:
    """Video -> (person, segment) pairs in file order.

    >>> segments = [Segment("0001/0_seg1", 0, 9), Segment("/data/labels/0002.mat", 9, 12)]
    >>> _group_by_video(iter(segments))
    {'0001': [('0_seg1', Segment(name='0001/0_seg1', start=0, stop=9))], \
'/data/labels/0002.mat': [('0', Segment(name='/data/labels/0002.mat', start=9, stop=12))]}
    """
    videos: dict[str, list[tuple[str, Segment]]] = {}
    for segment in segments:
        video = segment.name
        person = "0"
        exported = _OWN.fullmatch(segment.name)
        if exported is not None:
            video, person = exported.groups()
        videos.setdefault(video, []).append((person, segment))
    return videos


def _labels(
    database: Database, layout: Layout, columns: Sequence[str], start: int, stop: int
) -> dict[str, Array]:
    """Rows [start, stop) as columns, without frame_index. Raises RawDataError for values that
    violate the layout.
    """
    labels: dict[str, Array] = {}
    if "kp_2d" in columns:
        joints = database.read("joints2D", start, stop).astype(np.float64)
        kp_2d, _ = zero_invalid_joints(convert(joints, source=layout.joints_2d, target="spin49"))
        kp_2d[..., 2] = np.clip(kp_2d[..., 2], 0, 1)
        labels["kp_2d"] = kp_2d.astype(np.float32)
        labels["bbox"] = _boxes(database, layout, start, stop)
    if "has_3d" in columns:
        joints_3d = database.read("joints3D", start, stop)
        is_known = np.isfinite(joints_3d) & (joints_3d != 0)
        if is_known.any():
            distance = np.median(np.abs(joints_3d[is_known]))
            if distance > FARTHEST_JOINT:
                expected = "joints in m, relative to the pelvis"
                found = f"{distance:.0f}, as in mm"
                raise database.error("joints3D", expected, found, OTHER_UNIT)
        labels |= _labels_3d(joints_3d, layout, columns)
    if "has_smpl" in columns:
        fields = ("theta",) if "theta" in database.fields else ("pose", "shape")
        stored = [database.read(field, start, stop) for field in fields]
        theta = np.concatenate(stored, axis=1)
        is_in_range = (np.abs(theta) < LARGEST).all(axis=1)
        is_labelled = is_in_range & theta.any(axis=1)
        theta = _where(is_labelled, theta)
        labels["pose"] = theta[:, :N_POSE]
        labels["betas"] = theta[:, N_POSE:]
        labels["has_smpl"] = is_labelled.astype(np.uint8)
    if "valid" in columns:
        field = "valid" if "valid" in database.fields else "valid_i"
        with np.errstate(invalid="ignore"):
            is_valid = database.read(field, start, stop).reshape(stop - start) > 0
        labels["valid"] = is_valid.astype(np.uint8)
    return labels


def _boxes(database: Database, layout: Layout, start: int, stop: int) -> NDArray[np.float32]:
    """Boxes (n, 4) px of rows [start, stop); the whole picture where pictures are crops. Raises
    RawDataError for boxes that are not square.
    """
    if layout.in_crops:
        centre = PICTURE / 2
        box = np.array([centre, centre, PICTURE, PICTURE], np.float32)
        return np.tile(box, (stop - start, 1))
    bbox = database.read("bbox", start, stop).astype(np.float32)
    is_finite = np.isfinite(bbox).all(axis=1)
    is_oblong = is_finite & (bbox[:, 2] != bbox[:, 3])
    if is_oblong.any():
        row = int(is_oblong.argmax())
        found = f"{bbox[row].tolist()} in row {start + row}"
        raise database.error("bbox", "square boxes: centre x, centre y, width, height in px", found)
    return bbox


def _labels_3d(joints: Array, layout: Layout, columns: Sequence[str]) -> Mapping[str, Array]:
    """The columns of 3D joints (n, J, 3) m in the layout's order: about the pelvis if they are
    spin49.
    """
    joints = joints.astype(np.float64)
    if layout.joints_3d == "common14":
        labelled = _are_known(joints)
        return {"kp_3d_eval": _where(labelled, joints), "has_3d": labelled.astype(np.uint8)}

    joints = joints - joints[:, PELVIS : PELVIS + 1]
    annotated = np.zeros(len(JOINTS["spin49"]), bool)
    _, known = correspondence(layout.known_3d, "spin49")
    annotated[known] = True
    # A joint exactly at the pelvis is not annotated.
    is_placed: Bools = np.asarray(joints.any(axis=-1))
    is_placed[:, PELVIS] = True
    are_finite = np.isfinite(joints[:, annotated]).all(axis=(1, 2))
    labelled = _are_known(joints[:, COMMON]) & are_finite
    has = annotated & is_placed & labelled[:, None]

    confidence = np.ones((*joints.shape[:2], 1))
    kp_3d = np.concatenate([joints, confidence], axis=2)
    kp_3d = np.where(has[..., None], kp_3d, 0).astype(np.float32)
    labels: dict[str, Array] = {"kp_3d": kp_3d, "has_3d": labelled.astype(np.uint8)}
    if "kp_3d_eval" in columns:
        common = convert(kp_3d[..., :3], source="spin49", target="common14")
        labels["kp_3d_eval"] = _where(labelled, common)
    return labels


def _are_known(joints: Array) -> Bools:
    """Joints (n, J, 3) -> (n,) whether they are finite, in range, and not all at one point."""
    with np.errstate(invalid="ignore"):
        are_in_range = (np.abs(joints) < LARGEST).all(axis=(1, 2))
        are_apart = (joints != joints[:, :1]).any(axis=(1, 2))
    return np.asarray(are_in_range & are_apart)


def _where(known: Bools, values: Array) -> NDArray[np.float32]:
    """Replace unknown rows by NaN."""
    n_trailing = values.ndim - 1
    is_known = known.reshape(-1, *[1] * n_trailing)
    return np.where(is_known, values, np.nan).astype(np.float32)
