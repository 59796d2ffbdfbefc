"""The ablation of Kocabas et al., CVPR 2020, as a Luigi task: `luigi --module tasks Ablation
--seeds 0,1,2`.

`Ablation` requires a `Train` of each variant with each seed. Then `_AblationResults` averages the
errors of their metrics.json over seeds, a `_ProtocolTable` for each split and protocol. A row of
ablation.csv:

    split,protocol,model,seeds,pa_mpjpe,pa_mpjpe_spread,...,frames
    3dpw/test,default,only G,3,57.31,0.12,...,35515
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Final, NamedTuple, Self

import luigi

from cache.storage.durable import write_atomic
from pipeline.cli import console
from pipeline.cli.text import count, from_here
from pipeline.errors import ConfigError
from tasks.base import DEMO_DATA, PipelineTask, fact, warn
from tasks.result_tables import csv_text, shown_metrics
from tasks.results import MEAN_BODY, ResultRow, RunMetrics
from tasks.settings import settings
from tasks.training import Train, model_config
from vibe_model import runs
from vibe_model.evaluation import published
from vibe_model.evaluation.protocols import by_protocol, table_metrics
from vibe_model.metrics import units_of
from vibe_model.sections import VIBE, RunChoice
from vibe_model.vibe.config import PER_FRAME, VARIANTS, TrainConfig

TABLE: Final = "ablation.csv"  # in [paths] runs
WITHOUT_3DPW: Final = "without-3dpw"
_3DPW: Final = "3dpw/train"
# errors that the paper reports


class Ablation(PipelineTask):
    """Train every variant of the paper's ablation once per seed; write ablation.csv to [paths]
    runs.

    Variants that do not fit the configured datasets are skipped unless they are named
    (`_reasons_to_skip`).
    """

    verb = "ablate"
    variants = luigi.Parameter(
        default="", description="of vibe_model.vibe.config; empty: all that fit"
    )
    seeds = luigi.Parameter(default="", description="such as 0,1,2; empty: the configuration's own")

    @property
    def what(self) -> str:
        return f"{count(len(self._variants()), 'variant')}, {count(len(self._seeds()), 'seed')}"

    def requires(self) -> list[luigi.Task]:
        if RunChoice.read(settings()).variant:
            line = settings().source.where("vibe", "variant")
            raise ConfigError(f"{line}: Ablation trains the variants itself; leave it out")
        for variant, seed in self._trainings():
            model_config(VIBE, variant, seed)  # reports mistakes before anything runs
        return [
            Train(model=VIBE.section, variant=variant, seed=seed)
            for variant, seed in self._trainings()
        ]

    def up_to_date(self) -> bool:
        file = settings().paths.runs / TABLE
        return file.is_file() and file.read_text() == self._results().as_csv()

    def work(self) -> None:
        results = self._results()
        write_atomic(settings().paths.runs / TABLE, results.as_csv().encode())
        self.say(TABLE)
        results.show(self._skip_reasons())

    def show(self) -> None:
        self._results().show(self._skip_reasons())

    def _trainings(self) -> list[tuple[str, int | None]]:
        """(variant, seed) of every training, as parameters of `Train`."""
        return list(itertools.product(self._variants(), self._seeds()))

    def _results(self) -> _AblationResults:
        by_variant: dict[str, list[RunMetrics]] = {}
        for variant, seed in self._trainings():
            folder = runs.run_folder(model_config(VIBE, variant, seed))
            by_variant.setdefault(variant, []).append(RunMetrics.read(folder))
        return _AblationResults.average(by_variant)

    def _variants(self) -> list[str]:
        """The variants to train: those that are named, and the baseline, else all that fit. Raises
        ConfigError for an unknown one.
        """
        if not self.variants:
            skipped = self._skip_reasons()
            return [name for name in VARIANTS if name not in skipped]
        named = _words(str(self.variants))
        unknown = [repr(name) for name in named if name not in VARIANTS]
        if unknown:
            raise ConfigError(
                f"--variants: unknown {', '.join(unknown)}; known: {', '.join(VARIANTS)}"
            )
        return named if PER_FRAME in named else [*named, PER_FRAME]

    def _skip_reasons(self) -> dict[str, str]:
        """Variant -> why it is skipped; empty if variants are named."""
        if self.variants:
            return {}
        base = model_config(VIBE)
        assert isinstance(base, TrainConfig)
        return _reasons_to_skip(base)

    def _seeds(self) -> list[int] | list[None]:
        """The seeds to train with; None: that of luigi.cfg. Raises ConfigError if they are no
        numbers.
        """
        if not self.seeds:
            return [None]
        words = _words(str(self.seeds))
        if not all(word.isdecimal() for word in words):
            raise ConfigError(
                f"--seeds {self.seeds}: expected whole numbers with commas between, such as 0,1,2"
            )
        return list(dict.fromkeys(map(int, words)))


def _words(text: str) -> list[str]:
    """The different words of a list with commas."""
    return list(dict.fromkeys(word.strip() for word in text.split(",")))


def _reasons_to_skip(base: TrainConfig) -> dict[str, str]:
    """Variant -> reason, for variants that cannot be trained on the datasets of `base`, or would
    not differ from it.
    """
    reasons = {}
    has_motion = set(base.motion) - set(base.leave_out)
    if not has_motion:
        # the discriminator and MPoser learn from real motion
        for name, variant in VARIANTS.items():
            if variant.changes.get("prior", base.prior) != "none":
                reasons[name] = "[vibe] motion names no real motion"
    if _3DPW not in base.training_splits:
        reasons[WITHOUT_3DPW] = f"{_3DPW} is not trained on"
    elif set(base.splits_of("datasets_3d")) == {_3DPW}:
        reasons[WITHOUT_3DPW] = f"{_3DPW} is the only 3D data"
    return reasons


class _MeanError(NamedTuple):
    """One number of the table."""

    mean: float  # over the seeds
    spread: float | None  # sample standard deviation over the seeds; None for one seed


class _AblationRow(NamedTuple):
    """One model on one split, by one protocol."""

    model: str
    n_runs: int | None  # of which the errors are means; None: a published figure
    errors: Mapping[str, _MeanError]  # by metric; missing without labelled frames

    def text(self, name: str) -> str:
        """An error as text: `51.9 ± 0.3`, `51.9` of one seed, `-` without one."""
        if name not in self.errors:
            return "-"
        error = self.errors[name]
        if error.spread is None:
            return f"{error.mean:.1f}"
        return f"{error.mean:.1f} ± {error.spread:.1f}"


class _ProtocolTable(NamedTuple):
    """All models on one split, by one protocol: the constant mean body, the variants, and published
    figures.
    """

    split: str
    protocol: str
    n_frames: int  # that were evaluated
    rows: Sequence[_AblationRow]

    @classmethod
    def average(
        cls, split: str, protocol: str, by_variant: Mapping[str, Sequence[RunMetrics]]
    ) -> Self | None:
        """Average the errors over seeds; None if the protocol did not evaluate every run."""
        mean_bodies = list[ResultRow]()  # equal ones, of every run
        rows = list[_AblationRow]()
        for variant, by_seed in by_variant.items():
            evaluated = [_rows_by_model(run, split, protocol, variant) for run in by_seed]
            if not all(evaluated):
                return None
            mean_bodies += [run.pop(MEAN_BODY) for run in evaluated]
            for model in evaluated[0]:
                if all(model in run for run in evaluated):  # all seeds have smoothed predictions
                    errors = _mean_errors([run[model].errors for run in evaluated])
                    rows.append(_AblationRow(model, len(evaluated), errors))
        mean_body = mean_bodies[0]
        first = _AblationRow(MEAN_BODY, 1, _mean_errors([mean_body.errors]))
        return cls(split, protocol, mean_body.frames or 0, [first, *rows])

    def show(self, title: str) -> None:
        """Print those errors that the paper reports; if there are none of them, all errors."""
        console.out.print(f"\n{title}")
        metrics = shown_metrics([row.errors for row in self.rows])
        shown = {name: one for name, one in metrics.items() if one.in_ablation} or metrics
        table = console.new_table("")
        for metric in shown.values():
            table.add_column(metric.title, no_wrap=True)
        for row in self.rows:
            table.add_row(row.model, *(row.text(name) for name in shown))
        console.print_table(table)


@dataclass(frozen=True, slots=True)
class _AblationResults:
    """The errors of all runs, averaged over seeds, on all their evaluation splits."""

    tables: Sequence[_ProtocolTable]  # the main protocol of a split first
    stand_in: bool  # whether any run is of demo data

    @classmethod
    def average(cls, by_variant: Mapping[str, Sequence[RunMetrics]]) -> Self:
        """Make the tables. by_variant: metrics of the run with each seed."""
        trained = [*itertools.chain.from_iterable(by_variant.values())]
        stand_in = any(metrics.stand_in for metrics in trained)
        tables = []
        for split, entry in trained[0].splits.items():
            for protocol in by_protocol(entry):
                table = _ProtocolTable.average(split, protocol, by_variant)
                if table is None:
                    continue
                if (split, protocol) == published.ABLATION_OF and not stand_in:
                    table = table._replace(rows=[*table.rows, *_published_rows()])
                tables.append(table)
        return cls(tables, stand_in)

    def as_csv(self) -> str:
        """The rows as CSV, with mean and spread of each error; an unknown number is empty.

        Of published figures, the numbers of seeds and frames are 0.
        """
        measured = table_metrics(row.errors for table in self.tables for row in table.rows)
        titles: list[str] = []
        for name in measured:
            titles += [name, f"{name}_spread"]
        lines: list[list[Any]] = [["split", "protocol", "model", "seeds", *titles, "frames"]]
        for table in self.tables:
            for row in table.rows:
                errors: list[float | str] = []
                for name in measured:
                    numbers = row.errors.get(name, (None, None))
                    errors += ["" if number is None else round(number, 2) for number in numbers]
                frames = 0 if row.n_runs is None else table.n_frames
                cells = [table.split, table.protocol, row.model, row.n_runs or 0]
                lines.append([*cells, *errors, frames])
        return csv_text(lines)

    def show(self, skip_reasons: Mapping[str, str]) -> None:
        """Print a table of each split by its main protocol, and those with published figures.

        skip_reasons: by variant that was not trained.
        """
        shown_splits = set[str]()
        for table in self.tables:
            title = f"{table.split}, {table.n_frames:,} frames"
            if table.split not in shown_splits:
                table.show(title)
            elif any(row.n_runs is None for row in table.rows):
                table.show(f"{title}, protocol {table.protocol}")
            shown_splits.add(table.split)
        if self.tables:
            _show_units([row for table in self.tables for row in table.rows])
        else:
            warn("no numbers: no protocol has results of every run")
        if self.stand_in:
            console.out.print(DEMO_DATA)
        fact("numbers", f"{from_here(settings().paths.runs / TABLE)} (all protocols)")
        for name, why in skip_reasons.items():
            warn(f"skipped {name}: {why}")


def _rows_by_model(
    run: RunMetrics, split: str, protocol: str, variant: str
) -> dict[str, ResultRow]:
    """A run's rows by one protocol; empty if the protocol did not evaluate it."""
    rows = run.rows(split, _title(variant))
    return {row.model: row for row in rows if row.protocol == protocol}


