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
from pipeline.conversion import convert
from pipeline.conversion.convert import Conversion
from pipeline.datasets.new_video import NewVideo
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import extract
from pipeline.features.extract import Extraction
from pipeline.features.plan import compare_stream, plan_extraction, refuse_untrained
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.base import Machine
from pipeline.features.streams.loaded import Precision
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.raw.stand_in import is_stand_in
from pipeline.settings.targets import stream_named
from tasks.prediction.sources import Source
from tasks.settings import settings
from vibe_model import runs
from vibe_model.prediction.trained import Trained

CACHE: Final = "cache"


@dataclass(frozen=True, eq=False)
class Job:
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


def of_source(source: Source, trained: Trained, streams: Sequence[StreamSpec], out: Path) -> Job:
    """Check all that can be known before minutes of work.

    streams: the last one is the model's; before it, what that is computed from. Raises StandInMixed, ConfigError for
    an untrained network on real pictures, and DataError for features of another size than the model's.
    """
    model = {f"the body of {trained.checkpoint}": bool(trained.generator.body.stand_in)}
    stand_in = runs.one_kind({f"the pictures of {source.named}": is_stand_in(source.raw), **model})
    last = streams[-1]
    refuse_untrained(last, source.raw, "the features' weights")
    trained.check_features(f"stream {last.name!r}", last.stream.dim)
    name = f"{source.reader.name}/{source.split}"
    stand_in = stand_in or last.stream.stand_in
    return Job(out / CACHE, name, last.name, trained, out, stand_in, source.raw, source.people)


def of_cache(root: cache.Root, name: str, trained: Trained, stream: str, out: Path) -> Job:
    """A split that has features: nothing is decoded, unless its pictures are drawn on.

    Raises CacheError where there is no such split, PipelineError where it lacks the stream, DataError for features of
    another size or network than the model's, StandInMixed.
    """
    split = cache.open(root)[name]
    if stream not in split.streams:
        has = ", ".join(split.streams) or "none"
        raise PipelineError(
            f"{root}: expected {name} with the stream {stream!r}, found the streams {has}. Extract it, or name "
            "another: --stream."
        )
    runs.check_stand_in({name: split}, the_checkpoint=trained.stand_in)
    manifest = split.stream_manifest(stream)
    trained.check_features(name, manifest["dim"], manifest.get("identity"))
    stand_in = bool(manifest.get("stand_in")) or bool(trained.generator.body.stand_in)
    return Job(root, name, stream, trained, out, stand_in, None, {"from": f"the cache {root}", "named": name})


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
    own = found[-1].resources  # one video needs no more than one device
    machine = own.machine if device == "auto" else replace(own.machine, device=device)
    return tuple(replace(spec, resources=replace(own, machine=machine, devices=())) for spec in found)


def make_tracks(source: Source, root: Path, progress: Progress) -> Conversion | None:
    """Clips and labels -> tracks; None where they are up to date. Raises PipelineError where no person is left."""
    plan = convert.plan_conversion(source.reader, source.split, raw=source.raw, root=root)
    done = None if plan.up_to_date else convert.convert(plan, progress=progress)
    split = cache.open(root)[plan.name]
    if not len(split.tracks):
        raise PipelineError("\n".join(without_people(source, split)))
    return done


def without_people(source: Source, split: cache.Split) -> Iterator[str]:
    """Why nothing is predicted of each video of which no track is left."""
    least = getattr(source.reader, "min_frames", 1)
    for video in split.videos:
        account = video.account
        if account["kept"]:
            continue
        if account["set_aside"]:
            yield source.problems.get(video.name, account["message"])
            continue
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in account["dropped"].items())
        found = f"of {count(account['found'], 'person-frame')}, {reasons}" if reasons else "no person was found"
        labels = source.reader.keypoints or source.reader.boxes if isinstance(source.reader, NewVideo) else video.name
        shorter = f", or take tracks of fewer than {count(least, 'frame')}: --min-frames" if least > 1 else ""
        yield f"{labels}: no person is left to predict: {found}. Look at the detections{shorter}."


def make_features(job: Job, streams: Sequence[StreamSpec], progress: Progress) -> Extraction | None:
    """Tracks -> features; None where they are up to date.

    Raises DataError for features of another network than the model was trained on.
    """
    done = None
    for spec in (spec.at(job.raw) if job.raw else spec for spec in streams):
        plan = compare_stream(job.split(), spec)
        if plan.differs:  # by an earlier command with another network: nothing else uses this cache
            plan = plan_extraction(job.root, job.name, spec, replace=True)
        if spec.name == job.stream:
            job.trained.check_features(f"stream {spec.name!r}", spec.stream.dim, plan.identity)
        if not plan.up_to_date:
            done = extract.extract(plan, progress=progress)
    return done


def warnings(job: Job, streams: Sequence[StreamSpec]) -> list[str]:
    """Reasons to doubt the bodies."""
    found, last = [], streams[-1]
    weights = last.stream.weights if isinstance(last.stream, ResNet50) else None
    published = job.trained.kind in ("vibe", "spin")
    if published and not job.stand_in and (weights is None or weights.kind != "spin"):
        found.append(f"{job.trained.checkpoint.name} was trained on SPIN's features, and these are {last}")
    if job.trained.kind == "ours" and job.trained.features is None:
        found.append(f"{job.trained.checkpoint.name} does not record which features it was trained on")
    return found
