"""Bodies on a new video: tracks, features, bodies, and files of them.  raw -> tracks -> features -> windows -> [bodies]

The steps are those of training data, on a small cache of the video's own: a reader (`pipeline.datasets.new_video`),
conversion, extraction, and the model on windows. A step whose output is up to date is not run again.

    <out>/cache/            the small cache
    <out>/bodies/*.npz      a file a track
    <out>/overlay.mp4       the bodies over the frames
    <out>/predictions.json  what the files are and were made with; written last
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np

import cache
from pipeline.cli.progress import Progress
from pipeline.cli.text import count
from pipeline.conversion import convert
from pipeline.conversion.convert import Conversion
from pipeline.datasets.new_video import NewVideo, raw_folder
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import extract
from pipeline.features.extract import Extraction
from pipeline.features.plan import compare_stream, plan_extraction, refuse_untrained
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.base import Machine
from pipeline.features.streams.loaded import Precision
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.pixels import sources
from pipeline.pixels.frames import FrameSource, Video
from pipeline.raw.stand_in import is_stand_in
from pipeline.settings.targets import stream_named
from tasks.prediction.overlay import STAND_IN, PredictedBodies, write_overlay
from tasks.settings import settings
from vibe_model import runs
from vibe_model.prediction.predict import file_name, predict_tracks, save_npz
from vibe_model.prediction.trained import Trained

CACHE: Final = "cache"
BODIES: Final = "bodies"
OVERLAY: Final = "overlay.mp4"
SUMMARY: Final = "predictions.json"


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be predicted, with what, into which folder."""

    reader: NewVideo
    raw: Path
    trained: Trained
    streams: tuple[StreamSpec, ...]  # the last one is the model's; before it, what that is computed from
    out: Path
    stand_in: bool

    @property
    def root(self) -> Path:
        return self.out / CACHE

    @property
    def name(self) -> str:
        """The split's, in the small cache."""
        return f"{self.reader.name}/{self.reader.split}"

    @property
    def stream(self) -> StreamSpec:
        return self.streams[-1]

    def split(self) -> cache.Split:
        return cache.open(self.root)[self.name]

    def source(self) -> FrameSource:
        return sources.parse(self.raw, self.split().videos[0].source)


@dataclass(frozen=True, eq=False)
class Predicted:
    """All bodies, and the files that they are in."""

    bodies: PredictedBodies
    tracks: tuple[Mapping[str, Any], ...]  # name, file, frames, first and last frame of each


def job(video: Path, trained: Trained, streams: Sequence[StreamSpec], out: Path, labels: Mapping[str, Any]) -> Job:
    """Check all that can be known before minutes of work.

    labels: what `NewVideo.of` takes. Raises ConfigError, RawDataError for what is no video, StandInMixed, and DataError
    for features of another size than the model's.
    """
    reader, raw = NewVideo.of(video, **labels), raw_folder(video)
    source = reader.source(raw.resolve())
    if isinstance(source, Video):
        source.require_decodable()  # before anything is reported about what fits the model
    model = {f"the body of {trained.checkpoint}": bool(trained.generator.body.stand_in)}
    stand_in = runs.one_kind({f"the video {video}": is_stand_in(raw), **model})
    placed = tuple(spec.at(raw) for spec in streams)
    refuse_untrained(placed[-1], raw, "the features' weights")
    trained.check_features(f"stream {placed[-1].name!r}", placed[-1].stream.dim)
    return Job(reader, raw, trained, placed, out, stand_in or placed[-1].stream.stand_in)


def named_streams(weights: str | None, precision: Precision | None, device: str) -> tuple[StreamSpec, ...]:
    """The network by options, or by [features] of luigi.cfg where no weights are named. Raises ConfigError."""
    if weights is not None:
        stream = stream_named(ResNet50.kind, weights, precision, {})
        return (StreamSpec(stream=stream, resources=Resources(Machine(device))),)
    found = [spec for spec in (settings().crops, settings().stream) if spec is not None]
    if precision is not None:
        last = found[-1].stream
        if not isinstance(last, ResNet50):
            raise ConfigError(f"--precision goes with {ResNet50.kind}; [features] of luigi.cfg names {last.kind}")
        found[-1] = replace(found[-1], stream=ResNet50(weights=last.weights, precision=precision))
    if device == "auto":
        return tuple(found)
    return tuple(
        replace(spec, resources=replace(spec.resources, machine=replace(spec.resources.machine, device=device)))
        for spec in found
    )


def make_tracks(job: Job, progress: Progress) -> Conversion | None:
    """Video and labels -> tracks; None where they are up to date. Raises PipelineError where no person is left."""
    plan = convert.plan_conversion(job.reader, job.reader.split, raw=job.raw, root=job.root)
    done = None if plan.up_to_date else convert.convert(plan, progress=progress)
    account = job.split().videos[0].account
    if account["set_aside"]:
        raise PipelineError(account["message"])
    if not account["kept"]:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in account["dropped"].items())
        found = f"of {count(account['found'], 'person-frame')}, {reasons}" if reasons else "no person was found"
        raise PipelineError(
            f"{job.reader.keypoints or job.reader.boxes}: no person is left to predict: {found}. Look at the "
            f"detections, or take tracks of fewer than {count(job.reader.min_frames, 'frame')}: --min-frames."
        )
    return done


