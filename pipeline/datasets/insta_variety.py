"""InstaVariety: clips from Instagram, 25 joints found by a detector.  [raw -> tracks] -> features
-> windows

Kanazawa, Zhang, Felsen, Malik: Learning 3D Human Dynamics from Video, CVPR 2019.

    <split>/<shard>.tfrecord      tf.train.Example records, one per clip of one person; images are
                                  crops of the person
    <split>/<tag>/<video>.mp4     alternatively, videos of the release's list, with keypoints as for
                                  the dataset `videos`
    keypoints/<split>/<tag>/<video>.mp4.json

A record is a video of N frames, named <split>/<shard>/<number in the shard>, such as
train/insta_variety_00/00007. Its features, read as `_Record`:

    meta/N                  number of frames
    image/encoded           N images, each a crop of the person
    image/filenames         N names
    image/xys               (N, 2, 14) body joints, px
    image/visibilities      (N, 14) 0 or 1
    image/face_pts          (N, 3, 5): x, y, 0 or 1; may be missing, like
    image/toe_pts           (N, 3, 6)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from pipeline.accounting import Totals, VideoAccount
from pipeline.clips.labels.label_files import ClipLabels
from pipeline.clips.listing import list_clips
from pipeline.datasets.base import Mistake, Origin, Release, ReleasePart
from pipeline.datasets.labels.fits import FILE, FitStore, picture_name
from pipeline.datasets.shared.checks import finite_joints
from pipeline.datasets.shared.clips.clip import clip_tracks
from pipeline.datasets.shared.clips.clip_dataset import ClipDataset
from pipeline.datasets.shared.clips.people import ANY_CLIP
from pipeline.datasets.shared.labelled_track import labelled_track
from pipeline.errors import RawDataError
from pipeline.files.formats import tfrecords
from pipeline.files.formats.arrays import reading
from pipeline.files.formats.names import shown_names
from pipeline.files.formats.tfrecords import AGAIN, feature_values
from pipeline.files.pixels.decode import PictureError, picture_size
from pipeline.files.pixels.sources import MAX_PICTURES, PICTURES, RecordPictures
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import VIDEOS
from pipeline.people.hands import HANDS
from pipeline.people.skeletons import Array, Doubles, Float32s, Ints, convert
from pipeline.people.smpl_files import N_BETAS, N_POSE
from pipeline.people.track import Track

if TYPE_CHECKING:
    from pipeline.people.body import Body


# Numbers of joints in a record's three arrays; in this order, they are the skeleton "insta_variety"
N_BODY = 14
N_FACE = 5
N_TOES = 6
# features of the authors' own network; a record with them has joints in [-1, 1] (`_keypoints`)
PHIS: Final = "image/phis"
CROP_SCALE: Final = 1.0  # images are crops already
ARCHIVE: Final = "the preprocessed tfrecords (doc/insta_variety.md of the project's page)"


@dataclass(frozen=True)
class InstaVariety(ClipDataset):
    """One track per record, without a frame rate; for videos, one per person and stretch."""

    # read bodies that 4D-Humans or CameraHMR fitted, from `fits.sqlite` in the raw folder
    fits: bool = False

    name = "insta_variety"
    splits = ("train", "test")
    # 10: uneven clips: the rate of a track's own frames, `max_fps` by time; one thread decodes a
    # clip; wrong times; joint orders of videos' keypoints are assumed, not searched; bad boxes,
    # zeros, places in a list
    # 11: linking under a moving camera; left and right by time
    version = 11
    release = Release(
        page="https://github.com/akanazawa/human_dynamics",
        access="free; videos are of Instagram",
        parts=(
            ReleasePart(
                "training shards", ("train/<shard>.tfrecord",), ARCHIVE, ("train",), known=273
            ),
            ReleasePart("test shards", ("test/<shard>.tfrecord",), ARCHIVE, ("test",)),
        ),
        mistakes=(
            Mistake(
                "*/*.h5",
                "is one of VIBE's converted files, which lack the images",
                f"Download {ARCHIVE}.",
            ),
            Mistake(
                "InstaVariety[._]*",
                "belongs to the list of videos: labels without images",
                f"Download {ARCHIVE}.",
            ),
        ),
        recording="video",
        # A user counted the records of the 273 files (issue 67 of the page). The number fits the
        # authors' script, which writes 50 a file.
        totals={"train": Totals(videos=13_601)},
    )
    added: ClassVar[Mapping[str, Any]] = {**ClipDataset.added, "fits": False}

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        columns = super().columns(split, body=body)
        if self.fits:
            columns += ("pose", "betas", "has_smpl")
        return columns

    def shared(self, raw: Path) -> dict[str, str]:
        if not self.fits:
            return {}
        with FitStore.open(raw / FILE) as store:
            return {"fits": store.digest}

    def origin(self, video: str) -> Origin:
        """The recording is the video's file name; unknown for records, which do not name it."""
        if not video.lower().endswith(VIDEOS):
            return Origin()
        return super().origin(video)

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        # By names only; unreadable shards are reported by `read`. A Mac leaves ._ files.
        shards = sorted((raw / split).glob("[!.]*.tfrecord"))
        names = [f"{split}/{clip}" for clip in list_clips(raw / split)]
        labels = ClipLabels(raw, names)
        videos = [labels.video(clip).raw_video() for clip in names]
        if not shards and not videos:
            actual = "none" if (raw / split).is_dir() else "no such folder"
            do = "Point the raw folder at the unpacked tfrecords."
            raise RawDataError(raw / split, "folder", "<shard>.tfrecord files", actual, do)
        for shard in shards:
            file = Path(split, shard.name)
            for i, span in enumerate(tfrecords.spans(shard)):
                videos.append(RawVideo(f"{split}/{shard.stem}/{i:05d}", files=(file,), span=span))
        return sorted(videos, key=lambda video: video.name)

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        if video.span is None:
            tracks = clip_tracks(self, raw, split, video, account, ANY_CLIP)
            if not self.fits:
                return tracks
            return [_add_empty_fits(track) for track in tracks]
        return self._read_record(raw, split, video, video.span, account)

    def _read_record(
        self, raw: Path, split: str, video: RawVideo, span: tuple[int, int], account: VideoAccount
    ) -> Sequence[Track]:
        """Read the track of a record. span: (start, stop) bytes in its shard."""
        start, stop = span
        source = RecordPictures(raw, video.files[0].as_posix(), start, stop - start)
        record = _Record(raw / video.files[0], video.name.rpartition("/")[2], source.features())
        n_frames = record.n_frames()
        account.found = n_frames
        sizes = _picture_sizes(record, source.pictures(), n_frames, account)
        kp_2d = _keypoints(record, n_frames, sizes, account)
        reasons = {
            "no_picture": np.isnan(sizes[:, 0]),
            "no_visible_joint": ~(kp_2d[..., 2] > 0).any(axis=1),
        }

        def fits_of(rows: Ints) -> dict[str, Array]:
            if not self.fits:
                return {}
            names = record.picture_names(n_frames)
            spin49 = convert(kp_2d[rows], source=self.name, target="spin49").astype(np.float32)
            return _match_fits(raw, [names[row] for row in rows.tolist()], spin49, account)

        hands = np.zeros((n_frames, len(HANDS), 3), np.float32) if self.hands else None
        # A box is the whole image, made square by its larger side: an image of 224 x 224 is its own
        # crop.
        side = sizes.max(axis=1, keepdims=True)
        return labelled_track(
            self,
            split,
            video,
            account,
            source,
            reasons=reasons,
            skeleton=self.name,
            kp_2d=kp_2d,
            bbox=np.concatenate([sizes / 2, side, side], axis=1),
            labels_of=fits_of,
            fps=math.nan,
            crop_scale=CROP_SCALE,
            kp_2d_hands=hands,
        )


