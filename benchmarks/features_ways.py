"""What benchmarks/features.py measures, each in a process of its own that prints what it found as JSON.

python benchmarks/features_ways.py WAY WORK SPLIT [options]
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import features_data
import numpy as np
from features_limits import Limits, decode_limit, network_limit, of_split
from numpy.typing import NDArray

import cache
from pipeline.features import extract
from pipeline.features.engine import Resources
from pipeline.features.engine.decoders import cores
from pipeline.features.engine.pieces import Frames, Person, Wanted
from pipeline.features.pixel_sources import pixels
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Machine, NumberStream
from pipeline.features.streams.crops import Crops
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.pixels.frames import nothing

MIDDLE: Final = (0.2, 0.8)  # the part of the rows in which nothing starts and nothing ends any more
STREAM: Final = "resnet50"
CROPS: Final = "crops"
AT_ONCE: Final = 64  # crops whose agreement is measured together


def usual(args: argparse.Namespace) -> dict[str, Any]:
    """The usual way, over the first crops of the split."""
    import features_usual

    from pipeline.features.networks import backbones

    network = backbones.load(WeightsSpec.parse(args.weights))[0].to(args.device)
    people = list(features_usual.persons(opened(args), features_data.raw_of(args.work)))
    seconds, found = features_usual.extract(people, network, args.device, args.crops)
    return {"crops": len(found), "seconds": seconds}


def ours(args: argparse.Namespace) -> dict[str, Any]:
    """An extraction, as `python -m pipeline extract` does it."""
    spec = spec_of(args)
    plan = extract.plan_extraction(features_data.cache_of(args.work), args.split, spec)
    seen: list[tuple[float, int]] = []

    def progress(done: int, total: int, message: str = "") -> None:  # noqa: ARG001
        seen.append((time.perf_counter(), done))

    with gpu_busy(args.device) as busy_between:
        done = extract.extract(plan, progress=progress)
    if done.problems:
        raise SystemExit(f"{args.split}: {done.problems}: {done.examples}")
    (began, first), (ended, last) = middle(seen, done.computed)
    return {
        "crops": done.computed,
        "pictures": done.meter.frames,
        "crops_a_second": (last - first) / (ended - began),
        "busy": done.meter.busy(),
        "gpu_busy": busy_between(began, ended),
        "peak_mib": peak_rss(),
    }


def middle(seen: Sequence[tuple[float, int]], total: int) -> tuple[tuple[float, int], tuple[float, int]]:
    """The first and the last (time, rows) in the middle of an extraction; of one that was over too soon, of all of it.

    >>> middle([(0, 0), (1, 15), (2, 30), (3, 60), (4, 100)], 100)
    ((2, 30), (3, 60))
    """
    within = [one for one in seen if MIDDLE[0] * total <= one[1] <= MIDDLE[1] * total]
    if within and within[-1][1] > within[0][1]:
        return within[0], within[-1]
    return seen[0], max(seen, key=lambda one: one[1])


def crops(args: argparse.Namespace) -> dict[str, Any]:
    """Crops as JPEG, from which `ours` then extracts."""
    spec = StreamSpec(CROPS, Crops(), resources=resources(args))
    extract.extract(extract.plan_extraction(features_data.cache_of(args.work), args.split, spec))
    return {}


def limits(args: argparse.Namespace) -> dict[str, Any]:
    """Decoding by itself, and the network by itself."""
    spec = spec_of(args)
    assert isinstance(spec.stream, NumberStream)
    coming = of_split(opened(args), pixels(opened(args), spec.crops, spec.raw))
    decode = decode_limit(coming, spec.resources, seconds=args.seconds)
    network = network_limit(spec.stream.load(spec.resources.machine, None), seconds=args.seconds)
    both = Limits(decode, network, cores())
    said = {key: network.provenance[key] for key in ("arithmetic", "device")}
    return {**both.as_dict(), "network_crops_a_second": network.crops, "shares_cores": network.shares_cores, **said}


def agreement(args: argparse.Namespace) -> dict[str, Any]:
    """fast against exact, and exact against torchvision's own layers, over the first crops of the split."""
    from pipeline.features import networks

    weights, machine = WeightsSpec.parse(args.weights), Machine(args.device)
    fast, exact = (networks.load(weights, precision=p, machine=machine, standardise=False) for p in ("fast", "exact"))
    by_torch = plain(weights)
    coming = itertools.islice(crops_of(opened(args), features_data.raw_of(args.work)), args.crops)
    found = []
    while some := list(itertools.islice(coming, AT_ONCE)):
        batch = np.stack(some)
        found.append((networks.compute(fast, batch), networks.compute(exact, batch), by_torch(batch)))
    a, b, c = (np.concatenate(parts).astype(np.float64) for parts in zip(*found, strict=True))
    return {
        "crops": len(a),
        "cosine": float(cosine(a, b).min()),
        "relative": float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max()),
        "largest": float((np.abs(a - b).max(axis=1) / np.abs(b).max(axis=1)).max()),
        "exact": float(np.abs(b - c).max() / np.abs(c).max()),
        "arithmetic": fast.provenance["arithmetic"],
    }


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, d) twice -> (n,)."""
    return np.asarray((a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)))


def plain(weights: WeightsSpec) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """(n, 224, 224, 3) RGB -> (n, 2048), by torchvision's ResNet-50 as it is, on the CPU."""
    import torch

    from pipeline.features.networks import backbones
    from pipeline.features.networks.resnet import IMAGENET_MEAN, IMAGENET_STD

    network = backbones.load(weights)[0]
    mean, std = (torch.tensor(of).view(1, 3, 1, 1) for of in (IMAGENET_MEAN, IMAGENET_STD))

    def compute(some: NDArray[np.uint8]) -> NDArray[np.float32]:
        rgb = torch.from_numpy(some).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            found: NDArray[np.float32] = network((rgb - mean) / std).numpy()
        return found

    return compute


