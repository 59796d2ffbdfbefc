"""The measurements of benchmarks/features.py: processes of `features_ways.py`, and what they found."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import features_data
import torch
from convert import family, proportional_set
from features_colours import AsManyAsResNet50, MeanColours
from features_data import CASES, TINY
from torchvision.models import resnet50

import cache

ROOT: Final = Path(__file__).parents[1]
LOOK_EVERY: Final = 0.05  # s, at the memory
CROPPED: Final = "cropped"  # the case of stored crops
PIXELS: Final = {**{key: case.name for key, case in CASES.items()}, CROPPED: "224 x 224 JPEG, the stored crops"}

Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """What of the machine is used, and how much is done."""

    work: Path
    weights: str  # as --weights takes them
    device: str  # cpu, cuda, cuda:1
    workers: int
    compile: bool
    crops: int  # that an extraction computes in a case
    usual: int  # that the usual way computes
    rounds: int
    seconds: float  # of each limit

    def words(self) -> list[str]:
        """The same for features_ways.py."""
        told = ["--weights", self.weights, "--device", self.device, "--workers", str(self.workers)]
        return [*told, "--seconds", str(self.seconds), *(["--compile"] if self.compile else [])]


@dataclass(slots=True)
class Measured:
    """One case; an entry for each round."""

    key: str
    kb: float = 0.0  # of a picture
    usual: list[Found] = field(default_factory=list)
    ours: list[Found] = field(default_factory=list)
    limits: list[Found] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Ours at its steady rate to the usual way, round by round."""
        return [a["crops_a_second"] / b["crops_a_second"] for a, b in zip(self.ours, self.usual, strict=True)]

    @property
    def shares(self) -> list[float]:
        """Ours at its steady rate to what the limits together allow, round by round."""
        both = zip(self.ours, self.limits, strict=True)
        return [a["crops_a_second"] / b["together_crops_a_second"] for a, b in both]

    def rates(self, what: str, key: str = "crops_a_second") -> list[float]:
        return [found[key] for found in getattr(self, what)]


def random_weights(work: Path) -> str:
    """A file of random weights: as fast as a checkpoint, and loaded as one."""
    torch.manual_seed(0)
    torch.save(resnet50(weights=None).state_dict(), work / "random.pt")
    return f"file:{work / 'random.pt'}"


def speed(options: Options, key: str) -> Measured:
    """A case, or the crops of another one that `store_crops` has stored, all ways in turn in every round."""
    stored = key == CROPPED
    split = features_data.split_of(key)
    found = Measured(key)
    if not stored:
        features_data.make(options.work, key, CASES[key], options.crops)
        found.kb = features_data.bytes_of(options.work, CASES[key]) / 1000
    more = ["--from-crops"] if stored else []
    for turn in range(options.rounds):
        if not stored:
            usual = child(options, "usual", split, "--crops", str(options.usual))
            found.usual.append({**usual, "crops_a_second": usual["crops"] / usual["seconds"]})
        found.ours.append(child(options, "ours", split, *more, "--round", str(turn)))
        found.limits.append(child(options, "limits", split, *more, "--round", str(turn)))
    return found


def store_crops(options: Options) -> None:
    """The crops of one more split, stored as JPEG."""
    features_data.make(options.work, CROPPED, CASES["vga4"], options.crops)
    child(options, "crops", features_data.split_of(CROPPED))


def agreement(options: Options, keys: Sequence[str]) -> Found:
    """fast against exact against torch, over all crops of the first of these cases, which have been measured."""
    return child(options, "agreement", features_data.split_of(keys[0]), "--crops", str(options.crops))


def memory(options: Options, sizes: list[int]) -> list[tuple[int, int, Found]]:
    """(numbers a row, rows, what was found) of extractions that compute nothing."""
    found = []
    for dim in (MeanColours.dim, AsManyAsResNet50.dim):
        for size in sizes:
            key = f"memory-{size}"
            if features_data.split_of(key) not in _splits(options.work):
                features_data.make(options.work, key, TINY, size)
            found.append((dim, size, child(options, "memory", features_data.split_of(key), "--dim", str(dim))))
    return found


def _splits(work: Path) -> tuple[str, ...]:
    return tuple(cache.open(features_data.cache_of(work)).splits)


def child(options: Options, way: str, split: str, *more: str) -> Found:
    """A process that measures; `wall` is what it took from start to end, `pss_mib` its most memory with its children.

    Memory is looked at where nothing else is measured.
    """
    order = [sys.executable, str(ROOT / "benchmarks/features_ways.py"), way, str(options.work), split]
    began, peak = time.perf_counter(), 0.0
    where = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [*order, *options.words(), *more], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": where}
    )
    while way == "memory" and process.poll() is None:
        peak = max(peak, sum(map(proportional_set, family(process.pid))))
        time.sleep(LOOK_EVERY)
    told, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{way} {split} ended with {process.returncode}")
    found: Found = json.loads(told.splitlines()[-1])
    return {**found, "wall": time.perf_counter() - began, "pss_mib": peak}


def median(numbers: list[float]) -> float:
    return statistics.median(numbers)
