"""How fast is a training step? Ours, in float32 and in bfloat16, against the usual way, in one run.

    .venv/bin/python benchmarks/training.py --out benchmarks/training.md

Networks of the published sizes, batches of 32 windows of 16 frames, 19 of them with 2D labels alone, and 32 of real
motion, from a cache of made-up labels and features with the procedural body. Three ways:

- usual: benchmarks/training_usual.py says what that is.
- ours, fp32 and bf16: `VIBETrainer.train_step` on what `training.data.stream` gives, as `training.run` does it.

First, with dropout off and from equal parameters, all ways take the same steps with the same windows, and their losses
are compared: float32 must agree to 1e-4, or the benchmark ends. Then they train in turns, A B C A B C, each on its own
data: told is the median round with the lowest and the highest, and ratios within rounds. Waiting for data is the time
from asking for a batch to having it. `--small` makes all of it tiny, to see that it works.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import features
import torch
import training_data
from torch import nn
from training_usual import Database, UsualTrainer, loader

import cache
from pipeline.body import Body
from vibe_model import TrainConfig
from vibe_model.training.data import Batches, on_device, stream
from vibe_model.training.parallel import Group
from vibe_model.training.vibe import VIBETrainer

USUAL, FP32, BF16 = WAYS = ("usual", "ours, fp32", "ours, bf16")
PARTS: Final = {"2d": "datasets_2d", "3d": "datasets_3d", "motion": "motion"}
AGREEMENT: Final = 1e-4  # relative, of float32
Terms = Mapping[str, float]


@dataclass
class Speed:
    """One way's rounds."""

    steps_a_second: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)  # share of the time
    busy: list[float] = field(default_factory=list)  # share of the time, of a GPU


