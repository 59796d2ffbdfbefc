"""What a model says of each frame of a track, and files of it for other tools.  features -> windows -> [evaluation]

The network's part and the body's are two stages: an estimate (24 rotations, shape, camera) is small enough to be kept
for a whole track, and smoothing stands between the two. Memory does not grow with the number of tracks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from vibe_model import runs
from vibe_model.errors import DataError
from vibe_model.evaluation import smoothing
from vibe_model.evaluation.windows import EvalWindow, Present, select_tracks
from vibe_model.networks.generator import VIBE, Estimate

if TYPE_CHECKING:
    from cache import Split

Floats = NDArray[np.floating[Any]]
Float32s = NDArray[np.float32]
Ints = NDArray[np.int64]

POSED_AT_ONCE: Final = 64  # bodies: their vertices are 5 MB
UNITS: Final[Mapping[str, str]] = {
    "theta": "(F, 85): camera 3, pose 72 (axis times angle, rad), betas 10",
    "rotmat": "(F, 24, 3, 3): rotations relative to parents, the first one in the camera's axes",
    "pose": "(F, 72): axis times angle, rad",
    "betas": "(F, 10)",
    "camera": "(F, 3): scale, tx, ty of the weak perspective; [-1, 1] is the crop, the box times crop_scale",
    "camera_in_picture": "(F, 4): sx, sy, tx, ty of the weak perspective; [-1, 1] is the whole picture",
    "bbox": "(F, 4): centre x, centre y, width, height, px of the source's picture, without crop_scale",
    "frame_index": "(F,): the source's own frames, counted from 0",
    "run": "(F,): frames of equal number are neighbours, one step apart",
    "joints_3d": "(F, 49, 3): spin49, m, camera axes, without the camera's translation",
    "joints_2d": "(F, 49, 2): spin49, px of the source's picture",
}


@dataclass(frozen=True, slots=True, eq=False)
class TrackEstimate:
    """F frames of one track, in row order, as the network sees them."""

    track: Any  # cache.TrackRecord: name, video, start, stop, fps, step, crop_scale
    rows: Ints  # (F,) of the split
    run: Ints  # (F,) frames of equal number are neighbours, one step apart
    rotmat: Float32s  # (F, 24, 3, 3) relative to parents, the first one in the camera's axes
    shape: Float32s  # (F, 10) betas
    camera: Float32s  # (F, 3) scale, tx, ty: weak perspective in the crop

    def smoothed(self, sigma: float) -> TrackEstimate:
        """After a Gaussian filter in time of `sigma` frames; 0 changes nothing. Raises ConfigError as `smooth` does."""
        return replace(
            self,
            rotmat=smoothing.smooth_rotations(self.rotmat, self.run, sigma),
            shape=smoothing.smooth(self.shape, self.run, sigma),
            camera=smoothing.smooth(self.camera, self.run, sigma),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackPrediction:
    """F frames of one track, with what is needed to find them in the source's pictures."""

    name: str  # of the track
    rows: Ints  # (F,) of the split
    frame_index: Ints  # (F,) of the source, counted from 0
    run: Ints  # (F,) frames of equal number are neighbours, one step apart
    bbox: Float32s  # (F, 4) cxcywh px of the source's picture
    rotmat: Float32s  # (F, 24, 3, 3) relative to parents, the first one in the camera's axes
    shape: Float32s  # (F, 10) betas
    camera: Float32s  # (F, 3) scale, tx, ty: weak perspective in the crop
    crop_scale: float  # crop side / box side
    picture: tuple[int, int] | None = None  # width, height px of the source's pictures, where the cache knows them

    def __len__(self) -> int:
        return len(self.rows)


def predict_tracks(
    generator: VIBE,
    split: Split,
    *,
    stream: str,
    seqlen: int = 16,
    tracks: str = "*",
    batch_size: int = 16,
    drop_last: bool = False,
    smooth: float = 0.0,
) -> Iterator[TrackPrediction]:
    """Track by track, every frame with features once, in row order. A track without features is left out.

    seqlen: frames of a window; batch_size: windows at once. tracks: a pattern of track names. drop_last: each track's
    last frames are left out, as in the published protocol. smooth: sigma of a Gaussian in time, frames; 0: none.
    The generator is in evaluation mode meanwhile, and gets its mode back. Raises ConfigError for a bad `smooth`,
    DataError for predictions that are not finite.
    """
    plans = estimate_tracks(
        generator, split, stream=stream, seqlen=seqlen, tracks=tracks, batch_size=batch_size, ways=(drop_last,)
    )
    for (estimate,) in plans:
        if len(estimate.rows):
            yield located(estimate.smoothed(smooth), split)