def _match_fits(
    raw: Path, names: Sequence[str], kp_2d: Float32s, account: VideoAccount
) -> dict[str, Array]:
    """The `Track` fields `pose`, `betas` and `has_smpl` of frames with these image names."""
    with FitStore.open(raw / FILE) as store:
        fits, counts = store.match(names, kp_2d)
    parts = [f"{n} {kind}" for kind, n in sorted(counts.items())]
    account.note(f"fits: {', '.join(parts)}")
    return fits


def _add_empty_fits(track: Track) -> Track:
    """The track with fields for fits, which videos do not have."""
    n_frames = len(track.frame_index)
    pose = np.zeros((n_frames, N_POSE), np.float32)
    betas = np.zeros((n_frames, N_BETAS), np.float32)
    return replace(track, pose=pose, betas=betas, has_smpl=np.zeros(n_frames, np.bool_))


@dataclass(frozen=True, slots=True, eq=False)
class _Record:
    """The features of one record of a shard. Methods raise RawDataError for invalid ones."""

    file: Path
    number: str  # in the shard: "00007"
    features: Mapping[str, Any]  # parsed protobuf, read by `feature_values`

    def n_frames(self) -> int:
        """The number N of frames."""
        stored = self.values("meta/N", "int64_list", 1)
        if len(stored) != 1 or not 0 < stored[0] <= MAX_PICTURES:
            actual = ", ".join(f"{number:.0f}" for number in stored)
            raise self.error("meta/N", f"a number from 1 to {MAX_PICTURES}", f"[{actual}]")
        return int(stored[0])

    def picture_names(self, n_frames: int) -> list[str]:
        """Image name of each frame; "" if the record has none."""
        stored = self.values("image/filenames", "bytes_list", MAX_PICTURES)
        names = [picture_name(name.decode(errors="replace")) for name in stored]
        if len(names) != n_frames:
            return [""] * n_frames
        return names

    def array(self, key: str, shape: tuple[int, ...], kind: str = "float_list") -> Doubles:
        """The numbers of a feature, which must be exactly as many as this shape has."""
        n_values = math.prod(shape)
        stored = self.values(key, kind, n_values)
        if len(stored) != n_values:
            actual = str(len(stored))
            if key not in self.features:
                actual = f"only {shown_names(self.features)}"
            raise self.error(key, f"{n_values} numbers: {shape}", actual)
        return np.array(stored, np.float64).reshape(shape)

    def values(self, key: str, kind: str, most: int) -> Sequence[Any]:
        """Values of a feature, at most `most`; empty if it is missing (`feature_values`).

        kind: the protobuf list that stores them.
        """
        with reading(self.file, f"a {kind} of at most {most}", key=self.key(key), do=AGAIN):
            return feature_values(self.features, key, kind, most)

    def key(self, name: str) -> str:
        """A feature's name for messages."""
        return f"{name} of record {self.number}"

    def error(
        self, key: str, expected: str, found: str, reason: str = "bad_label_file"
    ) -> RawDataError:
        return RawDataError(self.file, self.key(key), expected, found, AGAIN, reason=reason)