@dataclass(frozen=True)
class Bench:
    """What all ways train on, and with which settings."""

    config: TrainConfig
    body: Body
    batches: Batches
    databases: Mapping[str, Database]
    workers: int  # of each of the usual way's loaders of labelled windows

    @property
    def device(self) -> torch.device:
        return torch.device(self.config.device)

    def usual_batches(self, start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        """The windows that `batches` would give in these steps, in three loaders."""
        picks = [self.batches.mixture.draw(step) for step in range(start, stop)]
        loaders = []
        for kind, part in PARTS.items():
            windows = [[int(row) for pick in step[part] for row in pick.starts] for step in picks]
            loaders.append(loader(self.databases[kind], windows, 0 if kind == "motion" else self.workers))
        return zip(*loaders, strict=True)

    def ours(self, precision: str) -> VIBETrainer:
        return VIBETrainer(replace(self.config, precision=precision), self.body, Group(device=self.device))

    def usual(self, like: VIBETrainer) -> UsualTrainer:
        """The usual way, from the parameters of ours."""
        trainer = UsualTrainer(self.config, self.body, self.device)
        trainer.generator.load_state_dict(like.generator.state_dict())
        assert like.discriminator is not None
        trainer.discriminator.load_state_dict(like.discriminator.state_dict())
        return trainer


def main() -> None:
    """Make the data, compare, measure, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="of each way in each round")
    parser.add_argument("--agree", type=int, default=10, help="steps whose losses are compared")
    parser.add_argument("--tracks", type=int, default=128, help="of 128 frames, in each of three splits")
    parser.add_argument("--usual-workers", type=int, default=1, help="of each of the usual way's two loaders")
    parser.add_argument("--small", action="store_true", help="networks of 16 numbers, 2 rounds of 2 steps")
    parser.add_argument("--at", type=Path, help="where to make the cache; a temporary folder by default")
    parser.add_argument("--out", type=Path, help="write the report here, for example benchmarks/training.md")
    args = parser.parse_args()
    small: dict[str, Any] = {}
    if args.small:
        small = {"hidden_size": 16, "regressor_size": 16, "disc_size": 16}
        args.rounds, args.steps, args.agree, args.tracks = 2, 2, 2, 4
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        training_data.make(Path(folder), args.tracks)
        bench = prepared(Path(folder), args.device, args.usual_workers, **small)
        differences = agreement(bench, args.agree)
        speeds = measured(bench, rounds=args.rounds, steps=args.steps)
    text = report(bench, differences, speeds, args)
    print(text)
    if args.out:
        args.out.write_text(text)


def prepared(root: Path, device: str, workers: int, **sizes: Any) -> Bench:
    """Everything opened; the usual way's databases read into memory."""
    names = training_data.SPLITS
    parts: Any = {part: (names[kind],) for kind, part in PARTS.items()}
    config = TrainConfig(cache=root, device=device, iterations=10**6, **parts, **sizes)
    opened = cache.open(root)
    splits = {name: opened[name] for name in names.values()}
    databases = {kind: Database(splits[name], config.seqlen) for kind, name in names.items()}
    return Bench(config, Body.stand_in(), Batches(config, splits), databases, workers)


def agreement(bench: Bench, n_steps: int) -> dict[str, dict[str, float]]:
    """The largest relative difference of each term from the usual way's, by way. Ends where float32's is too large."""
    ours = {FP32: bench.ours("fp32"), BF16: bench.ours("bf16")}
    usual = bench.usual(ours[FP32])
    ways: tuple[VIBETrainer | UsualTrainer, ...] = (usual, *ours.values())
    for module in itertools.chain.from_iterable(map(_modules, ways)):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    worst: dict[str, dict[str, float]] = {way: {} for way in ours}
    for step, batch in enumerate(bench.usual_batches(0, n_steps)):
        expected = usual.train_step(*batch)
        for way, trainer in ours.items():
            found = trainer.train_step(on_device(bench.batches.at(step), bench.device)).terms
            for name, value in expected.items():
                difference = abs(found[name] - value) / abs(value)
                worst[way][name] = max(worst[way].get(name, 0.0), difference)
    if wrong := {name: value for name, value in worst[FP32].items() if not value <= AGREEMENT}:
        raise SystemExit(f"other losses than the usual way's: {wrong}, relative; expected at most {AGREEMENT}")
    return worst


def _modules(way: VIBETrainer | UsualTrainer) -> Iterator[nn.Module]:
    for network in (way.generator, way.discriminator):
        if network is not None:
            yield from network.modules()


def measured(bench: Bench, *, rounds: int, steps: int) -> dict[str, Speed]:
    """Each way's speed, in turns."""
    n_steps = rounds * (steps + 1)
    ours = {FP32: bench.ours("fp32"), BF16: bench.ours("bf16")}
    usual = bench.usual(ours[FP32])
    speeds = {way: Speed() for way in WAYS}
    sources = {way: stream(bench.batches, 0, device=bench.device) for way in ours}
    with closing(sources[FP32]), closing(sources[BF16]), features.gpu_busy(bench.config.device) as busy:
        usual_source = bench.usual_batches(0, n_steps)
        turns: dict[str, Callable[[], float]] = {USUAL: lambda: timed(usual_source, lambda b: usual.train_step(*b))}
        for way, trainer in ours.items():
            turns[way] = lambda way=way, trainer=trainer: timed(sources[way], trainer.train_step)  # type: ignore[misc]
        for _ in range(rounds):
            for way, step in turns.items():
                step()  # warms up what others have pushed out of caches
                _synchronise(bench.device)
                began = time.perf_counter()
                waited = sum(step() for _ in range(steps))
                _synchronise(bench.device)
                ended = time.perf_counter()
                speeds[way].steps_a_second.append(steps / (ended - began))
                speeds[way].waiting.append(waited / (ended - began))
                if (share := busy(began, ended)) is not None:
                    speeds[way].busy.append(share)
    return speeds


def timed(source: Iterator[Any], train_step: Callable[[Any], object]) -> float:
    """One step. Returns the seconds that it waited for its batch."""
    began = time.perf_counter()
    batch = next(source)
    waited = time.perf_counter() - began
    train_step(batch)
    return waited


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(
    bench: Bench, differences: Mapping[str, Terms], speeds: Mapping[str, Speed], args: argparse.Namespace
) -> str:
    """Both tables, and what they were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), {memory:.0f} GiB, "
    machine += torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else "no GPU used"
    lines = [
        "# How fast is a training step?",
        "",
        "STAND-IN data: made-up labels and features, the procedural body. Made by",
        f"`.venv/bin/python benchmarks/training.py --device {args.device} --out benchmarks/training.md`;",
        "what is compared, and how, stands at its beginning.",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {machine}, Python {platform.python_version()}, "
        f"torch {torch.__version__.split('+')[0]}, {torch.get_num_threads()} threads. {args.rounds} rounds of "
        f"{args.steps} steps of each way; the usual way's loaders with {args.usual_workers} worker each.",
        "",
        "## Speed",
        "",
        "| | steps/s | lowest - highest | ms a step | times usual | lowest - highest | waits for data | GPU busy |",
        "|---|---|---|---|---|---|---|---|",
        *(speed_line(way, speeds[way], speeds[USUAL]) for way in WAYS),
        "",
        "## Losses",
        "",
        f"The largest relative difference from the usual way's, of {args.agree} steps, dropout off.",
        "",
        "| | " + " | ".join(differences) + " |",
        "|---" * (1 + len(differences)) + "|",
    ]
    for name in differences[FP32]:
        lines += [f"| {name} | " + " | ".join(f"{terms[name]:.1e}" for terms in differences.values()) + " |"]
    return "\n".join([*lines, ""])


def speed_line(way: str, speed: Speed, usual: Speed) -> str:
    rates = speed.steps_a_second
    ratios = [ours / theirs for ours, theirs in zip(rates, usual.steps_a_second, strict=True)]
    cells = [
        way,
        f"{statistics.median(rates):.2f}",
        span(rates),
        f"{1000 / statistics.median(rates):.0f}",
        f"**{statistics.median(ratios):.2f}**",
        span(ratios),
        f"{100 * statistics.median(speed.waiting):.2f}%",
        f"{100 * statistics.median(speed.busy):.0f}%" if speed.busy else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def span(numbers: Sequence[float]) -> str:
    return f"{min(numbers):.2f} - {max(numbers):.2f}"


if __name__ == "__main__":
    main()
