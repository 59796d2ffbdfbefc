"""Read everything and write the report.  evaluation -> [report]

A `ReportContent` says what the page is about; its fingerprint, which the page records, tells
whether the page is out of date. `ReportContent.write` reads the cache and the runs, makes the
sections (results, bodies, curves, datasets, dropped data) and writes the page. The section of
results (`_results_section`) has a table for each split, with the rows that the command `evaluate`
prints.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.processes.software import version
from pipeline.show.page import templates, write
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.grading import stored_words
from tasks.report import DEMO, PageSection
from tasks.report.bodies import bodies_section, portraits
from tasks.report.curves import curves_section
from tasks.report.data import (
    UNREADABLE,
    OpenedCache,
)
from tasks.report.runs import TrainingRun
from tasks.result_tables import shown_metrics
from tasks.results import ResultRow, RunMetrics, rows_by_split
from vibe_model import runs
from vibe_model.evaluation.protocols import LEFT_OUT, find
from vibe_model.metrics import Metric, describe_directions, units_of

VERSION: Final = 18  # raised when the page's texts or layout change
SOFTWARE: Final = ("vibe-pipeline", "jinja2", "matplotlib", "numpy", "opencv-python", "zarr")


@dataclass(frozen=True, slots=True)
class ReportContent:
    """The sources of a report page: the cache, the runs, and what to show of them."""

    root: cache.Root
    raw: Path | None  # the folder of the datasets' raw folders; None: as recorded at conversion
    body: Path | None  # folder of a body model
    stream: str  # whose missing features the page counts
    runs: tuple[tuple[str, Path], ...] = ()  # name on the page, folder
    notes: tuple[str, ...] = ()  # notes on the choice of runs

    def fingerprint(self) -> str:
        """A fingerprint of the page's sources, 16 hex digits: if it changes, the page is outdated.

        It covers the commits of the cache, and sizes and times of files of the runs and the body.
        """
        state = {
            "version": VERSION,
            "software": _software(),
            "notes": self.notes,
            "stream": self.stream,
            "raw": [str(self.raw), [path.name for path in _entries(self.raw)]],
            "body": [str(self.body), _stamps(_entries(self.body))],
            "splits": _splits_state(self.root),
            "runs": [(name, str(folder)) for name, folder in self.runs],
            "results": _stamps(self._result_files()),
        }
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]

    def write(self, out: Path, progress: Progress = silent) -> str:
        """Write the page, one HTML file without scripts, which itself reports splits and runs that
        cannot be read. Its styles and content security policy are those of `pipeline.show`.

        Returns the mark for demo data (`OpenedCache.mark`).
        """
        fingerprint = self.fingerprint()  # first, so that later changes make the page out of date
        progress(0, 3, "training")
        opened = OpenedCache.read(self.root)
        problems = [*opened.problems]
        shown: list[TrainingRun] = []
        for name, folder in self.runs:
            try:
                shown.append(TrainingRun.read(folder, name))
            except PipelineError as error:
                problems.append(str(error))
        opened = replace(opened, problems=problems)
        sections = [_results_section(shown)]
        bodies = bodies_section(opened, shown, raw=self.raw, body=self.body)
        if any(bodies.data.values()):
            sections.append(bodies)
        sections.append(curves_section(shown, self.notes))
        progress(1, 3, "data")
        if opened.splits:
            sections += opened.sections()
        progress(2, 3, "page")
        mark = opened.mark
        if not mark and any(run.stand_in for run in shown):
            mark = DEMO
        facts = {
            "Made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "Software": _software(),
            "Cache": str(self.root),
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        page = templates("report", Path(__file__).parent / "templates").get_template("report.html")
        rendered = page.stream(
            sections=sections,
            mark=mark,
            portraits=portraits(opened, self.raw),
            summary=_summary(opened, shown, self.stream),
            facts=facts,
            fingerprint=fingerprint,
        )
        write(rendered, out)
        progress(3, 3, "")
        return mark

    def _result_files(self) -> list[Path]:
        """The files of the runs that the page shows."""
        names = (runs.CONFIG, runs.METRICS, runs.BEST, runs.CURVES, f"{runs.SEQUENCES}.json")
        files: list[Path] = []
        for _, folder in self.runs:
            files += [folder / name for name in names]
        return files


def _summary(opened: OpenedCache, shown: Sequence[TrainingRun], stream: str) -> dict[str, Any]:
    """Data of the page's first lines: problems, and a line about the content.

    stream: The feature stream.
    """
    n_errors = opened.dropped_frames().errors
    n_rejected = sum(ConversionRecord(split).n_rejected for split in opened.splits)
    missing = opened.n_missing.get(stream, 0)
    problems = [*opened.problems]
    if n_rejected:
        problems.append(f"{count(n_rejected, 'video')} rejected (Dropped data)")
    if n_errors:
        frames = count(n_errors, "person-frame")
        problems.append(f"{frames} dropped because of errors (Dropped data)")

    state = "complete"
    if missing:
        state = f"with {count(missing, 'row')} missing"
    texts = [
        opened.splits_of_datasets,
        f"{count(opened.n_rows, 'row')} (one person in one frame each)",
    ]
    if not n_errors and not n_rejected:
        texts.append("no row dropped because of errors")
    texts.append(f"features {stream} {state}")
    texts += map(_training_state, shown)
    if not shown:
        texts.append("no training run to show")
    mark = "" if problems else "✓ "
    return {"line": f"{mark}{'; '.join(texts)}.", "problems": problems}


def _training_state(run: TrainingRun) -> str:
    """A run's progress and best epoch, for the first lines."""
    text = f"{run.name}: {run.state}"
    if run.metrics is not None and run.metrics.best is not None:
        text += f", best epoch {run.metrics.best['epoch'] + 1}"
    return text