def _picture_sizes(
    record: _Record, pictures: Sequence[bytes], n_frames: int, account: VideoAccount
) -> Doubles:
    """Width and height px of each frame's image, (n_frames, 2); NaN if it is missing or damaged.

    Raises RawDataError (`no_picture`) if no image can be read.
    """
    sizes = np.full((n_frames, 2), np.nan)
    problems = []
    for i, picture in enumerate(pictures[:n_frames]):
        try:
            sizes[i] = picture_size(picture)
        except PictureError as error:
            problems.append(f"picture {i} {error}")
    if np.isnan(sizes).all():
        actual = problems[0] if problems else f"none, as when {PHIS} alone were kept"
        raise record.error(PICTURES, f"{n_frames} images", actual, "no_picture")
    if problems:
        account.note(f"{len(problems)} pictures cannot be read, the first: {problems[0]}")
    if len(pictures) != n_frames:
        n_used = min(n_frames, len(pictures))
        account.note(
            f"{n_frames} frames are labelled, {len(pictures)} pictures are there: {n_used} used"
        )
    return sizes


def _keypoints(record: _Record, n_frames: int, sizes: Doubles, account: VideoAccount) -> Doubles:
    """Read the joints, (n_frames, 25, 3): x px, y px, confidence; zero where not seen.

    sizes: (n_frames, 2) width and height px of the images.
    """

    def optional(key: str, shape: tuple[int, ...]) -> Doubles:
        """Joints that some records do not have: zeros, so not seen."""
        if record.values(key, "float_list", math.prod(shape)):
            return record.array(key, shape)
        account.note(f"no {key}: {shape[-1]} joints are not annotated")
        return np.zeros(shape)

    xys = record.array("image/xys", (n_frames, 2, N_BODY))
    visible = record.array("image/visibilities", (n_frames, N_BODY), "int64_list")
    face = optional("image/face_pts", (n_frames, 3, N_FACE))
    toes = optional("image/toe_pts", (n_frames, 3, N_TOES))
    body = np.concatenate([xys, visible[:, None]], axis=1)
    kp_2d = np.concatenate([body, face, toes], axis=2).transpose(0, 2, 1)
    if PHIS in record.features:  # joints are in [-1, 1] across the image: convert them to px
        annotated = kp_2d.any(axis=-1, keepdims=True)
        kp_2d[..., :2] = np.where(annotated, (kp_2d[..., :2] + 1) * sizes[:, None] / 2, 0)
    kp_2d[np.isnan(sizes[:, 0])] = 0
    kp_2d = finite_joints(kp_2d, account)
    kp_2d[..., 2] = kp_2d[..., 2].clip(0, 1)
    return kp_2d
