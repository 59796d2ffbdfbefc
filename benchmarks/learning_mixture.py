"""Is a model that learns from all datasets better than one that learns from each alone? On the embedded data.

    make data && .venv/bin/python benchmarks/learning_mixture.py

Trains the `embedded` preset, equally many steps, on all seven datasets with pictures together and on each of them
alone (AMASS's motion for the discriminator in each case), once a seed, and writes benchmarks/learning_mixture.md:
PA-MPJPE on held-out motions and cameras of every dataset that has 3D labels for evaluation, and the mean over them.
STAND-IN data: no result about VIBE.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from learning_report import Row, by_model, machine, mean_and_spread

from vibe_model import TrainConfig, runs, training

ROOT: Final = Path(__file__).parents[1]
PAPER: Final = TrainConfig.paper()
ALL: Final = "all datasets"
SPLITS: Final = ("3dpw/validation", "3dpw/test", "h36m/val", "mpi_inf_3dhp/test")


def main() -> None:
    """Train once a mixture and seed, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "data/cache")
    parser.add_argument("--body", type=Path, default=ROOT / "data/embedded/body")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/learning_mixture.md")
    args = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        base = TrainConfig.embedded(cache=args.cache, body=args.body, runs=Path(folder), evaluation=SPLITS, hold="ram")
        for seed in args.seeds:
            for name, config in mixtures(replace(base, seed=seed)):
                metrics = json.loads((training.run(config) / runs.METRICS).read_text())
                rows += [Row(name, split, seed, metrics[split]) for split in SPLITS]
                print(name, seed, *(f"{metrics[split]['pa_mpjpe']:.1f}" for split in SPLITS), flush=True)
    args.out.write_text(report(base, rows))
    print(f"{args.out}: {verdict(rows)}")


def mixtures(base: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """Everything together, then each split alone."""
    yield ALL, replace(base, datasets_2d=PAPER.datasets_2d, datasets_3d=PAPER.datasets_3d)
    for split in PAPER.datasets_3d:
        yield split, replace(base, datasets_2d=(), datasets_3d=(split,))
    for split in PAPER.datasets_2d:
        yield split, replace(base, datasets_2d=(split,), datasets_3d=())


def means(rows: Sequence[Row]) -> dict[str, list[float]]:
    """By model, each seed's mean over the splits."""
    return {
        model: [
            statistics.mean(row.numbers["pa_mpjpe"] for row in found if row.seed == seed)
            for seed in sorted({row.seed for row in found})
        ]
        for model, found in by_model(rows).items()
    }


def verdict(rows: Sequence[Row]) -> str:
    """Does the mixture win, and against whom not?"""
    found = {model: statistics.mean(values) for model, values in means(rows).items()}
    best = min((value, model) for model, value in found.items() if model != ALL)
    how = "wins over" if found[ALL] < best[0] else "does NOT win over"
    return f"all datasets ({found[ALL]:.1f} mm) {how} the best one alone ({best[1]}, {best[0]:.1f} mm)"


def report(config: TrainConfig, rows: Sequence[Row]) -> str:
    """The table with what it was measured on."""
    lines = [
        "# All datasets together against each alone",
        "",
        "STAND-IN data: rendered bodies, an untrained backbone; no result about VIBE. Made by `make data && "
        ".venv/bin/python benchmarks/learning_mixture.py`.",
        "",
        f"{machine()}. {config.epochs * config.iterations} steps of {config.batch_size} windows each.",
        "",
        f"PA-MPJPE in mm on motions and cameras that training never saw: means over {len({row.seed for row in rows})} "
        "seeds, ± their standard deviation.",
        "",
        f"| trained on | {' | '.join(SPLITS)} | mean |",
        f"|---|{'---|' * len(SPLITS)}---|",
    ]
    overall = means(rows)
    for model, found in by_model(rows).items():
        cells = [mean_and_spread([row.numbers["pa_mpjpe"] for row in found if row.split == split]) for split in SPLITS]
        lines.append(f"| {model} | {' | '.join(cells)} | {mean_and_spread(overall[model])} |")
    body = [
        mean_and_spread(
            [row.numbers["baseline"]["pa_mpjpe"] for row in rows if row.split == split and row.model == ALL][:1]
        )
        for split in SPLITS
    ]
    lines += [
        f"| (the mean body) | {' | '.join(body)} | {statistics.mean(map(float, body)):.1f} |",
        "",
        verdict(rows) + ".",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
