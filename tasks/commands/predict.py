"""`python -m tasks predict`: bodies in clips, which it prepares first, or in a split of a cache.

    a clip or a folder   `_prepare_clips` writes splits of the cache, as `pipeline prepare videos`
                         does; `_predict_clips` predicts each, with overlays unless --no-overlay
    a split              is predicted from the cache; overlays only with --overlay

The arguments make a `_PredictionRequest`, which makes a job for each split. `_write` carries it
out: it writes predictions.json and the bodies, draws overlays, and prints lines about them. The
work is in `vibe_model.prediction`.
"""

from __future__ import annotations

import argparse
import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import cache
from pipeline.cli import console
from pipeline.cli.command_line import Command
from pipeline.cli.console import print_json
from pipeline.cli.progress import bar
from pipeline.cli.text import FEW, count, few, from_here
from pipeline.commands import prepare
from pipeline.commands.preparation import DetectorChoice, Preparation
from pipeline.datasets.videos import OwnVideos
from pipeline.errors import ConfigError, PipelineError
from pipeline.files.outputs import OutputRule, inputs_of
from pipeline.settings import sections
from pipeline.settings.file import settings_file
from pipeline.steps.conversion_record import committed_split
from pipeline.steps.recipe import Recipe
from tasks.base import DEMO_DATA, fact, plain, say, warn
from tasks.clip_links import clips_folder
from tasks.commands.evaluate import body_folder

if TYPE_CHECKING:
    from pipeline.features.spec import StreamSpec
    from vibe_model.prediction.job import PredictionJob
    from vibe_model.trained import Trained


class _PredictedSplits(NamedTuple):
    """The result of the command."""

    summaries: list[dict[str, Any]]  # content of each split's predictions.json
    # whether a video was not prepared or drawn, or a split lacks columns that a stream reads
    is_incomplete: bool


def _default_folder(named: str) -> Path:
    """Folder for the bodies of a clip, a folder of clips or a split, in the working folder.

    >>> _default_folder("3dpw/test")
    PosixPath('3dpw-test-bodies')
    """
    clips = Path(named)
    name = named.replace("/", "-")
    if clips.exists():
        clips = clips.resolve()
        name = clips.name if clips.is_dir() else clips.stem
    return Path(f"{name}-bodies")


def _run(args: argparse.Namespace) -> int:
    """Prepare clips, then predict their bodies; with --json, print predictions.json. Returns 1 if a
    video failed.
    """
    with console.text_to_stderr(args.json):
        request = _PredictionRequest.parse(args)
        predicted = _predict(request)
    if args.json:
        document: dict[str, Any] = {"out": str(request.out)}
        if len(predicted.summaries) == 1:
            document |= predicted.summaries[0]
        else:
            document["splits"] = predicted.summaries
        print_json(document)
    return int(predicted.is_incomplete)


class _ClipOptions(NamedTuple):
    """How clips are prepared."""

    detector: str | None  # None: as [detect] says
    every: int | None
    weights: str | None  # of the feature network; None: as [features] says
    pose_embedding: Path | None  # None: the file used in training


@dataclass(frozen=True, kw_only=True)
class _PredictionRequest:
    """What to predict, by which model, and which files to write."""

    named: str  # a clip, a folder of clips, or a split of the cache
    is_clips: bool
    root: cache.Root
    settings: sections.Settings
    checkpoint: Path
    body: Path
    device: str
    stream: str | None  # of a split; None: the model's
    clip_options: _ClipOptions
    out: Path
    tracks: str
    overlay: bool
    smooth: float
    export: bool
    rule: OutputRule

    @classmethod
    def parse(cls, args: argparse.Namespace) -> Self:
        """The request of the arguments. Raises ConfigError if what they name does not exist."""
        clips = Path(args.named)
        is_clips = clips.exists()
        if not is_clips and args.named not in cache.FeatureCache(args.cache):
            expected = f"a clip, a folder of clips, or a split of the cache {args.cache}"
            raise ConfigError(f"{clips}: expected {expected}, found no such file, folder or split")
        settings = sections.load(settings_file(), tolerant=True, optional=True)
        tracks = args.tracks
        if clips.is_file() and tracks == "*":  # not those of clips of earlier commands
            tracks = f"{glob.escape(clips.name)}/*"
        return cls(
            named=args.named,
            is_clips=is_clips,
            root=args.cache,
            settings=settings,
            checkpoint=args.checkpoint,
            body=body_folder(args.body, settings),
            device=args.device,
            stream=args.stream,
            clip_options=_ClipOptions(args.detector, args.every, args.weights, args.pose_embedding),
            out=args.out or _default_folder(args.named),
            tracks=tracks,
            overlay=is_clips if args.overlay is None else args.overlay,
            smooth=args.smooth,
            export=args.export,
            rule=OutputRule(
                "predict", inputs_of(args.cache, clips, args.checkpoint), args.overwrite
            ),
        )

    def job(
        self, name: str, model: Trained, stream: str, out: Path, raw: Path | None = None
    ) -> PredictionJob:
        """The job of one split. Raises as `PredictionJob.open` does."""
        from vibe_model.prediction.job import PredictionJob

        return replace(
            PredictionJob.open(self.root, name, model, stream, out, raw),
            tracks=self.tracks,
            overlay=self.overlay,
            smooth=self.smooth,
            export=self.export,
            rule=self.rule,
        )