def crops_of(split: cache.Split, raw: Path) -> Iterator[NDArray[np.uint8]]:
    """Crops (224, 224, 3) RGB, track by track, as decoding processes make them."""
    from features_usual import persons

    for track in persons(split, raw):
        people = [Person(0, tuple(box), track.scale) for box in track.boxes.tolist()]
        wanted = (Wanted(frame, (person,)) for frame, person in zip(track.frames, people, strict=True))
        pixels = Frames(track.source, split.name, "")
        for person, shown in zip(people, pixels.show(wanted, nothing), strict=True):
            assert shown.crop is not None, shown.problem
            yield shown.crop(person)


def memory(args: argparse.Namespace) -> dict[str, Any]:
    """An extraction whose computation costs nothing."""
    from features_colours import AsManyAsResNet50, MeanColours

    stream = MeanColours() if args.dim == MeanColours.dim else AsManyAsResNet50()
    spec = StreamSpec(stream.kind, stream, resources=resources(args))
    done = extract.extract(extract.plan_extraction(features_data.cache_of(args.work), args.split, spec))
    return {"crops": done.computed, "peak_mib": peak_rss()}


def peak_rss() -> float:
    """MiB of this process. Not getrusage's, which begins with what the process had that started this one."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def opened(args: argparse.Namespace) -> cache.Split:
    return cache.open(features_data.cache_of(args.work))[args.split]


def resources(args: argparse.Namespace) -> Resources:
    return Resources(Machine(args.device, compile=args.compile), args.workers)


def spec_of(args: argparse.Namespace) -> StreamSpec:
    stream = ResNet50(weights=WeightsSpec.parse(args.weights), precision="fast")
    name = f"{STREAM}-{args.round}{'-of-crops' if args.from_crops else ''}"
    crops = CROPS if args.from_crops else ""
    return StreamSpec(name, stream, crops, resources=resources(args))


@contextmanager
def gpu_busy(device: str) -> Iterator[Callable[[float, float], float | None]]:
    """Share of a time in which the GPU computed, as nvidia-smi samples it; None on a CPU."""
    if not device.startswith("cuda"):
        yield lambda began, ended: None  # noqa: ARG005
        return
    number = device.partition(":")[2] or "0"
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100", "-i", number]
    process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
    seen: list[tuple[float, float]] = []

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            seen.append((time.perf_counter(), float(line) / 100))  # noqa: PERF401 - it is read meanwhile

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()

    def between(began: float, ended: float) -> float | None:
        within = [share for at, share in seen if began <= at <= ended]
        return float(np.mean(within)) if within else None

    try:
        yield between
    finally:
        process.kill()
        listener.join()
        process.communicate()


WAYS: Final[Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]]] = {
    way.__name__: way for way in (usual, ours, crops, limits, agreement, memory)
}


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """WAY WORK SPLIT and options, as `main` gets them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("work", type=Path)
    parser.add_argument("split")
    parser.add_argument("--weights", default="untrained:0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--crops", type=int, default=0)
    parser.add_argument("--from-crops", action="store_true")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--round", type=int, default=0)
    parser.add_argument("--dim", type=int, default=3)
    return parser.parse_args(words)


def main() -> None:
    args = parsed(sys.argv[1:])
    print(json.dumps(WAYS[args.way](args)))


if __name__ == "__main__":
    main()
