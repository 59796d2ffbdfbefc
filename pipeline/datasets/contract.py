"""What every reader promises, checked on what it read.  [raw -> tracks] -> features -> windows

For our readers and those of other packages alike: `reader_problems` is what a new dataset is tested with
(docs/adding-a-dataset.md). Whether left is left only somebody who looks at pictures can say.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.datasets.base import Dataset, RawVideo
from pipeline.datasets.defects import unexpected
from pipeline.datasets.gross_mistakes import GrossMistakes
from pipeline.datasets.opened import Opened, watched
from pipeline.errors import RawDataError
from pipeline.pixels import sources
from pipeline.pixels.frames import FrameSource, Pictures
from pipeline.skeletons import JOINTS
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

PIXELS: Final = ("bbox", "kp_2d")
LABELS: Final = ("kp_3d", "kp_3d_eval", "pose", "betas", "trans")
FLAGS: Final = ("has_3d", "has_smpl", "valid")
COLUMNS: Final = ("frame_index", *PIXELS, *LABELS, *FLAGS)
GENDERS: Final = ("neutral", "male", "female")
PELVIS: Final = JOINTS["spin49"].index("hip")
MAX_CROP_SCALE: Final = 10.0
PICTURES: Final = (".jpg", ".jpeg", ".png")


def reader_problems(dataset: Dataset, raw: Path, split: str, body: Body | None = None) -> list[str]:
    """Read a whole split twice; say in words which promises its reader broke. Empty: none.

    A video that its reader sets aside with RawDataError breaks none; one on which it fails otherwise does. Of each
    track's pictures the first is decoded. Holds all track names, and the tracks of one video at a time. Raises what
    `videos` raises. Watches what this process opens below `raw`, so nothing else should at the same time.
    """
    listed, again = (list(dataset.videos(raw, split)) for _ in range(2))
    problems = list(_listing_problems(listed, again))
    names: set[str] = set()
    frames = GrossMistakes()
    for video in listed:
        problems += _video_problems(dataset, raw, split, video, body, names, frames)
    return [*problems, *(f"{split}: {problem}" for problem in frames.frame_problems())]


def track_problems(track: Track, columns: Sequence[str]) -> list[str]:
    """What is wrong with one track whose reader declares `columns`."""
    filled = {name: values for name in COLUMNS if (values := getattr(track, name)) is not None}
    problems = []
    if filled.keys() != set(columns):
        problems.append(f"fills the columns {sorted(filled)}, and declares {sorted(columns)}")
    if not 0 < track.crop_scale < MAX_CROP_SCALE:
        problems.append(f"crop_scale is {track.crop_scale}")
    if track.fps <= 0 or np.isinf(track.fps):
        problems.append(f"fps is {track.fps}; where the release does not say, it is nan")
    if track.gender not in GENDERS:
        problems.append(f"gender is {track.gender!r}, none of {', '.join(GENDERS)}")
    if track.intrinsics is not None and (track.intrinsics.shape != (3, 3) or not np.isfinite(track.intrinsics).all()):
        problems.append(f"intrinsics are {track.intrinsics!r}")
    if (track.frames is None) != (track.bbox is None):
        problems.append("has boxes without pictures, or pictures without boxes")
    return [f"{track.name}: {problem}" for problem in (*problems, *column_problems(filled))]


def column_problems(columns: Mapping[str, NDArray[Any]]) -> list[str]:
    """What is wrong with a track's arrays, by the meaning that each column has (docs/cache-format.md)."""
    problems = []
    for name in (*PIXELS, *LABELS):
        if name in columns and columns[name].dtype != np.float32:
            problems.append(f"{name} is {columns[name].dtype}, not float32")
        if name in columns and not np.isfinite(_known(columns, name)).all():
            problems.append(f"{name} holds NaN or infinity")
    if columns["frame_index"].dtype.kind not in "iu":
        problems.append(f"frame_index is {columns['frame_index'].dtype}")
    flags = [name for name in FLAGS if name in columns and not np.isin(columns[name], (0, 1)).all()]
    problems += [f"{name} is neither true nor false everywhere" for name in flags]
    return [*problems, *_pixel_problems(columns), *_body_problems(columns)]


