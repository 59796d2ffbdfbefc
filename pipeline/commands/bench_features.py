"""`python -m pipeline bench-features`: what this machine decodes and computes, and how long an extraction takes."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import cache
from pipeline.cli.console import STAND_IN, duration, show_json
from pipeline.cli.progress import Progress, bar
from pipeline.commands.extract import kind_options
from pipeline.commands.options import count, err, json_option, out, plain, split_arguments, whole
from pipeline.errors import PipelineError
from pipeline.features import bench_pixels
from pipeline.features.bench_features import Limits, NetworkLimit, decode_limit, network_limit
from pipeline.features.engine import Resources
from pipeline.features.engine.decoders import cores
from pipeline.features.engine.jobs import Job
from pipeline.features.engine.pieces import Frames
from pipeline.features.pixel_sources import pixels
from pipeline.features.spec import Decode, StreamSpec
from pipeline.features.streams.base import ByteStream, Machine, NumberStream, Stream
from pipeline.features.streams.resnet50 import UNTRAINED, ResNet50
from pipeline.settings.features import given_options, stream_named

HELP: Final = (
    "Measure how fast this machine extracts features, and what limits it. Without a split: on pictures made up."
)

EXPECTED: Final = 100_000  # pictures of a dataset that nobody named
HELD: Final = "bench"  # the stream's name, which is not written
N_PICTURES: Final = 16  # that are made of each size


@dataclass(frozen=True, slots=True)
class Scene:
    """What is decoded for one line of the answer."""

    name: str
    coming: Iterator[Job]
    rows: int  # of the dataset that is looked forward to
    noun: str  # what these are


def options(sub: argparse.ArgumentParser) -> None:
    split_arguments(sub, required=False, why=", with SPLIT and --cache: on its own pixels")
    sub.add_argument("--cache", type=cache.place_of, help="the cache's folder, or its URL as s3://bucket/prefix")
    sub.add_argument("--raw", type=Path, help="where the dataset's raw folder lies now, when it has moved")
    sub.add_argument("--crops", default="", metavar="STREAM", help="on a stream of crops, not the pictures")
    sub.add_argument("--decode", default="full", choices=get_args(Decode), help="reduced: large persons faster")
    kind_options(sub)
    sub.add_argument("--device", default="auto", help="auto (cuda when there is one), cpu, cuda, cuda:1, ...")
    sub.add_argument("--batch-size", type=whole(0), default=0, help="crops at once; 0: what the device does best")
    sub.add_argument("--compile", action="store_true", help="torch.compile, on CUDA")
    sub.add_argument("--workers", type=whole(0), default=0, help="processes that decode pictures; 0: one a core")
    sub.add_argument("--seconds", type=whole(1), default=5, help="that each measurement takes")
    json_option(sub)


def run(args: argparse.Namespace) -> int:
    """The network by itself, decoding by itself, and what both together make of a dataset."""
    spec = spec_of(args)
    stream = spec.stream
    with ExitStack() as stack:
        scenes = list(_scenes(args, spec, stack))
        progress = stack.enter_context(bar("bench-features", err, quiet=args.json))
        network, limits = measure(spec, scenes, seconds=args.seconds, progress=progress)
    if args.json:
        show_json(_as_dict(args, stream, network, scenes, limits))
        return 0
    out.print(f"{count(cores(), 'core')}; {args.seconds} s a measurement, which whatever else runs here makes slower")
    if network is not None:
        out.print(plain(f"network: {network.crops:,.0f} crops a second, by itself ({_how(network)})"))
    if stream.stand_in:
        out.print(f"  {STAND_IN} an untrained network: it is as fast as a trained one")
    for scene, limit in zip(scenes, limits, strict=True):
        out.print(plain(told(scene, limit)))
    return 0


def measure(
    spec: StreamSpec, scenes: list[Scene], *, seconds: float, progress: Progress
) -> tuple[NetworkLimit | None, list[Limits]]:
    """The network's limit, None where there is no network, and the limits of each scene."""
    stream, resources, steps, network = spec.stream, spec.resources, len(scenes) + 2, None
    if isinstance(stream, NumberStream):
        progress(0, steps, "loading the network")
        computer = stream.load(resources.machine, None)
        progress(1, steps, "network")
        network = network_limit(computer, seconds=seconds)
    encoder = stream if isinstance(stream, ByteStream) else None
    limits = []
    for number, scene in enumerate(scenes, 2):
        progress(number, steps, f"decoding {scene.name}")
        decode = decode_limit(scene.coming, resources, seconds=seconds, encoder=encoder)
        limits.append(Limits(decode, network, cores()))
    progress(steps, steps)
    return network, limits


