"""InstaVariety: clips from Instagram, 25 joints found by a detector.  [raw -> tracks] -> features -> windows

Kanazawa, Zhang, Felsen, Malik: Learning 3D Human Dynamics from Video, CVPR 2019.

    <split>/<shard>.tfrecord      tf.train.Example records, one a clip of one person; pictures are crops of him or her
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.datasets.base import Dataset, RawVideo
from pipeline.datasets.release import Mistake, Part, Totals
from pipeline.errors import PipelineError, RawDataError
from pipeline.formats import tfrecords
from pipeline.formats.tf_example import Example, ExampleError
from pipeline.pixels.decode import PictureError, picture_size
from pipeline.pixels.records import AGAIN, MAX_PICTURES, PICTURES, Records
from pipeline.skeletons import convert, without_non_finite
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

Doubles = NDArray[np.float64]

N_BODY, N_FACE, N_TOES = 14, 5, 6  # joints: together, in this order, the skeleton "insta_variety"
PHIS: Final = "image/phis"  # features by the authors' own network, there where pictures were preprocessed for it
CROP_SCALE: Final = 1.0  # pictures are crops already
SHARD: Final = ".tfrecord"
ARCHIVE: Final = "the preprocessed tfrecords (doc/insta_variety.md of the project's page)"


@dataclass(frozen=True)
class InstaVariety(Dataset):
    """One track an example. The release names no frame rate."""

    name: ClassVar[str] = "insta_variety"
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    version: ClassVar[int] = 1
    page: ClassVar[str] = "https://github.com/akanazawa/human_dynamics"
    parts: ClassVar[tuple[Part, ...]] = (
        Part("training shards", ("train/*.tfrecord",), ARCHIVE, ("train",), 273, shown=("train/<shard>.tfrecord",)),
        Part("test shards", ("test/*.tfrecord",), ARCHIVE, ("test",), shown=("test/<shard>.tfrecord",)),
    )
    # Counted by a user in the 273 files (issue 67 of the page). It fits the authors' script: 50 a file.
    totals: ClassVar[Mapping[str, Totals]] = {"train": Totals(videos=13_601)}

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        return ("frame_index", "bbox", "kp_2d")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        shards = _shards(raw / split)
        if not shards:
            found = "none" if (raw / split).is_dir() else "no such folder"
            do = "Point the raw folder at the unpacked tfrecords."
            raise RawDataError(raw / split, "folder", expected=f"<shard>{SHARD} files", found=found, do=do)
        videos = [
            RawVideo(f"{split}/{shard.stem}/{i:05d}", files=(Path(split, shard.name),), span=span)
            for shard in shards
            for i, span in enumerate(tfrecords.spans(shard))
        ]
        return sorted(videos, key=lambda video: video.name)

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None  # noqa: ARG002
    ) -> Sequence[Track]:  # fmt: skip
        source = _source(raw, video)
        label = _Label(raw / video.files[0], video.name.rpartition("/")[2], source.example())
        account.found = n_frames = label.n_frames()
        sizes = _picture_sizes(label, source.pictures(), n_frames, account)
        has_picture = np.isfinite(sizes[:, 0])
        account.drop("no_picture", int((~has_picture).sum()))

        frame_index = np.flatnonzero(has_picture)
        kp_2d = _keypoints(label, n_frames, frame_index, sizes[frame_index], account)
        visible = (kp_2d[..., 2] > 0).any(axis=1)
        account.drop("no_visible_joint", int((~visible).sum()))
        if not visible.any():
            account.drop_track("no_frame_left", 0)
            return []
        account.keep_track(int(visible.sum()))
        frame_index = frame_index[visible]
        return [
            Track(
                dataset=self.name,
                split=split,
                name=f"{video.name}/0",
                video=video.name,
                fps=math.nan,
                frame_index=frame_index.astype(np.int64),
                bbox=whole_pictures(sizes[frame_index]),
                kp_2d=convert(kp_2d[visible], source=self.name, target="spin49").astype(np.float32),
                crop_scale=CROP_SCALE,
                frames=source,
            )
        ]

    def mistakes(self, raw: Path) -> Iterator[Mistake]:
        for split in self.splits:
            shards = _shards(raw / split)
            bad = [(shard, why) for shard in shards if (why := tfrecords.beginning_problem(shard))]
            for shard, why in bad[:1]:
                told = f"{len(bad)} of the {len(shards)} shards of {split} cannot be read"
                yield Mistake(f"{told}: {shard}: {why}", AGAIN)
            if shards:
                continue
            for pattern, what, do in NO_SHARDS:
                if (found := next((raw / split).glob(pattern), None)) is not None:
                    yield Mistake(f"{split}/ holds {what} ({found.name}) instead of <shard>{SHARD} files", do)
        if loose := next(raw.glob(f"*{SHARD}"), None):
            yield Mistake(f"{loose.name} lies beside train/ and test/", "Move shards into the folder of their split.")
        if (raw / "InstaVariety.json").is_file() or (raw / "InstaVariety_tracks").is_dir():
            what = "This is the list of videos, or the detector's tracks: labels without pictures"
            yield Mistake(what, f"Download {ARCHIVE} instead, or make them from these with the authors' script.")


NO_SHARDS: Final = (  # what has been found in a split's folder without a shard
    (f"*{SHARD}.gz", "compressed shards", "Uncompress them: gunzip *.gz."),
    (f"*{SHARD}s", "files with another ending", f"Rename them to <shard>{SHARD}, if they are TFRecord files."),
    ("*.h5", "VIBE's converted parts", f"Those lack the pictures as they were. Download {ARCHIVE}."),
    ("*.jp*g", "extracted pictures", f"The labels lie in the tfrecords alone: download {ARCHIVE}."),
    ("*/*.jp*g", "extracted pictures", f"The labels lie in the tfrecords alone: download {ARCHIVE}."),
)


def whole_pictures(sizes: Doubles) -> NDArray[np.float32]:
    """(T, 2) widths and heights px -> (T, 4) boxes: the whole picture, made square by its larger side.

    With crop scale 1.0 a picture of 224 x 224 is its own crop, to the pixel.
    """
    side = sizes.max(axis=1, keepdims=True)
    return np.concatenate([sizes / 2, side, side], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Label:
    """An example, and where it lies: for messages."""

    file: Path
    record: str  # its number in the shard
    example: Example

    def n_frames(self) -> int:
        stored = self.integers("meta/N", 1)
        if stored.shape != (1,) or not 0 < stored[0] <= MAX_PICTURES:
            raise self.error("meta/N", f"a number from 1 to {MAX_PICTURES}", str(stored.tolist()))
        return int(stored[0])

    def array(self, key: str, shape: tuple[int, ...], *, integers: bool = False) -> Doubles:
        """A feature in its shape, which it must fill exactly."""
        n_values = math.prod(shape)
        stored = self.integers(key, n_values) if integers else self.floats(key, n_values)
        if len(stored) != n_values:
            there = f"only {', '.join(sorted(self.example.features))[:300]}"
            found = str(len(stored)) if key in self.example else there
            raise self.error(key, f"{n_values} numbers: {shape}", found)
        return stored.astype(np.float64).reshape(shape)

    def integers(self, key: str, most: int) -> NDArray[np.int64]:
        try:
            return self.example.integers(key, most)
        except ExampleError as error:
            raise self.error(key, f"{most} integers", str(error)) from error

    def floats(self, key: str, most: int) -> NDArray[np.float32]:
        try:
            return self.example.floats(key, most)
        except ExampleError as error:
            raise self.error(key, f"{most} floats", str(error)) from error

    def error(self, key: str, expected: str, found: str, reason: str = "bad_label_file") -> RawDataError:
        return RawDataError(
            self.file, f"{key} of record {self.record}", expected=expected, found=found, do=AGAIN, reason=reason
        )


def _shards(folder: Path) -> list[Path]:
    """By their names alone: one that cannot be opened is told when it is read."""
    return sorted(file for file in folder.glob(f"*{SHARD}") if not file.name.startswith("."))  # of a Mac: ._<shard>


def _source(raw: Path, video: RawVideo) -> Records:
    if video.span is None:
        raise ValueError(f"{video.name}: a video of this dataset is a span of its shard")
    start, stop = video.span
    try:
        return Records(raw, video.files[0].as_posix(), start, stop - start)
    except PipelineError as error:  # a backslash in its name
        expected, do = "a plain name", "Rename it."
        raise RawDataError(raw / video.files[0], "name", expected=expected, found=str(error), do=do) from error


def _picture_sizes(label: _Label, pictures: Sequence[bytes], n_frames: int, account: VideoAccount) -> Doubles:
    """(n_frames, 2) width and height px of each frame's picture, NaN where there is none that says its size."""
    sizes, problems = np.full((n_frames, 2), np.nan), []
    for i, picture in enumerate(pictures[:n_frames]):
        try:
            sizes[i] = picture_size(picture)
        except PictureError as error:
            problems.append(f"picture {i} {error}")
    if np.isnan(sizes).all():
        found = problems[0] if problems else f"none, as when {PHIS} alone were kept"
        raise label.error(PICTURES, f"{n_frames} pictures", found, "no_picture")
    if problems:
        account.notes.append(f"{len(problems)} pictures cannot be read, the first: {problems[0]}")
    if len(pictures) != n_frames:
        n_used = min(n_frames, len(pictures))
        account.notes.append(f"{n_frames} frames are labelled, {len(pictures)} pictures are there: {n_used} used")
    return sizes


