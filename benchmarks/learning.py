"""Does training on the embedded data learn, and what is each part of VIBE worth there? The ablation, with baselines.

    make data && .venv/bin/python benchmarks/learning.py

Trains every variant of the paper's ablation once a seed on what `make data` has made, by the `embedded` preset, and
writes benchmarks/learning.md: errors on motions that training never saw, mean and spread over the seeds, beside the
baselines: the constant mean body, the same regressor frame by frame, and that one smoothed in time. The numbers say
that the way from pixels to loss is right, and what the parts do here. They say nothing about VIBE on real data: bodies
are rendered, the backbone is untrained.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from learning_report import Row, by_model, machine, mean_and_spread

from vibe_model import TrainConfig, runs, training
from vibe_model.settings.mposer_config import MPoserConfig
from vibe_model.settings.variants import PER_FRAME, VARIANTS, variant_of
from vibe_model.training import mposer

ROOT: Final = Path(__file__).parents[1]
GOAL: Final = 0.25  # validation PA-MPJPE must fall by this share below the mean body's
PRESET: Final = "preset"  # the `embedded` preset as it is: attention of 3 layers of 128
MODELS: Final = (*(name for name in VARIANTS if name != "without-3dpw"), PRESET)  # 3DPW is all the preset's 3D data
SPLITS: Final = ("3dpw/validation", "3dpw/test")
ERRORS: Final = ("pa_mpjpe", "mpjpe", "pve", "accel_error")


def main() -> None:
    """Train once a model and seed, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "data/cache")
    parser.add_argument("--body", type=Path, default=ROOT / "data/embedded/body")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/learning.md")
    args = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        base = TrainConfig.embedded(cache=args.cache, body=args.body, runs=Path(folder), evaluation=SPLITS, hold="ram")
        for seed in args.seeds:
            for model in args.models:
                rows += measured(model, replace(base, seed=seed))
                print(model, seed, *(f"{row.split} {row.numbers['pa_mpjpe']:.1f}" for row in rows[-2:]), flush=True)
    args.out.write_text(report(base, rows))
    print(f"{args.out}: {'; '.join(verdicts(rows))}")


def measured(model: str, base: TrainConfig) -> Iterator[Row]:
    """Errors of a model, trained here, and of the baselines that its run brings along."""
    config = variant_of(base, "" if model == PRESET else model)
    if config.prior == "mposer":
        shared: dict[str, Any] = {
            name: getattr(config, name) for name in ("cache", "runs", "stride", "strides", "seed")
        }
        prior = mposer.run(MPoserConfig.embedded(**shared, device="cpu"))
        config = replace(config, mposer=prior / training.BEST)
    metrics = json.loads((training.run(config) / runs.METRICS).read_text())
    for split in SPLITS:
        found: Mapping[str, Any] = metrics[split]
        if model == PER_FRAME:
            yield Row("mean body", split, config.seed, found["baseline"])
            yield Row(f"{PER_FRAME}, smoothed", split, config.seed, found["smoothed"])
        yield Row(model, split, config.seed, found)


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What the means say of the three things that are to be shown, on the split that training did not choose by."""
    said = []
    mean = {
        (model, split, name): statistics.mean(row.numbers[name] for row in found if row.split == split)
        for model, found in by_model(rows).items()
        for split in SPLITS
        for name in ("pa_mpjpe", "accel_error")
    }

    def compare(what: str, model: str, other: str) -> None:
        if (model, SPLITS[1], "pa_mpjpe") in mean and (other, SPLITS[1], "pa_mpjpe") in mean:
            changes = (
                f"{label} {100 * (mean[model, SPLITS[1], name] / mean[other, SPLITS[1], name] - 1):+.0f}%"
                for name, label in (("pa_mpjpe", "PA-MPJPE"), ("accel_error", "acceleration error"))
            )
            said.append(f"{what} ({model} against {other}): {', '.join(changes)}")

    compare("temporal encoder", "generator-only", PER_FRAME)
    compare("temporal encoder and discriminator", PRESET, PER_FRAME)
    compare("discriminator", PRESET, "generator-only")
    compare("MPoser", "mposer", "generator-only")
    compare("VIBE beside smoothing", PRESET, f"{PER_FRAME}, smoothed")
    if (PRESET, SPLITS[0], "pa_mpjpe") in mean and ("mean body", SPLITS[0], "pa_mpjpe") in mean:
        gain = 1 - mean[PRESET, SPLITS[0], "pa_mpjpe"] / mean["mean body", SPLITS[0], "pa_mpjpe"]
        reached = "reached" if gain >= GOAL else "NOT reached"
        said.append(f"validation PA-MPJPE {100 * gain:.0f}% below the mean body's (goal {100 * GOAL:.0f}%, {reached})")
    return said


def report(config: TrainConfig, rows: Sequence[Row]) -> str:
    """The table with what it was measured on."""
    names = ("epochs", "iterations", "batch_size", "lr_generator", "precision")
    settings = {name: value for name, value in config.as_dict().items() if name in names}
    lines = [
        "# Does training on the embedded data learn, and what is each part worth?",
        "",
        "STAND-IN data: rendered bodies, an untrained backbone. It shows that the way from pixels to loss is right,",
        "and is no result about VIBE. Made by `make data && .venv/bin/python benchmarks/learning.py`.",
        "",
        f"{machine()}. Schedule: {json.dumps(settings)}.",
        "",
        f"Means over {len({row.seed for row in rows})} seeds, ± their standard deviation, in mm (accelerations in mm "
        "per frame²), on motions that training never saw. `preset` is the embedded preset as it is (attention of 3 "
        "layers of 128); the others are the paper's variants of it.",
    ]
    for split in SPLITS:
        lines += [
            "",
            f"## {split}",
            "",
            "| model | PA-MPJPE | MPJPE | PVE | acceleration error |",
            "|---|---|---|---|---|",
        ]
        for model, found in by_model(rows).items():
            cells = [mean_and_spread([row.numbers[name] for row in found if row.split == split]) for name in ERRORS]
            lines.append(f"| {model} | {' | '.join(cells)} |")
    lines += ["", f"## What the means say, on {SPLITS[1]}", "", *(f"- {line}" for line in verdicts(rows)), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