def told(scene: Scene, limits: Limits) -> str:
    """One scene's line."""
    decode = limits.decode
    what = f"{decode.pictures:,.0f} pictures ({decode.crops:,.0f} crops) a second"
    by = f"{decode.processes:,} process{'' if decode.processes == 1 else 'es'}"
    limit = "the network limits" if limits.limit == "network" else "decoding limits"
    return (
        f"{scene.name}: decodes {what}, by itself ({by}); together {limits.together:,.0f} crops a second: "
        f"{count(scene.rows, scene.noun)} in about {duration(scene.rows / limits.together)}, {limit}"
    )


def spec_of(args: argparse.Namespace) -> StreamSpec:
    """What the arguments ask for. Weights need not be named: any are as fast."""
    given = given_options(args.set)
    weights = args.weights or (str(UNTRAINED) if args.kind == ResNet50.kind else None)
    stream = stream_named(args.kind, weights, args.precision, given)
    resources = Resources(Machine(args.device, args.batch_size, compile=args.compile), args.workers)
    return StreamSpec(HELD, stream, args.crops, args.decode, resources, args.raw)


def _scenes(args: argparse.Namespace, spec: StreamSpec, stack: ExitStack) -> Iterator[Scene]:
    """The split that was named, or pictures made for this in a folder that goes with `stack`."""
    if args.dataset or args.split or args.cache or args.raw or args.crops:
        if not (args.dataset and args.split and args.cache):
            raise PipelineError(
                "a split is named by three: bench-features DATASET SPLIT --cache DIR. Without any of them, pictures "
                "are made up."
            )
        split = cache.open(args.cache)[f"{args.dataset}/{args.split}"]
        pixels_of = pixels(split, spec.crops, spec.raw, reduced=spec.decode == "reduced")
        coming = bench_pixels.of_split(split, pixels_of)
        rows = int((split.tracks.stop - split.tracks.start).sum())
        yield Scene(f"{split.name}{f' from {args.crops}' if args.crops else ''}", coming, rows, "row")
        return
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for size in bench_pixels.SIZES:
        name = f"{size[0]} x {size[1]} JPEG"
        source = bench_pixels.write_pictures(folder / name, size, N_PICTURES)
        frames = Frames(source, name, name, reduced=spec.decode == "reduced")
        coming = bench_pixels.of_pictures(frames, N_PICTURES, size)
        yield Scene(f"{name}, one person each", coming, EXPECTED, "picture")


def _how(network: NetworkLimit) -> str:
    """In which arithmetic, where, and how many batches at a time."""
    said = [str(network.provenance[key]) for key in ("arithmetic", "device") if key in network.provenance]
    return ", ".join([*said, f"{count(network.lanes, 'lane')} of {network.batch_size} crops"])


def _as_dict(
    args: argparse.Namespace, stream: Stream, network: NetworkLimit | None, scenes: list[Scene], limits: list[Limits]
) -> dict[str, Any]:
    said = {} if network is None else network.provenance
    return {
        "cores": cores(),
        "seconds": args.seconds,
        "stream": stream.identity(),
        "stand_in": stream.stand_in,
        "network": None
        if network is None
        else {
            "crops_a_second": round(network.crops, 2),
            "lanes": network.lanes,
            "batch_size": network.batch_size,
            **{key: said[key] for key in ("arithmetic", "device") if key in said},
        },
        "pixels": [
            {"name": scene.name, **limit.as_dict(), "rows": scene.rows, "expected_seconds": scene.rows / limit.together}
            for scene, limit in zip(scenes, limits, strict=True)
        ],
    }