def _published_rows() -> Iterator[_AblationRow]:
    """Yield the rows of the paper's table."""
    for variant, figures in published.ABLATION.items():
        errors = {metric: _MeanError(figure, None) for metric, figure in figures.items()}
        yield _AblationRow(f"{_title(variant)}, published", None, errors)


def _mean_errors(by_seed: Sequence[Mapping[str, float]]) -> dict[str, _MeanError]:
    """Mean and spread of those errors that all seeds have."""
    errors = {}
    for name in by_seed[0]:
        if not all(name in numbers for numbers in by_seed):
            continue
        values = [numbers[name] for numbers in by_seed]
        spread = None
        if len(values) > 1:
            spread = stdev(values)
        errors[name] = _MeanError(fmean(values), spread)
    return errors


def _show_units(rows: Sequence[_AblationRow]) -> None:
    """Print the units of the errors, and what they are means over."""
    units = units_of(row.errors for row in rows)
    seeds = max(row.n_runs or 0 for row in rows)
    spread = "one seed"
    if seeds > 1:
        spread = f"mean ± standard deviation over {seeds} seeds"
    console.out.print(f"\n[dim]{units}; {spread}[/dim]\n")


def _title(variant: str) -> str:
    """A variant's name in the table."""
    if variant in VARIANTS:
        return VARIANTS[variant].title
    return variant
