"""Predict the bodies of all videos of a split, and write files.  features -> windows -> [bodies]

    <out>/bodies/*.npz         one file per person
    <out>/motions/*.npz        the same for Blender
    <out>/overlay.mp4          the bodies over the frames; for several videos overlays/*.mp4
    <out>/predictions.json     list of the files, and how they were made; written last

`predict_videos` is called by `tasks predict`, with a job of `prediction.job`. It handles one video
at a time, so memory does not grow with the number of videos: `_predict_people` is a generator, and
predicts the next track when the files of the one before are written.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import cache
from pipeline.cli.progress import Progress
from pipeline.errors import PipelineError
from pipeline.features.inputs import raw_folder
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import FrameSource
from pipeline.files.places import file_name
from pipeline.show.clip import DEMO_MARK, rate_of
from pipeline.show.video_file import DEFAULT_FPS
from vibe_model.prediction.job import PredictionJob
from vibe_model.prediction.motions import write_motion
from vibe_model.prediction.overlay import PredictedBodies, write_overlay
from vibe_model.prediction.predict import TrackBodies, predict_tracks, save_npz
from vibe_model.prediction.windows import select_tracks
from vibe_model.runs import write_json

BODIES: Final = "bodies"
MOTIONS: Final = "motions"
OVERLAY: Final = "overlay.mp4"  # of a single video
OVERLAYS: Final = "overlays"
SUMMARY: Final = "predictions.json"


class _PredictedVideos(NamedTuple):
    """What was predicted and written."""

    tracks: int
    bodies: int  # person-frames
    frames: int  # frames of all overlays
    problems: list[str]  # why overlays are missing
    summary: dict[str, Any]  # the content of predictions.json


def predict_videos(job: PredictionJob, progress: Progress) -> _PredictedVideos:
    """Write all files that the job asks for, and predictions.json. Deletes those of an earlier job
    when the first bodies are predicted.

    A video that cannot be drawn gets no overlay; the reason is added to `problems`. Raises
    PipelineError if nothing is predicted, and if the raw folder of the overlays' images is missing.
    """
    split = job.split()
    about = _about(job, split)
    raw = None
    if job.overlay:
        raw = raw_folder(split, job.raw)
    chosen = select_tracks(split, job.tracks)
    n_rows = sum(track.stop - track.start for track in chosen)
    n_videos = len({track.video for track in chosen})

    people = _predict_people(job, split, chosen)
    first = next(people, None)
    if first is None:
        raise PipelineError(
            f"{job.name}: no frame with a person could be decoded, so nothing is predicted"
        )
    _remove_previous_files(job.out)

    n_tracks = 0
    n_bodies = 0
    n_frames = 0
    problems = []
    videos = []
    people = itertools.chain([first], people)
    # people of one video follow one another
    by_video = itertools.groupby(people, functools.partial(_video_number, split))
    for number, people_of_video in by_video:
        entry = split.videos[number]
        overlay_bodies = PredictedBodies(job.out, job.trained.generator.steps)
        rows = []
        for bodies in people_of_video:
            rows.append(_write_person(job, bodies, entry, about))
            overlay_bodies.add(bodies)
            n_bodies += len(bodies)
            progress(n_bodies, n_rows, entry.name)
        n_tracks += len(rows)
        video = _video_facts(entry, overlay_bodies.fps, rows)
        if raw is not None:
            file = job.out / OVERLAY
            if n_videos > 1:
                file = job.out / OVERLAYS / file_name(entry.name, ".mp4")
            source = sources.parse(raw, entry.source)
            try:
                video["overlay"], n_drawn = _draw(job, file, source, overlay_bodies)
                n_frames += n_drawn
            except PipelineError as error:
                problems.append(str(error))
        videos.append(video)
    summary = about | {"videos": videos}
    write_json(job.out / SUMMARY, summary)
    return _PredictedVideos(n_tracks, n_bodies, n_frames, problems, summary)


def _video_facts(
    entry: cache.VideoEntry, fps: float, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A video's entry in predictions.json, without an overlay. rows: The entries of its people."""
    return {
        "video": entry.name,
        "picture": [entry.width, entry.height],
        "accounting": entry.account,
        "fps": fps if math.isfinite(fps) else None,
        "tracks": rows,
        "overlay": None,
    }


