"""The ablation of Kocabas et al., CVPR 2020, as a Luigi task: `luigi --module tasks Ablation
--seeds 0,1,2`.

`Ablation` requires a `Train` of each variant with each seed. Then `AblationTable` reads their
metrics.json, and averages the errors over seeds. A row of ablation.csv:

    split,protocol,model,seeds,pa_mpjpe,pa_mpjpe_spread,...,frames
    3dpw/test,default,only G,3,57.31,0.12,...,35515
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Final, NamedTuple

import luigi

from cache.storage.durable import write_atomic
from pipeline.cli import console
from pipeline.cli.text import count, from_here
from pipeline.errors import ConfigError
from tasks.base import DEMO_DATA, PipelineTask, fact, warn
from tasks.data import Data
from tasks.results import MEAN_BODY, ResultRow, RunMetrics, metric_titles
from tasks.settings import settings
from tasks.training import Train, train_config
from vibe_model import runs
from vibe_model.evaluation import published
from vibe_model.evaluation.protocols import by_protocol, table_metrics
from vibe_model.metrics import units_of
from vibe_model.runs import csv_text
from vibe_model.sections import VIBE, RunChoice
from vibe_model.vibe.config import PER_FRAME, VARIANTS, TrainConfig

TABLE: Final = "ablation.csv"  # in [paths] runs
WITHOUT_3DPW: Final = "without-3dpw"
_3DPW: Final = "3dpw/train"
# errors that the paper reports
_PAPER_METRICS: Final = ("pa_mpjpe", "mpjpe", "pve", "accel", "accel_error")


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
            train_config(variant, seed)  # reports mistakes before anything runs
        return [
            Data(),
            *(
                Train(model=VIBE.section, variant=variant, seed=seed)
                for variant, seed in self._trainings()
            ),
        ]

    def up_to_date(self) -> bool:
        file = settings().paths.runs / TABLE
        return file.is_file() and file.read_text() == self._table().as_csv()

    def work(self) -> None:
        write_atomic(settings().paths.runs / TABLE, self._table().as_csv().encode())
        self.say(TABLE)
        self.show()

    def show(self) -> None:
        """Print tables of errors, and the file with all numbers.

        Each split has a table by its first protocol, and tables by those other protocols for which
        there are published figures.
        """
        table = self._table()
        tables: dict[tuple[str, str], list[_AblationRow]] = {}
        for row in table.rows:
            tables.setdefault((row.split, row.protocol), []).append(row)
        shown_splits: set[str] = set()
        for (split, protocol), rows in tables.items():
            title = f"{split}, {rows[0].frames:,} frames"
            if split in shown_splits:  # by another protocol than the first
                if not any(row.is_published for row in rows):
                    continue
                title += f", protocol {protocol}"
            shown_splits.add(split)
            console.out.print(f"\n{title}")
            _show_errors(rows)

        if table.rows:
            _show_units(table.rows)
        else:
            warn("no numbers: no protocol has results of every run")
        if table.stand_in:
            console.out.print(DEMO_DATA)
        fact("numbers", f"{from_here(settings().paths.runs / TABLE)} (all protocols)")
        for name, why in self._reasons_to_skip().items():
            warn(f"skipped {name}: {why}")

    def _trainings(self) -> list[tuple[str, int | None]]:
        """(variant, seed) of every training, as parameters of `Train`."""
        return list(itertools.product(self._variants(), self._seeds()))

    def _table(self) -> AblationTable:
        by_variant: dict[str, list[RunMetrics]] = {}
        for variant, seed in self._trainings():
            folder = runs.run_folder(train_config(variant, seed))
            by_variant.setdefault(variant, []).append(RunMetrics.read(folder))
        return AblationTable(by_variant)

    def _variants(self) -> list[str]:
        """The variants to train: those that are named, and the baseline, else all that fit. Raises
        ConfigError for an unknown one.
        """
        if not self.variants:
            skipped = self._reasons_to_skip()
            return [name for name in VARIANTS if name not in skipped]
        named = list(dict.fromkeys(word.strip() for word in str(self.variants).split(",")))
        unknown = [repr(name) for name in named if name not in VARIANTS]
        if unknown:
            raise ConfigError(
                f"--variants: unknown {', '.join(unknown)}; known: {', '.join(VARIANTS)}"
            )
        return named if PER_FRAME in named else [*named, PER_FRAME]

    def _reasons_to_skip(self) -> dict[str, str]:
        """Variant -> why it is skipped; empty if variants are named."""
        if self.variants:
            return {}
        return _reasons_to_skip(train_config())

    def _seeds(self) -> list[int] | list[None]:
        """The seeds to train with; None: that of luigi.cfg. Raises ConfigError if they are no
        numbers.
        """
        if not self.seeds:
            return [None]
        words = [word.strip() for word in str(self.seeds).split(",")]
        if not all(word.isdecimal() for word in words):
            raise ConfigError(
                f"--seeds {self.seeds}: expected whole numbers with commas between, such as 0,1,2"
            )
        return list(dict.fromkeys(map(int, words)))


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


@dataclass(frozen=True, slots=True)
class _AblationRow:
    """One model on one split, by one protocol."""

    split: str
    protocol: str
    model: str
    seeds: int  # number of averaged runs; 0: a published figure
    frames: int
    errors: Mapping[str, _MeanError]  # by metric; missing without labelled frames

    @property
    def is_published(self) -> bool:
        return self.seeds == 0

    @property
    def means(self) -> dict[str, float]:
        return {name: error.mean for name, error in self.errors.items()}

    def text(self, name: str) -> str:
        """An error as text: `51.9 ± 0.3`, `51.9` of one seed, `-` without one."""
        if name not in self.errors:
            return "-"
        error = self.errors[name]
        if error.spread is None:
            return f"{error.mean:.1f}"
        return f"{error.mean:.1f} ± {error.spread:.1f}"


class AblationTable:
    """The errors of all runs, averaged over seeds, on all their evaluation splits.

    The first row of each split and protocol is the constant mean body.
    """

    def __init__(self, by_variant: Mapping[str, Sequence[RunMetrics]]) -> None:
        """by_variant: Of the run with each seed."""
        self.by_variant = by_variant
        trained = [*itertools.chain.from_iterable(by_variant.values())]
        # whether any run is of demo data
        self.stand_in = any(metrics.stand_in for metrics in trained)
        self.rows: list[_AblationRow] = []
        for split, entry in trained[0].splits.items():
            for protocol in by_protocol(entry):
                self.rows += self._rows_of(split, protocol)

    def as_csv(self) -> str:
        """The rows as CSV, with mean and spread of each error; an unknown number is empty."""
        measured = table_metrics(row.means for row in self.rows)
        titles: list[str] = []
        for name in measured:
            titles += [name, f"{name}_spread"]
        lines: list[list[Any]] = [["split", "protocol", "model", "seeds", *titles, "frames"]]
        for row in self.rows:
            errors: list[float | str] = []
            for name in measured:
                numbers: tuple[float | None, float | None] = (None, None)
                if name in row.errors:
                    numbers = row.errors[name]
                errors += ["" if number is None else round(number, 2) for number in numbers]
            lines.append([row.split, row.protocol, row.model, row.seeds, *errors, row.frames])
        return csv_text(lines)

    def _rows_of(self, split: str, protocol: str) -> Iterator[_AblationRow]:
        """Yield the rows of a split and protocol: the mean body, the variants, and published
        figures. No row if the protocol did not evaluate every run.
        """
        by_model: dict[str, list[ResultRow]] = {MEAN_BODY: []}  # title -> rows of its seeds
        for variant, by_seed in self.by_variant.items():
            for metrics in by_seed:
                for row in ResultRow.read_entry(split, metrics.splits[split], _title(variant)):
                    if row.protocol == protocol:
                        by_model.setdefault(row.model, []).append(row)
        seeds = [len(by_seed) for by_seed in self.by_variant.values()]
        mean_body = by_model[MEAN_BODY]
        if len(mean_body) < sum(seeds):
            return
        del mean_body[1:]  # it is the same for every run
        for model, rows in by_model.items():
            if model == MEAN_BODY or len(rows) in seeds:  # all seeds have smoothed predictions
                errors = _mean_errors([row.errors for row in rows])
                frames = mean_body[0].frames or 0
                yield _AblationRow(split, protocol, model, len(rows), frames, errors)
        if (split, protocol) == published.ABLATION_OF and not self.stand_in:
            yield from _published_rows()


def _published_rows() -> Iterator[_AblationRow]:
    """Yield the rows of the paper's table."""
    split, protocol = published.ABLATION_OF
    for variant, figures in published.ABLATION.items():
        errors = {metric: _MeanError(figure, None) for metric, figure in figures.items()}
        title = f"{_title(variant)}, published"
        yield _AblationRow(split, protocol, title, seeds=0, frames=0, errors=errors)


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


def _show_errors(rows: Sequence[_AblationRow]) -> None:
    """Print those errors that the paper reports; if there are none of them, all errors."""
    titles = metric_titles([row.errors for row in rows])
    shown = {name: title for name, title in titles.items() if name in _PAPER_METRICS} or titles
    table = console.new_table("", *shown.values())
    for row in rows:
        table.add_row(row.model, *(row.text(name) for name in shown))
    console.print_table(table)


def _show_units(rows: Sequence[_AblationRow]) -> None:
    """Print the units of the errors, and what they are means over."""
    units = units_of(row.errors for row in rows)
    seeds = max(row.seeds for row in rows)
    spread = "one seed"
    if seeds > 1:
        spread = f"mean ± standard deviation over {seeds} seeds"
    console.out.print(f"\n[dim]{units}; {spread}[/dim]\n")


def _title(variant: str) -> str:
    """A variant's name in the table."""
    if variant in VARIANTS:
        return VARIANTS[variant].title
    return variant
