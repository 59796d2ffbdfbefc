"""Tracks and features of what is to be predicted.  [raw -> tracks -> features] -> bodies

The steps are those of training data, on a small cache of the prediction's own, `<out>/cache/`, or on a cache that has
them already. A step whose output is up to date is not run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.progress import Progress
from pipeline.cli.text import count
from pipeline.commands.settings.commands import effective
from pipeline.commands.settings.file import settings_file
from pipeline.commands.settings.targets import stream_named
from pipeline.conversion import convert
from pipeline.conversion.convert import Conversion
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import extract
from pipeline.features import streams as kinds
from pipeline.features.extract import Extraction
from pipeline.features.plan import compare_stream, plan_extraction, refuse_untrained
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.files.raw.stand_in import is_stand_in
from tasks.settings import settings, settings_without
from vibe_extensions.clips.prediction.sources import SPLIT, ClipsToPredict
from vibe_model import runs
from vibe_model.checkpoints import HMR2
from vibe_model.errors import DataError
from vibe_model.prediction.trained import Trained

CACHE: Final = "cache"


@dataclass(frozen=True, eq=False)
class PredictionJob:
    """A split, the stream of it, the model, and the folder to write."""

    root: cache.Root
    name: str  # of the split
    stream: str
    trained: Trained
    out: Path
    stand_in: bool
    raw: Path | None  # where its pictures are now; None: where they were at conversion
    people: Mapping[str, Any]

    def split(self) -> cache.Split:
        return cache.open(self.root)[self.name]


def of_source(source: ClipsToPredict, trained: Trained, streams: Sequence[StreamSpec], out: Path) -> PredictionJob:
    """Check all that can be known before minutes of work.

    streams: the last one is of the model's features; before it, what that is computed from, and what the model reads
    beside. Raises StandInMixed, ConfigError for an untrained network on real pictures, and DataError for streams of
    another size than the model's.
    """
    model = {f"the body of {trained.checkpoint}": bool(trained.generator.body.is_stand_in)}
    stand_in = runs.one_kind({f"the pictures of {source.named}": is_stand_in(source.raw), **model})
    last = streams[-1]
    for spec in streams:
        refuse_untrained(spec, source.raw, f"the weights of {spec.name}")
        if argument := _argument(trained, last.name, spec.name):
            trained.check_features(f"stream {spec.name!r}", spec.stream.dim, of=argument)
    stand_in = stand_in or any(spec.stream.stand_in for spec in streams)
    return PredictionJob(out / CACHE, source.split, last.name, trained, out, stand_in, source.raw, source.people)


def of_cache(root: cache.Root, name: str, trained: Trained, stream: str, out: Path) -> PredictionJob:
    """A split that has features: nothing is decoded, unless its pictures are drawn on.

    Raises CacheError where there is no such split, StandInMixed, and as `Trained.check_split`.
    """
    split = cache.open(root)[name]
    runs.check_stand_in({name: split}, the_checkpoint=trained.stand_in)
    stand_in = trained.check_split(split, stream) or bool(trained.generator.body.is_stand_in)
    return PredictionJob(root, name, stream, trained, out, stand_in, None, {"from": f"the cache {root}", "named": name})


def feature_streams(trained: Trained, weights: str | None) -> tuple[StreamSpec, ...]:
    """What the model's features are computed by; the last one is theirs.

    HMR2.0's own network; of others the one whose weights are named, else that of [features] in luigi.cfg. Raises
    ConfigError.
    """
    if trained.kind == HMR2:
        if weights is not None:
            raise ConfigError(f"--weights {weights}: {trained.checkpoint.name} has a network of its own. Leave it out.")
        name, options = trained.config.stream, {"checkpoint": str(trained.checkpoint)}
        return (StreamSpec(name, stream_named(name, options, effective(settings_file()))),)
    if weights is not None:
        return (StreamSpec(stream=stream_named(ResNet50.kind, {"weights": weights})),)
    s = settings_without("--weights, as spin:FILE")
    return tuple(spec for spec in (s.crops, s.stream) if spec is not None)


def resources(trained: Trained, weights: str | None, device: str) -> Resources:
    """What computing them takes of this machine: one video needs no more than one device. Raises ConfigError."""
    if weights is not None or trained.kind == HMR2:
        return Resources(device=device)
    features = settings().features
    return replace(features, devices=None, device=features.device if device == "auto" else device)


def extra_streams(trained: Trained, embedding: Path | None) -> list[StreamSpec]:
    """What the model reads beside its features, as it was trained on: computed as its checkpoint records.

    embedding: of 2D poses, of which the checkpoint records the digest alone; None: the file that it was trained with.
    Raises ConfigError where that is not there, DataError where the checkpoint does not record a stream.
    """
    specs = []
    for name, reading in trained.config.extra_streams.items():
        identity = trained.extra_streams.get(name)
        if identity is None:
            raise DataError(
                f"{trained.checkpoint}: expected what its stream {reading.stream!r} was computed by, found nothing. "
                "Predict a split that has it: --cache."
            )
        stream = kinds.of_identity(identity)
        if stream is None:  # of a checkpoint's file
            file = embedding or trained.config.files().get("embedding")
            if file is None:
                raise ConfigError(f"{trained.checkpoint}: name the embedding of 2D poses: --pose-embedding FILE")
            stream = kinds.get(str(identity["kind"])).with_weights(file)
        specs.append(StreamSpec(reading.stream, stream))
    return specs


def make_tracks(source: ClipsToPredict, root: Path, progress: Progress) -> Conversion | None:
    """Clips and labels -> tracks; None where they are up to date. Raises PipelineError where no person is left."""
    plan = convert.plan_conversion(source.reader, SPLIT, raw=source.raw, root=root)
    extraction = None if plan.up_to_date else convert.convert(plan, progress=progress)
    split = cache.open(root)[plan.name]
    if not len(split.tracks):
        raise PipelineError("\n".join(without_people(source, split)))
    return extraction


def without_people(source: ClipsToPredict, split: cache.Split) -> Iterator[str]:
    """Why nothing is predicted of each video of which no track is left."""
    fewest = source.reader.min_frames
    for video in split.videos:
        account = video.account
        if account["kept"]:
            continue
        if account["set_aside"]:
            yield source.problems.get(video.name, account["message"])
            continue
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in account["dropped"].items())
        why = f"of {count(account['found'], 'person-frame')}, {reasons}" if reasons else "no person was found"
        shorter = f", or take tracks of fewer than {count(fewest, 'frame')}: --min-frames" * bool(
            reasons and fewest > 1
        )
        yield f"{video.name}: no person is left to predict: {why}. Look at the detections{shorter}."


def make_features(
    job: PredictionJob, streams: Sequence[StreamSpec], resources: Resources, progress: Progress
) -> Extraction | None:
    """Tracks -> features; None where they are up to date.

    Raises DataError for features of another network than the model was trained on.
    """
    extraction = None
    for spec in (spec.at(job.raw) if job.raw else spec for spec in streams):
        plan = compare_stream(job.split(), spec)
        if plan.differs:  # by an earlier command with another network: nothing else uses this cache
            plan = plan_extraction(job.root, job.name, spec, replace=True)
        if argument := _argument(job.trained, job.stream, spec.name):
            job.trained.check_features(f"stream {spec.name!r}", spec.stream.dim, plan.identity, of=argument)
        if absent := sorted(set(spec.stream.needs) - set(job.split().columns)):
            raise DataError(
                f"{job.name}: stream {spec.name!r} is computed from {', '.join(absent)}, which there is not. Name "
                "keypoints: --keypoints PATH, or have people detected."
            )
        if not plan.up_to_date:
            extraction = extract.extract(plan, resources, progress=progress)
    return extraction


def _argument(trained: Trained, features: str, stream: str) -> str | None:
    """What a stream is to the model; None where it is not read."""
    arguments = {features: "features", **{extra.stream: name for name, extra in trained.config.extra_streams.items()}}
    return arguments.get(stream)


def warnings(job: PredictionJob, streams: Sequence[StreamSpec]) -> list[str]:
    """Reasons to doubt the bodies."""
    reasons, last = [], streams[-1]
    weights = last.stream.weights if isinstance(last.stream, ResNet50) else None
    published = job.trained.kind in ("vibe", "spin")
    if published and not job.stand_in and (weights is None or weights.kind != "spin"):
        reasons.append(f"{job.trained.checkpoint.name} was trained on SPIN's features, and these are {last}")
    if job.trained.kind == "ours" and job.trained.features is None:
        reasons.append(f"{job.trained.checkpoint.name} does not record which features it was trained on")
    return reasons