def _software() -> str:
    """Versions of the packages that draw a page."""
    return ", ".join(f"{name} {version(name)}" for name in SOFTWARE)


def _splits_state(root: cache.Root) -> Any:
    """Digests of the cache's splits and their streams, or why it cannot be read."""
    try:
        opened = cache.open(root)
        return {name: _commits(opened, name) for name in opened.splits}
    except UNREADABLE as error:
        return str(error)


def _commits(opened: cache.FeatureCache, name: str) -> Any:
    """Digests of a split and its streams, and its tracks by grade; or why they cannot be read."""
    try:
        split = opened[name]
        streams = {
            stream: split.open_stream(stream).manifest.get("digest") for stream in split.streams
        }
        return [split.manifest.get("digest"), streams, stored_words(split)]
    except UNREADABLE as error:
        return str(error)


def _entries(folder: Path | None) -> list[Path]:
    """Files and folders in a folder; none if it does not exist."""
    if folder is None or not folder.is_dir():
        return []
    return sorted(folder.iterdir())


def _stamps(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Path, size and time of the files that exist."""
    stamps = []
    for file in files:
        if file.exists():
            status = file.stat()
            stamps.append((str(file), status.st_size, status.st_mtime_ns))
    return stamps


@dataclass(frozen=True)
class _SplitTable:
    """All models on one split, by each protocol."""

    rows: Sequence[ResultRow]
    notes: Sequence[str]  # about labels, and protocols that cannot evaluate the split

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that any row has."""
        return shown_metrics([row.errors for row in self.rows])


def _results_section(runs: Sequence[TrainingRun]) -> PageSection:
    """The section of results. On demo data, there are no published figures."""
    by_run = {run.name: run.metrics for run in runs if run.metrics is not None}
    is_demo = any(run.stand_in for run in runs)
    tables = {}
    for split, rows in rows_by_split(by_run, with_published=not is_demo).items():
        notes = dict[str, None]()
        for of_run in by_run.values():
            if split in of_run.splits:
                notes |= dict.fromkeys(_notes(of_run, split))
        tables[split] = _SplitTable(rows, [*notes])

    rows = [*itertools.chain.from_iterable(table.rows for table in tables.values())]
    errors = [row.errors for row in rows]
    metrics = shown_metrics(errors)
    data = {
        "splits": tables,
        "protocols": list(map(find, dict.fromkeys(row.protocol for row in rows))),
        "metrics": metrics.values(),
        "units": units_of(errors),
        "directions": describe_directions(metrics.values()),
        "without_depth": [
            run.name for run in runs if run.splits and run.config and not run.config.learns_depth
        ],
        "waiting": [f"{run.name}: {run.state}" for run in runs if not run.splits],
    }
    return PageSection("results", "Results", data, "" if tables else "no run has results yet")


def _notes(metrics: RunMetrics, split: str) -> list[str]:
    """What a run's errors on a split are compared with, and why protocols are missing."""
    notes = []
    for protocol, labels in metrics.label_notes(split).items():
        notes.append(f"Protocol {protocol}: {labels}.")
    for protocol, reason in metrics.splits[split].get(LEFT_OUT, {}).items():
        notes.append(f"Not evaluated by protocol {protocol}: {reason}.")
    return notes