def _keypoints(
    label: _Label, n_frames: int, frame_index: NDArray[np.int64], sizes: Doubles, account: VideoAccount
) -> Doubles:
    """(T, 25, 3) x px, y px, confidence of T of the frames, whose pictures have `sizes` (T, 2); zero where not seen."""
    xys = label.array("image/xys", (n_frames, 2, N_BODY))
    visible = label.array("image/visibilities", (n_frames, N_BODY), integers=True)
    face = _optional(label, "image/face_pts", (n_frames, 3, N_FACE), account)
    toes = _optional(label, "image/toe_pts", (n_frames, 3, N_TOES), account)
    body = np.concatenate([xys, visible[:, None]], axis=1)
    kp_2d = np.concatenate([body, face, toes], axis=2).transpose(0, 2, 1)[frame_index]
    if PHIS in label.example:  # [-1, 1] across the picture, as `crops.normalise_keypoints` makes it
        annotated = kp_2d.any(axis=-1, keepdims=True)
        kp_2d[..., :2] = np.where(annotated, (kp_2d[..., :2] + 1) * sizes[:, None] / 2, 0)
    kp_2d, n_bad = without_non_finite(kp_2d)
    if n_bad:
        account.notes.append(f"{n_bad} joints are not finite: not used")
    kp_2d[..., 2] = kp_2d[..., 2].clip(0, 1)
    return kp_2d


def _optional(label: _Label, key: str, shape: tuple[int, ...], account: VideoAccount) -> Doubles:
    """Joints that some examples lack: then all zero, so not seen."""
    if not len(label.floats(key, math.prod(shape))):
        account.notes.append(f"no {key}: {shape[-1]} joints are not annotated")
        return np.zeros(shape)
    return label.array(key, shape)
