"""Training steps on a GPU: the part of `gpu_check.py` on training.

`training` measures a step of every model, and compares its losses with the CPU's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

import cache
from benchmarks.common import table, write_stream
from benchmarks.training import SPLITS, TRACK, make_cache
from pipeline.features import networks
from pipeline.people.body import Body
from vibe_model import models
from vibe_model.models import Model
from vibe_model.settings import VideoConfig
from vibe_model.training.process_group import ProcessGroup
from vibe_model.training.video import VideoRun

# relative: a step's losses with the CPU's; on a GPU, GRUs round to TF32
AGREE: Final = {"fp32": 0.01, "bf16": 0.05}
# streams that models read beside their features: numbers a row
BESIDE: Final = {"pr_vipe": 64, "homography": 9}
SMALL: Final[dict[str, Any]] = {  # of `--tiny`, where a model has such a setting
    "batch_size": 4,
    "seqlen": 8,
    "hidden_size": 32,
    "regressor_size": 32,
    "disc_size": 32,
    "width": 32,
}


def device_of(args: argparse.Namespace) -> str:
    return str(networks.chosen_device(args.device))


def on_gpu(args: argparse.Namespace) -> bool:
    return device_of(args) != "cpu"


def forget_peak(args: argparse.Namespace) -> None:
    if on_gpu(args):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(args.device)


def peak(args: argparse.Namespace) -> str:
    """The most memory of the GPU that torch has had allocated, GiB."""
    if not on_gpu(args):
        return "-"
    return f"{torch.cuda.max_memory_allocated(args.device) / 2**30:.2f}"


def training(root: Path, args: argparse.Namespace) -> Iterator[str]:
    """A step of each model: speed, memory, and its losses compared with the CPU's."""
    _make_training_data(root / "windows", 4 if args.tiny else 128)
    yield (
        "Difference: the largest of a loss in the second step, dropout off, from the CPU's in "
        "fp32, relative.\n"
    )
    rows = []
    for model in models.every():
        expected = _second_losses(_config_of(model, root, args, device="cpu"))
        for precision in ("fp32", "bf16"):
            config = _config_of(model, root, args, precision=precision)
            worst = difference(_second_losses(config), expected)
            if not worst <= AGREE[precision]:
                raise RuntimeError(
                    f"{model.title}, {precision}: losses differ from the CPU's by {worst:.1e}, "
                    "relative"
                )
            forget_peak(args)
            rate, waits = _steps_a_second(config, args)
            sizes = f"{config.batch_size} of {config.seqlen} frames"
            figures = (
                f"{rate:.2f}",
                f"{rate * config.batch_size:,.0f}",
                f"{waits:.0%}",
                f"{worst:.0e}",
                peak(args),
            )
            rows.append((model.title, sizes, precision, *figures))
    header = (
        "model",
        "windows",
        "precision",
        "steps/s",
        "windows/s",
        "waits for data",
        "difference",
        "memory, GiB",
    )
    yield from table(header, rows)


def _make_training_data(root: Path, n_tracks: int) -> None:
    """Random labels and features, with all streams that models read."""
    make_cache(root, n_tracks)
    rng = np.random.default_rng(0)
    for part, split in SPLITS.items():
        if part == "motion":  # has poses only
            continue
        for name, dim in BESIDE.items():
            values = rng.standard_normal((n_tracks * TRACK, dim), np.float32) * np.float32(0.01)
            write_stream(root, split, name, dim, values.__getitem__, dtype="float32")


def _config_of(model: Model, root: Path, args: argparse.Namespace, **changes: Any) -> VideoConfig:
    """A model's default settings, on the made-up data, without losses that need a second
    network.
    """
    config = model.presets[model.preset]()
    names = {field.name for field in fields(config)}
    ours: dict[str, Any] = {part: (name,) for part, name in SPLITS.items()}
    ours |= {
        "validation": ("body/train",),
        "evaluation": (),
        "leave_out": (),
        "strides": {},
        "tracks": {},
    }
    ours |= {
        "cache": root / "windows",
        "runs": root / "runs",
        "iterations": 10**6,
        "uncertainty_weight": 0.0,
    }
    ours |= {"device": device_of(args)} | (SMALL if args.tiny else {})
    return replace(
        config, **{name: value for name, value in (ours | changes).items() if name in names}
    )


def _prepare(config: VideoConfig) -> VideoRun:
    """A training run, ready for its first step."""
    splits = cache.open(config.cache)
    trainer = models.find(config.MODEL).load_trainer()(
        config, Body.stand_in(), ProcessGroup(device=torch.device(config.device))
    )
    read = {name: splits[name] for name in config.splits}
    return VideoRun(config, trainer, read, stand_in=True, observer=None)


def _second_losses(config: VideoConfig) -> dict[str, float]:
    """Losses of a second step without dropout, after one update."""
    ready = _prepare(config)
    for learner in ready.trainer.learners.values():
        for module in learner.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    with closing(ready.batches(0)) as batches:
        ready.trainer.train_step(next(batches))
        return ready.trainer.train_step(next(batches)).terms


def difference(losses: Mapping[str, float], expected: Mapping[str, float]) -> float:
    """The largest relative difference of a loss; losses below 1% of the largest one are compared
    with that 1%.
    """
    least = 0.01 * max(map(abs, expected.values()))
    return max(
        abs(losses[name] - value) / max(abs(value), least) for name, value in expected.items()
    )


def _steps_a_second(config: VideoConfig, args: argparse.Namespace) -> tuple[float, float]:
    """Steps a second, and the share of the time that they wait for their windows."""
    ready = _prepare(config)
    waited = 0.0
    with closing(ready.batches(0)) as batches:
        for _ in range(min(3, args.steps)):  # start-up
            ready.trainer.train_step(next(batches))
        _synchronise(config)
        began = time.perf_counter()
        for _ in range(args.steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            ready.trainer.train_step(batch)
        _synchronise(config)
        elapsed = time.perf_counter() - began
    return args.steps / elapsed, waited / elapsed


def _synchronise(config: VideoConfig) -> None:
    if config.device.startswith("cuda"):
        torch.cuda.synchronize(config.device)