def estimate_tracks(
    generator: VIBE,
    split: Split,
    *,
    stream: str,
    seqlen: int = 16,
    tracks: str = "*",
    batch_size: int = 16,
    ways: Sequence[bool] = (False,),
) -> Iterator[tuple[TrackEstimate, ...]]:
    """Every selected track, in row order, once for each of `ways` to cut it into windows (drop_last or not).

    A window that several ways have goes through the network once. Labels are not read. Raises DataError for predictions
    that are not finite.
    """
    present = Present.of(split, stream)
    chosen = select_tracks(split, tracks)
    plans = ((t, [present.windows(t, seqlen=seqlen, drop_last=way) for way in ways]) for t in chosen)
    for group in _groups(plans, batch_size):
        needed = {window[:2] for _, cuts in group for cut in cuts for window in cut}
        with _evaluating(generator):  # not across a yield: whoever takes the tracks may train in between
            found = _regress(generator, split, sorted(needed), stream, batch_size)
        for track, cuts in group:
            yield tuple(_of_track(track, cut, found, present) for cut in cuts)


def located(estimate: TrackEstimate, split: Split) -> TrackPrediction:
    """An estimate with its place in the source: frame numbers, boxes, size of the pictures."""
    track, rows = estimate.track, estimate.rows
    whole = [(track.start, track.stop)]
    read = split.read(np.array(whole, np.int64), stream=None, fields=("frame_index", "bbox"))
    here = rows - track.start
    return TrackPrediction(
        name=track.name,
        rows=rows,
        frame_index=read["frame_index"][0, here].astype(np.int64),
        run=estimate.run,
        bbox=read["bbox"][0, here].astype(np.float32),
        rotmat=estimate.rotmat,
        shape=estimate.shape,
        camera=estimate.camera,
        crop_scale=float(track.crop_scale),
        picture=_picture_size(split, track),
    )


def camera_in_picture(camera: Floats, bbox: Floats, picture: tuple[int, int], *, crop_scale: float) -> Float32s:
    """The weak-perspective camera of the whole picture, as overlays need it.

    camera: (F, 3) scale, tx, ty in the crop; bbox: (F, 4) cxcywh px; picture: width, height px; crop_scale: crop side /
    box side -> (F, 4) sx, sy, tx, ty: a point (x, y) m lands at sx (x + tx), sy (y + ty), [-1, 1] over the picture.
    """
    size = np.asarray(picture, np.float64)  # (2,)
    scale = camera[:, :1].astype(np.float64) * bbox[:, 2:] * crop_scale / size  # (F, 2)
    centre = 2 * bbox[:, :2].astype(np.float64) / size - 1  # (F, 2) of the crop, in the picture
    shift = camera[:, 1:].astype(np.float64) + np.divide(centre, scale, out=np.zeros_like(centre), where=scale != 0)
    return np.concatenate([scale, shift], axis=1).astype(np.float32)


def in_picture(points: Floats, bbox: Floats, *, crop_scale: float) -> Float32s:
    """(F, J, 2) in [-1, 1] over the crop, boxes (F, 4) cxcywh px -> (F, J, 2) px of the picture."""
    half = 0.5 * crop_scale * bbox[:, None, 2:].astype(np.float64)
    pixels: Float32s = (bbox[:, None, :2] + half * points).astype(np.float32)
    return pixels


def save_npz(
    folder: Path, prediction: TrackPrediction, generator: VIBE, *, about: Mapping[str, Any] | None = None
) -> Path:
    """One npz of a track, for other tools: float32 and int64 arrays as in UNITS, and `about`, a text of JSON.

    about: what is to be said of it beside name, units and whether it is a stand-in (of the body, unless given): the
    run's fingerprint, say. camera_in_picture is left out where the picture's size is not known. The file is exchanged
    atomically and holds no pickle. Returns its path: `folder` / `file_name`.
    """
    arrays = _arrays(prediction, generator)
    said = {
        "track": prediction.name,
        "stand_in": bool(generator.body.stand_in),
        "crop_scale": prediction.crop_scale,
        "picture": None if prediction.picture is None else list(prediction.picture),
        "units": {name: UNITS[name] for name in arrays},
        **(about or {}),
    }
    text = np.array(json.dumps(said, sort_keys=True, allow_nan=False))
    held: dict[str, Any] = {"about": text, **arrays}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(prediction.name)
    runs.replace_file(path, lambda stream: np.savez(stream, **held))
    return path


def file_name(track: str) -> str:
    """A name that any file system takes, and that no two tracks share, whatever case it ignores.

    >>> file_name("train/abseiling/x y/0")
    'train_abseiling_x_y_0-2906784860330344.npz'
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", track).strip("._-")[:80] or "track"
    return f"{readable}-{hashlib.sha256(track.encode()).hexdigest()[:16]}.npz"


def to_device(estimate: TrackEstimate | TrackPrediction, part: slice | Ints, device: torch.device) -> Estimate:
    """Some frames of a track as `VIBE.pose` takes them."""
    arrays = (estimate.rotmat[part], estimate.shape[part], estimate.camera[part])
    return Estimate(*(torch.as_tensor(array, device=device) for array in arrays))


def device_of(generator: VIBE) -> torch.device:
    """Where the model's parameters lie."""
    return next(generator.parameters()).device