def _known(columns: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """The rows of a column that the split's flags call known."""
    flag = columns.get("has_3d" if name.startswith("kp_3d") else "has_smpl" if name in ("pose", "betas") else "")
    return columns[name] if flag is None else columns[name][flag.astype(bool)]


def _pixel_problems(columns: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    if "bbox" in columns:
        side = columns["bbox"][:, 2:]
        if not (side > 0).all():
            yield "bbox has a side of 0 or less"
        if (side[:, 0] != side[:, 1]).any():
            yield "bbox is not square"
    if "kp_2d" in columns:
        yield from _confidence_problems("kp_2d", columns["kp_2d"])
        if not (columns["kp_2d"][..., 2] > 0).any(axis=1).all():
            yield "kp_2d has a frame without a visible joint"


def _body_problems(columns: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    if "kp_3d" in columns:
        kp_3d = _known(columns, "kp_3d")
        yield from _confidence_problems("kp_3d", kp_3d)
        if kp_3d[:, PELVIS, :3].any():
            yield "kp_3d has its pelvis (joint 39, hip) elsewhere than at 0"
    for flag, labels in (("has_3d", ("kp_3d", "kp_3d_eval")), ("has_smpl", ("pose", "betas"))):
        if (flag in columns) != any(name in columns for name in labels):
            yield f"{flag} goes with {' or '.join(labels)}: one is there without the other"


def _confidence_problems(name: str, keypoints: NDArray[Any]) -> Iterator[str]:
    confidence = keypoints[..., -1]
    if ((confidence < 0) | (confidence > 1)).any():
        yield f"{name} has a confidence outside [0, 1]"


def _listing_problems(listed: Sequence[RawVideo], again: Sequence[RawVideo]) -> Iterator[str]:
    names = [video.name for video in listed]
    if names != sorted(names):
        yield "videos() is not sorted by name"
    if len(set(names)) != len(names):
        yield "videos() lists a name twice"
    if listed != again:
        yield "videos() lists something else the second time"
    for video in listed:
        if any(path.is_absolute() for path in (*video.files, *video.folders, *video.label_folders)):
            yield f"{video.name}: its files and folders are not below the raw folder"


def _video_problems(
    dataset: Dataset, raw: Path, split: str, video: RawVideo, body: Body | None, names: set[str], frames: GrossMistakes
) -> Iterator[str]:
    failed, read = "", []
    with watched(raw) as opened:
        try:
            read = [dataset.read_accounted(raw, split, video, body) for _ in range(2)]
        except Exception as error:  # conversion would set the video aside, whatever it is
            failed = unexpected(error)
    yield from (f"{video.name}: {problem}" for problem in _opening_problems(raw, video, opened))
    if failed:
        yield f"{video.name}: {failed}"
        return
    (tracks, account), (again, account_again) = read
    if account.as_dict() != account_again.as_dict() or len(tracks) != len(again):
        yield f"{video.name}: is accounted for otherwise when it is read again"
    yield from _account_problems(tracks, account)
    columns = dataset.columns(split, body=body is not None)
    for track, other in zip(tracks, again, strict=False):
        if (track.dataset, track.split, track.video) != (dataset.name, split, video.name):
            yield f"{track.name}: says that it is of {track.dataset}/{track.split}, video {track.video}"
        if not track.name.startswith(f"{video.name}/") or track.name in names:
            yield f"{track.name}: is not called <video>/<person>, or a second track is"
        names.add(track.name)
        frames.add(track)
        yield from track_problems(track, columns)
        yield from (f"{track.name}: {name} differs when it is read again" for name in _differences(track, other))
        if track.frames is not None:
            pixels = (*_place_problems(raw, video, track.frames), *_source_problems(raw, track, track.frames))
            yield from (f"{track.name}: {problem}" for problem in pixels)


def _named(paths: Sequence[Path]) -> set[str]:
    return {os.path.normpath(path) for path in paths}


def _opening_problems(raw: Path, video: RawVideo, opened: Opened) -> Iterator[str]:
    """What the tracks depend on, and nobody would ask whether it has changed.

    What is not there counts for nothing: `videos` may name it as soon as it is.
    """
    files, folders, labels = (_named(paths) for paths in (video.files, video.folders, video.label_folders))
    for file in sorted(file for file in opened.files - files if (raw / file).exists()):
        folder, suffix = str(Path(file).parent), Path(file).suffix.lower()
        if folder in folders - labels and suffix not in PICTURES:
            yield f"reads {file}, of whose folder only names and sizes count: name it in label_folders"
        elif folder not in folders | labels:
            yield f"reads {file}, which videos() does not name"
    for folder in sorted(folder for folder in opened.folders - folders - labels if (raw / folder).exists()):
        yield f"lists the folder {folder}, which videos() does not name"


def _place_problems(raw: Path, video: RawVideo, source: FrameSource) -> Iterator[str]:
    place = os.path.relpath(source.place, raw)
    if place not in _named((*video.files, *video.folders, *video.label_folders)):
        yield f"has its pixels in {place}, which videos() does not name"


def _account_problems(tracks: Sequence[Track], account: VideoAccount) -> Iterator[str]:
    kept = sum(len(track.frame_index) for track in tracks)
    if (account.kept, account.tracks_kept) != (kept, len(tracks)):
        told = f"{account.kept} frames in {account.tracks_kept} tracks"
        yield f"{account.name}: its account says {told}; {kept} in {len(tracks)} were given"
    if account.other_split and account.found:
        yield f"{account.name}: is of another split, and has frames in this one"


def _differences(track: Track, again: Track) -> Iterator[str]:
    for name in COLUMNS:
        one, other = getattr(track, name), getattr(again, name)
        if (one is None) != (other is None) or (one is not None and not np.array_equal(one, other, equal_nan=True)):
            yield name
    if track.name != again.name or track.frames != again.frames:
        yield "name or frames"


def _source_problems(raw: Path, track: Track, source: FrameSource) -> Iterator[str]:
    if sources.parse(raw, source.spec) != source or pickle.loads(pickle.dumps(source)) != source:  # noqa: S301 - our own bytes
        yield f"its pixel source {source.spec!r} does not survive being written down"
    if isinstance(source, Pictures):
        absent = track.frame_index[~np.isin(track.frame_index, source.indices())]
        if len(absent):
            yield f"{len(absent)} of its frames have no picture, the first would be {source.path(int(absent[0])).name}"
    try:
        size, first = source.size(), int(track.frame_index[0])
    except RawDataError as error:
        yield f"its pixel source cannot be used: {error}"
        return
    frames = list(source.read([first]))
    if [frame.index for frame in frames] != [first]:
        yield f"its pixel source gives frames {[frame.index for frame in frames]} for frame {first}"
    for frame in frames:
        if frame.image is not None and frame.image.shape != (size[1], size[0], 3):
            yield f"frame {frame.index} is {frame.image.shape}, and the source's size {size}"
