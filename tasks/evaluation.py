"""training -> evaluation, as Luigi tasks: the errors of trained models, as tables.

`Evaluate` makes rows of the metrics of a model's run and of its per-frame model's
(`tasks.results`), writes these as results.csv, and prints tables and notes, as the command
`evaluate` does.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final

import luigi

from cache.storage.durable import write_atomic
from pipeline.cli import console
from pipeline.cli.text import count, from_here
from tasks.base import DEMO_DATA, PipelineTask, fact, plain, warn
from tasks.result_tables import as_csv, table_of
from tasks.results import ResultRow, RunMetrics, rows_by_split
from tasks.settings import settings
from tasks.training import MODEL_NAMES, Train, model_config
from vibe_model import models, runs
from vibe_model.evaluation import published
from vibe_model.evaluation.protocols import COMPARES_WITH, LEFT_OUT, by_protocol
from vibe_model.metrics import units_of
from vibe_model.models import Model
from vibe_model.sections import WITHOUT_DEPTH, RunChoice
from vibe_model.settings import VideoConfig

RESULTS: Final = "results.csv"


class Evaluate(PipelineTask):
    """Print and store a trained model's errors on every evaluation split, beside those of the
    baselines.

    Per-frame baselines are trained, too, unless luigi.cfg sets `baseline = false`.
    """

    verb = "evaluate"
    model = luigi.Parameter(description=MODEL_NAMES)

    @property
    def record(self) -> Model:
        """Raises PipelineError for an unknown model, and for one that does not load."""
        return models.find(self.model)

    @property
    def what(self) -> str:
        return self.record.title

    def requires(self) -> list[luigi.Task]:
        variants: list[str | None] = [None]
        per_frame = per_frame_config(self.record)
        if per_frame not in (None, model_config(self.record)):
            variants.append(_per_frame_variant(self.record))
        return [Train(model=self.model, variant=variant) for variant in variants]

    def up_to_date(self) -> bool:
        file = self._folder() / RESULTS
        return file.is_file() and file.read_text() == as_csv(self._rows())

    def work(self) -> None:
        write_atomic(self._folder() / RESULTS, as_csv(self._rows()).encode())
        self.show()

    def show(self) -> None:
        folder = self._folder()
        tables: dict[str, list[ResultRow]] = {}
        for row in self._rows():
            tables.setdefault(f"{row.split}, {row.protocol}", []).append(row)
        for title, rows in tables.items():
            console.out.print()
            console.print_table(table_of(title, rows))
        show_notes(RunMetrics.read(folder), model_config(self.record))
        shown_folder = from_here(folder)
        fact("numbers", f"{shown_folder}/{RESULTS}, {shown_folder}/{runs.METRICS} (all)")

    def _folder(self) -> Path:
        return runs.run_folder(model_config(self.record))

    def _rows(self) -> list[ResultRow]:
        """The rows of the model's run and of its per-frame model's, as luigi.cfg sets them."""
        configs = {self.record.title: model_config(self.record)}
        per_frame = per_frame_config(self.record)
        if per_frame is not None:
            configs["per frame"] = per_frame
        metrics = {
            title: RunMetrics.read(runs.run_folder(config)) for title, config in configs.items()
        }
        return list(itertools.chain.from_iterable(rows_by_split(metrics).values()))


class EvaluateVIBE(Evaluate):
    """Print and store VIBE's errors on every evaluation split, beside those of the baselines."""

    model = "vibe"


class EvaluateHMMR(Evaluate):
    """Print and store the errors of HMMR and its baselines on every evaluation split."""

    model = "hmmr"


class EvaluatePartDynamics(Evaluate):
    """Print and store the errors of part dynamics and its baselines on every evaluation split."""

    model = "part_dynamics"


def per_frame_config(model: Model) -> VideoConfig | None:
    """The per-frame model's configuration; None with `baseline = false`."""
    if not RunChoice.read(settings(), model).baseline:
        return None
    return model_config(model, _per_frame_variant(model))


def _per_frame_variant(model: Model) -> str:
    """Variant of the per-frame model that belongs to the configured run.

    The configured variants are kept, so that the per-frame model trains on the same windows: with
    `variant = without-3dpw`, it is "without-3dpw+per-frame" (`Model.vary`).
    """
    configured = (RunChoice.read(settings(), model).variant or "").split("+")
    variants = [name for name in configured if name and name != model.baseline]
    return "+".join([*variants, model.baseline])


def show_notes(metrics: RunMetrics, config: VideoConfig, note: str = "") -> None:
    """Print the explanations below the tables: by split, then units, then warnings.

    Args:
        config: Configuration of the training.
        note: Text to print after the units.
    """
    for split, entry in metrics.splits.items():
        for protocol, reason in entry.get(LEFT_OUT, {}).items():
            without = plain(f"{split}, without protocol {protocol}: {reason}")
            console.out.print(f"{console.DOUBT} {without}")
        labels = metrics.label_notes(split)
        for protocol, numbers in by_protocol(entry).items():
            for text in (numbers.get(COMPARES_WITH), labels.get(protocol)):
                if text:
                    console.out.print(f"[dim]{split}, protocol {protocol}: {text}[/dim]")
    _show_dynamics(metrics)
    units = units_of(metrics.splits.values())
    console.out.print(f"[dim]{units}{note}[/dim]\n")
    _show_warnings(metrics, config)


def _show_warnings(metrics: RunMetrics, config: VideoConfig) -> None:
    """Print what makes the numbers doubtful: missing depth, estimated labels, demo data."""
    if not config.learns_depth:
        warn(WITHOUT_DEPTH)
    for split, source in metrics.estimates.items():
        warn(f"trained on the bodies of {split}: {source}, no ground truth")
    if metrics.stand_in:
        console.out.print(DEMO_DATA)


def _show_dynamics(metrics: RunMetrics) -> None:
    """Print a table of each split's errors of past and future bodies by step of time, by the first
    protocol with them; beside published figures on real data.

    An entry is {"pa_mpjpe": {"constant": {"-5": 71.2, "0": 58.1, ...}, ...}, "tracks": 24}, by
    model and step in frames.
    """
    for split, entry in metrics.splits.items():
        entries = [numbers.get("dynamics") for numbers in by_protocol(entry).values()]
        dynamics = next(filter(None, entries), None)
        if dynamics is None:
            continue
        rows = dict(dynamics["pa_mpjpe"])
        if not metrics.stand_in:
            rows |= published.DYNAMICS.get(split, {})
        table = console.new_table(f"{split}, past and future")
        steps = next(iter(rows.values()))
        for step in steps:
            title = f"{int(step):+d} frames" if int(step) else "now"
            table.add_column(title, justify="right", no_wrap=True)
        for model, errors in rows.items():
            table.add_row(
                model, *(f"{errors[step]:.1f}" if step in errors else "-" for step in steps)
            )
        console.out.print()
        console.print_table(table)
        tracks = count(dynamics["tracks"], "track")
        console.out.print(f"[dim]PA-MPJPE from one frame, mean over {tracks}[/dim]")