def _predict_people(
    job: PredictionJob, split: cache.Split, chosen: Sequence[cache.TrackRecord]
) -> Iterator[TrackBodies]:
    """Predict the bodies of each chosen track, then smooth them as the job says.

    Skips tracks without a decoded frame.
    """
    trained = job.trained
    predictions = predict_tracks(
        trained.generator,
        split,
        chosen,
        stream=job.stream,
        extra_streams=trained.config.extra_streams,
        seqlen=trained.config.seqlen,
        around=True,  # past and future bodies too, for models that predict them
        stills=True,  # these also from single frames, such as photos
    )
    for (bodies,) in predictions:  # one way of cutting tracks into windows, so one prediction each
        if len(bodies):
            yield bodies.smooth_time(job.smooth)


def _video_number(split: cache.Split, bodies: TrackBodies) -> int:
    """The number of the bodies' video in the split."""
    (track,) = split.track_of(bodies.rows[:1])
    return int(split.tracks.video[track])


def _write_person(
    job: PredictionJob,
    bodies: TrackBodies,
    entry: cache.VideoEntry,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the files of one person. Returns their entry in predictions.json."""
    generator = job.trained.generator
    file = save_npz(job.out / BODIES, bodies, generator, about={**about, "video": entry.name})
    first = int(bodies.frame_index[0])
    last = int(bodies.frame_index[-1])
    facts = {
        "name": bodies.track.name,
        "file": f"{BODIES}/{file.name}",
    }
    if job.export:
        fps = bodies.track.fps if math.isfinite(bodies.track.fps) else DEFAULT_FPS
        clip = entry.account.get("clip", {})
        motion = write_motion(job.out / MOTIONS, bodies, generator.body, fps, clip)
        facts["motion"] = f"{MOTIONS}/{motion.name}"
    return {**facts, "frames": len(bodies), "first": first, "last": last}


def _draw(
    job: PredictionJob, file: Path, source: FrameSource, bodies: PredictedBodies
) -> tuple[dict[str, Any], int]:
    """Write the overlay of a video. Returns its entry in predictions.json, and its number of
    frames. Raises PipelineError for an overlay that cannot be drawn.
    """
    text = DEMO_MARK if job.stand_in else ""
    overlay, n_frames = write_overlay(file, source, bodies, job.trained.generator, text=text)
    facts = {"file": overlay.relative_to(job.out).as_posix(), "fps": rate_of(source)}
    return facts, n_frames


def _about(job: PredictionJob, split: cache.Split) -> dict[str, Any]:
    """Describe how the bodies are predicted: the facts that every written file records."""
    return {
        "split": job.name,
        "stand_in": job.stand_in,
        "checkpoint": job.trained.about,
        "body_sha256": job.trained.generator.body.digest,
        "features": dict(split.open_stream(job.stream).identity),
        "seqlen": job.trained.config.seqlen,
        "steps": list(job.trained.generator.steps),
        "smooth": job.smooth,
    }


def _remove_previous_files(out: Path) -> None:
    """Delete the files that an earlier predictions.json lists. Other files stay."""
    try:
        videos = json.loads((out / SUMMARY).read_bytes())["videos"]
        listed = []
        for video in videos:
            for row in video["tracks"]:
                listed += [row.get("file"), row.get("motion")]
            if video["overlay"]:
                listed.append(video["overlay"]["file"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        listed = []
    (out / SUMMARY).unlink(missing_ok=True)  # invalid until it is written again
    for name in filter(None, listed):
        file = out / str(name)
        if file.is_file() and file.resolve().is_relative_to(out.resolve()):
            file.unlink(missing_ok=True)
