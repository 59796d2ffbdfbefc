"""Bodies of all videos of a split, and files of them.  features -> windows -> [bodies]

    <out>/bodies/*.npz         a file a person
    <out>/motions/*.npz        the same for Blender
    <out>/overlay.mp4          the bodies over the frames; of several videos overlays/*.mp4
    <out>/predictions.json     what the files are and were made with; written last

One video after the other is predicted and drawn: memory and disk grow neither with their number nor with their length.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

import cache
from pipeline.cli.progress import Progress
from pipeline.errors import PipelineError
from pipeline.features.pixel_sources import raw_folder
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import FrameSource
from vibe_extensions.clips.prediction.drawing import PredictedBodies
from vibe_extensions.clips.prediction.job import PredictionJob
from vibe_extensions.clips.prediction.motions import write_motion
from vibe_extensions.clips.prediction.overlay import write_overlay
from vibe_extensions.pages.show.clip import DEMO_MARK, rate_of
from vibe_extensions.pages.video_file import DEFAULT_FPS
from vibe_model import runs
from vibe_model.prediction.predict import TrackBodies, file_name, predict_tracks, save_npz
from vibe_model.prediction.windows import select_tracks

BODIES: Final = "bodies"
MOTIONS: Final = "motions"
OVERLAY: Final = "overlay"  # of one video; of several: a file in a folder
OVERLAYS: Final = "overlays"
SUMMARY: Final = "predictions.json"


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """What is made, and how."""

    smooth: float = 0.0  # sigma of a Gaussian over time, in frames
    tracks: str = "*"  # a pattern of names
    overlay: bool = True
    export: bool = False


@dataclass(slots=True)
class PredictedVideos:
    """What has been made, in numbers, and what failed."""

    tracks: int = 0
    bodies: int = 0  # person-frames
    frames: int = 0  # of overlays
    drawing: float = 0.0  # s
    problems: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)  # the content of predictions.json


def predict_videos(job: PredictionJob, options: PredictionOptions, progress: Progress) -> PredictedVideos:
    """All that the options name, and predictions.json.

    A video that cannot be drawn costs its overlay. Raises PipelineError where nothing at all is predicted, and where
    the pictures to draw on are not where they were.
    """
    _remove_earlier(job.out)
    split, predicted = job.split(), PredictedVideos()
    about = _about(job, split, options)
    predicted.summary = about | {"videos": []}
    pictures = raw_folder(split, job.raw) if options.overlay else None
    chosen = select_tracks(split, options.tracks)
    total = sum(track.stop - track.start for track in chosen)
    n_videos = len({track.video for track in chosen})
    for number, tracks in itertools.groupby(_bodies(job, split, options), key=lambda found: found[0]):
        entry = split.videos[number]
        facts = {"video": entry.name, "picture": [entry.width, entry.height], "accounting": entry.account}
        bodies, rows = PredictedBodies(job.out, job.trained.generator.steps), []
        for _, track in tracks:
            rows.append(_write(job, track, options, about | {"video": entry.name}))
            bodies.add(track)
            predicted.bodies += len(track)
            progress(predicted.bodies, total, entry.name)
        fps = bodies.fps if math.isfinite(bodies.fps) else None
        predicted.summary["videos"].append({**facts, "fps": fps, "tracks": rows, "overlay": None})
        predicted.tracks += len(rows)
        if pictures is not None:
            file = job.out / (OVERLAY if n_videos == 1 else f"{OVERLAYS}/{file_name(entry.name)}")
            _draw(job, predicted, file, sources.parse(pictures, entry.source), bodies)
    if not predicted.tracks:
        raise PipelineError(f"{job.name}: no frame with a person in it could be decoded: nothing is predicted")
    runs.write_json(job.out / SUMMARY, predicted.summary)
    return predicted


def _bodies(job: PredictionJob, split: cache.Split, options: PredictionOptions) -> Iterator[tuple[int, TrackBodies]]:
    """Number of the video, and the bodies of one person in it."""
    trained = job.trained
    predictions = predict_tracks(
        trained.generator,
        split,
        stream=job.stream,
        extra_streams=trained.config.extra_streams,
        seqlen=trained.config.seqlen,
        tracks=options.tracks,
        around=True,
        stills=True,
    )
    for (bodies,) in predictions:
        if len(bodies):  # else none of its frames could be decoded
            track = int(split.track_of(np.array([bodies.track.start]))[0])
            yield int(split.tracks.video[track]), bodies.smoothed(options.smooth)


def _write(
    job: PredictionJob, bodies: TrackBodies, options: PredictionOptions, about: Mapping[str, Any]
) -> dict[str, Any]:
    """The files of one person, and what predictions.json has of them."""
    generator = job.trained.generator
    file = save_npz(job.out / BODIES, bodies, generator, about=about)
    first, last = (int(bodies.frame_index[i]) for i in (0, -1))
    facts = {"name": bodies.track.name, "file": f"{BODIES}/{file.name}"}
    if options.export:
        fps = bodies.track.fps if math.isfinite(bodies.track.fps) else DEFAULT_FPS
        facts["motion"] = f"{MOTIONS}/{write_motion(job.out / MOTIONS, bodies, generator.body, fps).name}"
    return {**facts, "frames": len(bodies), "first": first, "last": last}


def _draw(job: PredictionJob, made: PredictedVideos, file: Path, source: FrameSource, bodies: PredictedBodies) -> None:
    """The overlay of the last video of `made`."""
    began, text = time.monotonic(), DEMO_MARK if job.stand_in else ""
    try:
        drawn, n_frames = write_overlay(file, source, bodies, job.trained.generator, text=text)
    except PipelineError as error:
        made.problems.append(str(error))
        return
    made.frames += n_frames
    made.drawing += time.monotonic() - began
    made.summary["videos"][-1]["overlay"] = {"file": drawn.relative_to(job.out).as_posix(), "fps": rate_of(source)}


def _about(job: PredictionJob, split: cache.Split, options: PredictionOptions) -> dict[str, Any]:
    """What every file records of where it comes from."""
    return {
        "split": job.name,
        "stand_in": job.stand_in,
        "checkpoint": job.trained.about,
        "body_sha256": job.trained.generator.body.digest,
        "features": dict(split.stream_manifest(job.stream).get("identity") or {}),
        "seqlen": job.trained.config.seqlen,
        "steps": list(job.trained.generator.steps),
        "smooth": options.smooth,
    }


def _remove_earlier(out: Path) -> None:
    """Delete what an earlier command made here and listed. Files of the user stay."""
    try:
        videos = json.loads((out / SUMMARY).read_bytes())["videos"]
        listed = [row.get(key) for video in videos for row in video["tracks"] for key in ("file", "motion")]
        listed += [video["overlay"]["file"] for video in videos if video["overlay"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        listed = []
    (out / SUMMARY).unlink(missing_ok=True)  # not true from here on until it is written again
    for name in filter(None, listed):
        file = out / str(name)
        if file.resolve().is_relative_to(out.resolve()):
            file.unlink(missing_ok=True)