def parts_of(n: int) -> Iterator[slice]:
    """Slices of at most POSED_AT_ONCE frames that cover n."""
    for start in range(0, n, POSED_AT_ONCE):
        yield slice(start, min(start + POSED_AT_ONCE, n))


def _groups(
    plans: Iterator[tuple[Any, list[list[EvalWindow]]]], batch_size: int
) -> Iterator[list[tuple[Any, list[list[EvalWindow]]]]]:
    """Tracks put together until they fill a batch: many are shorter than one."""
    group: list[tuple[Any, list[list[EvalWindow]]]] = []
    held = 0
    for plan in plans:
        group.append(plan)
        held += max(map(len, plan[1]), default=0)
        if held >= batch_size:
            yield group
            group, held = [], 0
    if group:
        yield group


@contextmanager
def _evaluating(generator: VIBE) -> Iterator[None]:
    mode = generator.training
    generator.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        generator.train(mode)


def _regress(
    generator: VIBE, split: Split, windows: Sequence[tuple[int, int]], stream: str, batch_size: int
) -> dict[tuple[int, int], list[Float32s]]:
    """rotmat, shape, camera of each window's frames, (T, ...) each; windows of one length go together."""
    device = device_of(generator)
    found: dict[tuple[int, int], list[Float32s]] = {}
    by_length = sorted(windows, key=lambda window: window[1] - window[0])
    for _, same in groupby(by_length, key=lambda window: window[1] - window[0]):
        ranges = list(same)
        for first in range(0, len(ranges), batch_size):
            batch = ranges[first : first + batch_size]
            features = split.read(np.array(batch, np.int64), stream=stream, fields=("features",))["features"]
            estimate = generator.regress(torch.as_tensor(features, device=device))
            arrays = [part.float().cpu().numpy() for part in estimate]
            found |= {window: [array[i] for array in arrays] for i, window in enumerate(batch)}
    return found


def _of_track(
    track: Any, windows: Sequence[EvalWindow], found: Mapping[tuple[int, int], list[Float32s]], present: Present
) -> TrackEstimate:
    kept = [np.arange(window.keep, window.stop) for window in windows]
    rows = np.concatenate([*kept, np.zeros(0, np.int64)]).astype(np.int64)
    empty = [np.zeros((0, *trailing), np.float32) for trailing in ((24, 3, 3), (10,), (3,))]
    parts = [[array[window.keep - window.start :] for array in found[window[:2]]] for window in windows]
    rotmat, shape, camera = (np.concatenate(arrays) for arrays in zip(empty, *parts, strict=True))
    if not all(np.isfinite(array).all() for array in (rotmat, shape, camera)):
        raise DataError(
            f"{track.name}: expected finite predictions, found NaN or infinity. The checkpoint or the features are "
            "damaged, or training diverged: take an earlier checkpoint, and verify the cache."
        )
    return TrackEstimate(track, rows, present.runs(rows), rotmat, shape, camera)


def _picture_size(split: Split, track: Any) -> tuple[int, int] | None:
    number = int(split.track_of(np.array([track.start]))[0])
    video = split.videos[int(split.tracks.video[number])]
    return (video.width, video.height) if video.width > 0 and video.height > 0 else None


def _arrays(prediction: TrackPrediction, generator: VIBE) -> dict[str, NDArray[Any]]:
    theta, joints_3d, kp_2d = (np.concatenate(parts) for parts in zip(*_posed(prediction, generator), strict=True))
    box, scale = prediction.bbox, prediction.crop_scale
    arrays: dict[str, NDArray[Any]] = {
        "theta": theta,
        "rotmat": prediction.rotmat,
        "pose": theta[:, 3:75],
        "betas": prediction.shape,
        "camera": prediction.camera,
        "bbox": box,
        "joints_3d": joints_3d,
        "joints_2d": in_picture(kp_2d, box, crop_scale=scale),
    }
    if prediction.picture is not None:
        arrays["camera_in_picture"] = camera_in_picture(prediction.camera, box, prediction.picture, crop_scale=scale)
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    return arrays | {"frame_index": prediction.frame_index, "run": prediction.run}


def _posed(prediction: TrackPrediction, generator: VIBE) -> Iterator[tuple[Float32s, Float32s, Float32s]]:
    """theta (N, 85), joints (N, 49, 3) m, keypoints (N, 49, 2) in the crop, of some frames at a time."""
    device = device_of(generator)
    yield np.zeros((0, 85), np.float32), np.zeros((0, 49, 3), np.float32), np.zeros((0, 49, 2), np.float32)
    for part in parts_of(len(prediction)):
        with torch.no_grad():
            out = generator.pose(to_device(prediction, part, device), eval_joints=False, vertices=False)
        yield tuple(out[name].float().cpu().numpy() for name in ("theta", "kp_3d", "kp_2d"))  # type: ignore[misc]
