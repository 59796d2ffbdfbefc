"""Predict the bodies of all videos of a split, and write files.  features -> windows -> [bodies]

    <out>/bodies/*.npz         one file per person
    <out>/motions/*.npz        the same as motion files in AMASS's layout (`write_motion`)
    <out>/overlay.html         a player of the bodies; for several videos overlays/*.html
    <out>/predictions.json     list of the files, and how they were made; written last

`predict_videos` is called by `tasks predict`, with a job of `prediction.job`. It handles one video
at a time, so memory does not grow with the number of videos: `_predict_people` is a generator, and
predicts the next track when the files of the one before are written. A `_PredictionWriter` writes
the files and keeps a record of each; `_PredictedVideos` counts and lists them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import cache
from pipeline.cli.progress import Progress
from pipeline.errors import PipelineError
from pipeline.files.pixels import sources
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.pixels.frames import FrameSource
from pipeline.files.places import file_name
from pipeline.show.clip import rate_of
from pipeline.show.player import Page, write_player
from pipeline.show.tracks import from_cache
from pipeline.show.video_file import DEFAULT_FPS
from pipeline.steps.raw_images import raw_folder
from vibe_model.files import write_json
from vibe_model.prediction.job import PredictionJob
from vibe_model.prediction.motions import write_motion
from vibe_model.prediction.overlay import PredictedBodies
from vibe_model.prediction.predict import TrackBodies, predict_tracks
from vibe_model.prediction.windows import ModelStreams, select_tracks

BODIES: Final = "bodies"
MOTIONS: Final = "motions"
OVERLAY: Final = "overlay.html"  # of a single video
OVERLAYS: Final = "overlays"
SUMMARY: Final = "predictions.json"
NAMES: Final = (BODIES, MOTIONS, OVERLAY, OVERLAYS, SUMMARY)


class _PersonFiles(NamedTuple):
    """The written files of one person, and their entry in predictions.json."""

    name: str  # of the track
    file: str  # within the output folder
    motion: str | None  # within the output folder; None: not exported
    frames: int
    first: int  # frame of the source
    last: int

    @property
    def facts(self) -> dict[str, Any]:
        return {key: value for key, value in self._asdict().items() if value is not None}


class _Overlay(NamedTuple):
    """A written overlay."""

    file: str  # within the output folder
    fps: float


class _WrittenVideo(NamedTuple):
    """The written files of one video."""

    entry: cache.VideoEntry
    fps: float | None  # of the source's frames; None if unknown
    people: Sequence[_PersonFiles]
    overlay: _Overlay | None

    @property
    def facts(self) -> dict[str, Any]:
        """Its entry in predictions.json."""
        return {
            "video": self.entry.name,
            "picture": [self.entry.width, self.entry.height],
            "accounting": self.entry.account,
            "fps": self.fps,
            "tracks": [person.facts for person in self.people],
            "overlay": self.overlay and self.overlay._asdict(),
        }


class _PredictedVideos(NamedTuple):
    """What was predicted and written."""

    about: Mapping[str, Any]  # how, as every file records it
    videos: Sequence[_WrittenVideo]
    problems: Sequence[str]  # why overlays are missing
    left_out: Sequence[str]  # what overlays leave out

    @property
    def tracks(self) -> int:
        return sum(len(video.people) for video in self.videos)

    @property
    def bodies(self) -> int:
        """Person-frames."""
        return sum(person.frames for video in self.videos for person in video.people)

    @property
    def files(self) -> list[str]:
        """All written files, within the output folder."""
        files = [SUMMARY]
        for video in self.videos:
            for person in video.people:
                files += filter(None, (person.file, person.motion))
            if video.overlay is not None:
                files.append(video.overlay.file)
        return files

    @property
    def summary(self) -> dict[str, Any]:
        """The content of predictions.json."""
        return {**self.about, "videos": [video.facts for video in self.videos]}


def predict_videos(job: PredictionJob, progress: Progress) -> _PredictedVideos:
    """Write all files that the job asks for, and predictions.json. Deletes those of an earlier job
    that this one does not write.

    A video that cannot be drawn gets no overlay; the reason is added to `problems`. Raises
    PipelineError if nothing is predicted, if the raw folder of the overlays' images is missing, and
    if other files are in the place of these.
    """
    split = job.split
    about = _about(job)
    raw = None
    if job.overlay:
        raw = raw_folder(split, job.raw)
    chosen = select_tracks(split, job.tracks)
    people = _predict_people(job, chosen)
    first = next(people, None)
    if first is None:
        raise PipelineError(
            f"{split.name}: no frame with a person could be decoded, so nothing is predicted"
        )
    job.rule.begin_folder(job.out, NAMES)
    (job.out / SUMMARY).unlink(missing_ok=True)  # invalid until it is written again

    writer = _PredictionWriter(
        job,
        about,
        raw,
        progress,
        n_rows=sum(track.stop - track.start for track in chosen),
        n_videos=len({track.video for track in chosen}),
    )
    # people of one video follow one another
    by_video = itertools.groupby(
        itertools.chain([first], people), functools.partial(_video_number, split)
    )
    for number, people_of_video in by_video:
        writer.write_video(split.videos[number], people_of_video)
    predicted = _PredictedVideos(about, writer.videos, writer.problems, writer.left_out)
    write_json(job.out / SUMMARY, predicted.summary)
    job.rule.end_folder(job.out, predicted.files)
    return predicted


def _predict_people(
    job: PredictionJob, chosen: Sequence[cache.TrackRecord]
) -> Iterator[TrackBodies]:
    """Predict the bodies of each chosen track, then smooth them as the job says.

    Skips tracks without a decoded frame.
    """
    trained = job.trained
    predictions = predict_tracks(
        trained.generator,
        job.split,
        chosen,
        streams=ModelStreams(job.stream, trained.config.extra_streams),
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


@dataclass
class _PredictionWriter:
    """Writes the files of a job, one video at a time, and records them."""

    job: PredictionJob
    about: Mapping[str, Any]  # facts that every file records
    raw: Path | None  # folder of the overlays' images; None: no overlays
    progress: Progress
    n_rows: int  # of all chosen tracks
    n_videos: int
    n_bodies: int = 0  # written so far
    videos: list[_WrittenVideo] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # why overlays are missing
    left_out: list[str] = field(default_factory=list)  # what overlays leave out

    def write_video(self, entry: cache.VideoEntry, people: Iterable[TrackBodies]) -> None:
        """Write the files of a video, and add it to `videos`."""
        to_draw = PredictedBodies(self.job.out, self.job.trained.generator.steps)
        fps = None
        written = []
        for bodies in people:
            fps = _known_rate(bodies.track)  # one of all people in the video
            written.append(self._write_person(bodies, entry))
            to_draw.add(bodies)
            self.n_bodies += len(bodies)
            self.progress(self.n_bodies, self.n_rows, entry.name)
        overlay = None
        if self.raw is not None:
            source = sources.parse(self.raw, entry.source)
            try:
                overlay = self._draw(self.raw, source, entry.name, to_draw, written)
            except PipelineError as error:
                self.problems.append(str(error))
        self.videos.append(_WrittenVideo(entry, fps, written, overlay))

    def _write_person(self, bodies: TrackBodies, entry: cache.VideoEntry) -> _PersonFiles:
        """Write the files of one person."""
        out = self.job.out
        generator = self.job.trained.generator
        about = {**self.about, "video": entry.name}
        file = bodies.save(out / BODIES, generator, about=about)
        motion = None
        if self.job.export:
            fps = _known_rate(bodies.track) or DEFAULT_FPS
            clip = ClipRecord.from_dict(entry.account.get("clip"))
            path = write_motion(out / MOTIONS, bodies, generator.body, fps, clip)
            motion = f"{MOTIONS}/{path.name}"
        first, last = bodies.frame_index[[0, -1]].tolist()
        return _PersonFiles(
            bodies.track.name, f"{BODIES}/{file.name}", motion, len(bodies), first, last
        )

    def _draw(
        self,
        raw: Path,
        source: FrameSource,
        video: str,
        bodies: PredictedBodies,
        people: Sequence[_PersonFiles],
    ) -> _Overlay:
        """Write the player of a video. Raises PipelineError for one that cannot be drawn."""
        job = self.job
        file = OVERLAY
        if self.n_videos > 1:
            file = f"{OVERLAYS}/{file_name(video, '.html')}"
        shown = from_cache(job.root, job.split.name, video, raw=raw)
        names = {person.name for person in people}
        tracks = [track for track in shown.tracks if track.record.name in names]
        shown = replace(shown, tracks=tuple(tracks), stand_in=job.stand_in)
        rate = rate_of(source)
        paint = bodies.drawing(job.trained.generator, rate)
        (job.out / file).parent.mkdir(parents=True, exist_ok=True)
        form = Page("predict", shows_bodies=True)
        self.left_out += write_player(shown, job.out / file, paint=paint, page=form)
        return _Overlay(file, rate)


def _known_rate(track: cache.TrackRecord) -> float | None:
    """Frames per second of a track's source; None if the cache does not know it."""
    return track.fps if math.isfinite(track.fps) else None


def _about(job: PredictionJob) -> dict[str, Any]:
    """Describe how the bodies are predicted: the facts that every written file records."""
    return {
        "split": job.split.name,
        "stand_in": job.stand_in,
        "checkpoint": job.trained.about,
        "body_sha256": job.trained.generator.body.digest,
        "features": dict(job.split.open_stream(job.stream).identity),
        "seqlen": job.trained.config.seqlen,
        "steps": list(job.trained.generator.steps),
        "smooth": job.smooth,
    }