def make_features(job: Job, progress: Progress) -> Extraction | None:
    """Tracks -> features; None where they are up to date.

    Raises DataError for features of another network than the model was trained on.
    """
    done = None
    for spec in job.streams:
        plan = compare_stream(job.split(), spec)
        if plan.differs:  # by an earlier command with another network: nothing else uses this cache
            plan = plan_extraction(job.root, job.name, spec, replace=True)
        if spec is job.stream:
            job.trained.check_features(f"stream {spec.name!r}", spec.stream.dim, plan.identity)
        if not plan.up_to_date:
            done = extract.extract(plan, progress=progress)
    return done


def warnings(job: Job) -> list[str]:
    """Reasons to doubt the bodies."""
    found = []
    weights = job.stream.stream.weights if isinstance(job.stream.stream, ResNet50) else None
    published = job.trained.kind in ("vibe", "spin")
    if published and not job.stand_in and (weights is None or weights.kind != "spin"):
        found.append(f"{job.trained.checkpoint.name} was trained on SPIN's features, and these are {job.stream}")
    if job.trained.kind == "ours" and job.trained.features is None:
        found.append(f"{job.trained.checkpoint.name} does not record which features it was trained on")
    return found


def make_bodies(job: Job, *, smooth: float, batch_size: int, progress: Progress) -> Predicted:
    """Features -> bodies, an npz a track. Memory does not grow with the length of the video."""
    (job.out / SUMMARY).unlink(missing_ok=True)  # not true from here on until it is written again
    (job.out / OVERLAY).unlink(missing_ok=True)
    split, folder, bodies = job.split(), job.out / BODIES, PredictedBodies(job.out)
    total = split.manifest["accounting"]["frames"]["kept"]
    about = _about(job, smooth)
    tracks = []
    generator, seqlen = job.trained.generator, job.trained.config.seqlen
    for (raw,) in predict_tracks(generator, split, stream=job.stream.name, seqlen=seqlen, batch_size=batch_size):
        if not len(raw):  # none of its frames could be decoded
            continue
        of_track = raw.smoothed(smooth)
        file = save_npz(folder, of_track, generator, about=about)
        bodies.add(of_track)
        first, last = (int(of_track.frame_index[i]) for i in (0, -1))
        facts = {"frames": len(of_track), "first": first, "last": last}
        tracks.append({"name": of_track.track.name, "file": f"{BODIES}/{file.name}", **facts})
        progress(len(bodies), total, "frames")
    _remove_others(folder, {str(track["file"]).rpartition("/")[2] for track in tracks})
    if not tracks:
        raise PipelineError(f"{job.reader.video}: no frame with a person in it could be decoded: nothing is predicted")
    return Predicted(bodies, tuple(tracks))


def make_overlay(job: Job, predicted: Predicted, *, fps: float | None, progress: Progress) -> int:
    """Bodies over the frames: `<out>/overlay.mp4`. Returns how many frames it has."""
    file, generator = job.out / OVERLAY, job.trained.generator
    text = STAND_IN if job.stand_in else ""
    return write_overlay(file, job.source(), predicted.bodies, generator, fps=fps, text=text, progress=progress)


def write_summary(job: Job, predicted: Predicted, *, smooth: float, overlay_fps: float | None) -> dict[str, Any]:
    """Write predictions.json: what is in the folder, and what it was made from and with. Return its content."""
    split = job.split()
    video, fps = split.videos[0], float(np.atleast_1d(split.tracks.fps)[0])
    summary = {
        **_about(job, smooth),
        "picture": [video.width, video.height],
        "fps": fps if math.isfinite(fps) else None,
        "accounting": video.account,
        "tracks": list(predicted.tracks),
        "overlay": None if overlay_fps is None else {"file": OVERLAY, "fps": overlay_fps},
    }
    runs.write_json(job.out / SUMMARY, summary)
    return summary


def _about(job: Job, smooth: float) -> dict[str, Any]:
    """What every file records of where it comes from."""
    identity = job.split().stream_manifest(job.stream.name)["identity"]
    labels = Path(job.reader.keypoints or job.reader.boxes).name
    return {
        "video": Path(job.reader.video).name,
        "people": {"from": job.reader.split, "named": labels},
        "stand_in": job.stand_in,
        "checkpoint": job.trained.about,
        "body_sha256": job.trained.generator.body.digest,
        "features": dict(identity),
        "seqlen": job.trained.config.seqlen,
        "smooth": smooth,
    }


def _remove_others(folder: Path, current: set[str]) -> None:
    """Delete files of tracks that only an earlier command, with other labels, had. Files of the user stay."""
    for file in folder.glob("*.npz"):
        try:
            with np.load(file) as arrays:
                track = json.loads(str(arrays["about"]))["track"]
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile):
            continue
        if file.name not in current and file_name(str(track)) == file.name:
            file.unlink()