class _PreparedClips(NamedTuple):
    """Splits of the cache with the features of clips."""

    raw: Path
    streams: Sequence[StreamSpec]  # that the model reads, its features last
    splits: Mapping[str, cache.Split]  # those with tracks, by name
    is_incomplete: bool  # whether a video was not prepared


def _predict(request: _PredictionRequest) -> _PredictedSplits:
    """Predict a split of the cache, or clips."""
    from vibe_model.trained import Trained  # imports torch

    raw = None
    request.rule.require_place(request.out)
    if request.is_clips:  # before the model: it refuses other files
        raw = clips_folder(Path(request.named), request.root, request.out)
    model = Trained.load(request.checkpoint, request.body, request.device)
    if raw is not None:
        return _predict_clips(request, model, _prepare_clips(request, model, raw))

    stream = request.stream or model.stream or request.settings.stream.name
    return _write(request.job(request.named, model, stream, request.out))


def _prepare_clips(request: _PredictionRequest, model: Trained, raw: Path) -> _PreparedClips:
    """Prepare the clips in a raw folder. Raises PipelineError if no clip has a track."""
    from vibe_model.prediction.job import streams_to_prepare

    options = request.clip_options
    settings = request.settings
    streams = streams_to_prepare(model, settings, raw, options.weights, options.pose_embedding)
    settings = settings.use_device(None if request.device == "auto" else request.device)
    recipe = Recipe.by_options(
        settings,
        OwnVideos.name,
        raw=raw,
        root=request.root,
        named_body=None,
    )
    detector = options.detector or settings.detect.detector
    choice = DetectorChoice(name=detector, every=options.every)
    by_split = dict.fromkeys(OwnVideos.splits, streams)
    preparation = Preparation.resolve(settings, recipe, choice, by_split)
    is_incomplete = bool(prepare.run(preparation, overwrite=request.rule.overwrite))

    splits = dict[str, cache.Split]()
    for part in OwnVideos.splits:
        name = f"{OwnVideos.name}/{part}"
        split = committed_split(request.root, name)
        if split is not None and len(split.tracks):
            splits[name] = split
    if not splits:
        raise _no_tracks(request)
    return _PreparedClips(raw, streams, splits, is_incomplete)


def _predict_clips(
    request: _PredictionRequest, model: Trained, clips: _PreparedClips
) -> _PredictedSplits:
    """Predict the splits of clips: into the folder of the request, or for several splits, into a
    folder for each in it.

    A split without the columns that a stream reads gets a warning.
    """
    summaries = []
    is_incomplete = clips.is_incomplete
    for name, split in clips.splits.items():
        messages = [spec.missing_columns(split) for spec in clips.streams]
        refusals = list(filter(None, messages))
        if refusals:
            warn(refusals[0])
            is_incomplete = True
            continue
        folder = request.out
        if len(clips.splits) > 1:
            folder /= name.rpartition("/")[2]
        job = request.job(name, model, clips.streams[-1].name, folder, clips.raw)
        doubt = job.doubt(clips.streams)
        if doubt is not None:
            warn(doubt)
        predicted = _write(job)
        summaries += predicted.summaries
        is_incomplete |= predicted.is_incomplete
    return _PredictedSplits(summaries, is_incomplete)


def _write(job: PredictionJob) -> _PredictedSplits:
    """Carry out the job of a split. Prints lines about the bodies and the overlays."""
    from vibe_model.prediction import videos

    job.out.mkdir(parents=True, exist_ok=True)
    name = job.split.name
    with bar(f"  {console.task_line('predict', name, '')}", console.out, unit="frame") as progress:
        predicted = videos.predict_videos(job, progress)
    say(
        "predict",
        name,
        f"{count(predicted.tracks, 'track')}, {count(predicted.bodies, 'body-frame')}",
    )
    overlays = [video.overlay.file for video in predicted.videos if video.overlay]
    if overlays:
        say("overlay", name, count(len(overlays), "page"))
    for text in few([*predicted.problems, *predicted.left_out], FEW, "predictions.json"):
        warn(text)
    _print_places(job, overlays)
    return _PredictedSplits([predicted.summary], bool(predicted.problems))


def _print_places(job: PredictionJob, overlays: Sequence[str]) -> None:
    """Print where the output files are. overlays: within the output folder."""
    from vibe_model.prediction import videos

    console.out.print()
    if job.stand_in:
        console.out.print(DEMO_DATA)
    shown = plain(from_here(job.out))
    fact("bodies", f"{shown}/{videos.BODIES} (listed in {videos.SUMMARY})")
    if job.export:
        fact("motions", f"{shown}/{videos.MOTIONS} (interpolated to at least 30 frames per second)")
    if len(overlays) == 1:
        fact("overlay", f"{shown}/{plain(overlays[0])}")
    elif overlays:
        fact("overlay", f"{shown}/{videos.OVERLAYS}")


def _no_tracks(request: _PredictionRequest) -> PipelineError:
    fewest = request.settings.dataset(OwnVideos.name).parameters()["min_frames"]
    do = f"Tracks of fewer than {fewest} frames are dropped; --set videos.min_frames=5 keeps more."
    return PipelineError(f"{request.named}: no clip has a track to predict (see above). {do}")


COMMAND: Final = Command(_run)
