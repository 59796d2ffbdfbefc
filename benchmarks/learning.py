"""Does training on the embedded data learn? PA-MPJPE of the trained model, of the untrained one and of the mean body.

    make data && .venv/bin/python benchmarks/learning.py

Trains the `embedded` preset once a seed on what `make data` has made, validates on motions that training never saw, and
writes benchmarks/learning.md. The numbers say that the way from pixels to loss is right. They say nothing about VIBE:
bodies are rendered, the backbone is untrained.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from vibe_model import TrainConfig, evaluation, load_published, runs, training
from vibe_model.trainer import Trainer

ROOT: Final = Path(__file__).parents[1]
GOAL: Final = 0.25  # PA-MPJPE must fall by this share below both the untrained network and the mean body


def main() -> None:
    """Train once a seed, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "data/cache")
    parser.add_argument("--body", type=Path, default=ROOT / "data/embedded/body")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/learning.md")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            config = replace(TrainConfig.embedded(), cache=args.cache, body=args.body, runs=Path(folder), seed=seed)
            rows += measure(config)
            for row in rows[-2:]:
                print(row_text(row), flush=True)
    args.out.write_text(report(TrainConfig.embedded(), rows))
    print(f"{args.out}: goal {'reached' if all(map(reached, rows)) else 'NOT reached'}")


def measure(config: TrainConfig) -> list[dict[str, Any]]:
    """PA-MPJPE in mm on the validation and the evaluation splits, of the three models."""
    body = training.load_body(config.body)
    splits = runs.open_splits(config)
    held_out = {name: splits[name] for name in (*config.validation, *config.evaluation)}
    options = {"stream": config.stream, "seqlen": config.seqlen}
    trainer = Trainer(config, body, torch.device("cpu"))
    before = evaluation.evaluate(trainer.generator, held_out, **options)  # type: ignore[arg-type]
    trained = Trainer(config, body, torch.device("cpu")).generator
    folder = training.run(config)
    load_published(trained, folder / training.BEST)
    after = evaluation.evaluate(trained, held_out, **options)  # type: ignore[arg-type]
    return [
        {
            "seed": config.seed,
            "split": name,
            "mean body": after[name]["baseline"]["pa_mpjpe"],
            "untrained": before[name]["pa_mpjpe"],
            "trained": after[name]["pa_mpjpe"],
            "frames": after[name]["frames"],
        }
        for name in held_out
    ]


def gain(row: dict[str, Any]) -> float:
    """How far below the better of the two baselines the trained model is, as a share."""
    return float(1 - row["trained"] / min(row["mean body"], row["untrained"]))


def reached(row: dict[str, Any]) -> bool:
    """Is the goal reached, on the split that it speaks of? Others are told, not judged."""
    return "validation" not in row["split"] or gain(row) >= GOAL


def row_text(row: dict[str, Any]) -> str:
    numbers = " | ".join(f"{row[name]:.1f}" for name in ("mean body", "untrained", "trained"))
    return f"| {row['seed']} | {row['split']} | {row['frames']} | {numbers} | {100 * gain(row):.0f}% |"


def report(config: TrainConfig, rows: list[dict[str, Any]]) -> str:
    """The table with what it was measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), {memory:.0f} GiB, no GPU used"
    settings = {
        k: v for k, v in config.as_dict().items() if k in ("epochs", "iterations", "batch_size", "lr_generator")
    }
    lines = [
        "# Does training on the embedded data learn?",
        "",
        "STAND-IN data: rendered bodies, an untrained backbone. It shows that the way from pixels to loss is right,",
        "and is no result about VIBE. Made by `make data && .venv/bin/python benchmarks/learning.py`.",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {machine}, Python {platform.python_version()}, "
        f"torch {torch.__version__.split('+')[0]}. Schedule: {json.dumps(settings)}.",
        "",
        "PA-MPJPE in mm on motions that training never saw; below: under the better of the two baselines. "
        f"The goal is {100 * GOAL:.0f}% on the validation split.",
        "",
        "| seed | split | frames | mean body | untrained network | trained | below |",
        "|---|---|---|---|---|---|---|",
        *map(row_text, rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
