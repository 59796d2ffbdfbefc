"""Read everything and write the report.  evaluation -> [report]

A `ReportContent` says what the page is about; its fingerprint, which the page records, tells
whether the page is out of date. `write_report` reads the cache and the runs, makes the sections
(results, bodies, curves, datasets, dropped data) and writes the page.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import FEW, command, count, from_here
from pipeline.conversion.committed import rejected_videos
from pipeline.features.plan import is_untrained
from pipeline.processes.software import version
from tasks.report.bodies import bodies_section
from tasks.report.curves import curves_section
from tasks.report.data import (
    DEMO,
    UNREADABLE,
    OpenedCache,
    accounting_section,
    is_demo,
    open_splits,
    overview_section,
)
from tasks.report.page import PageSection, write_page
from tasks.report.results import results_section
from tasks.report.runs import TrainingRun, read_json, read_run, split_uses
from vibe_model import models, runs
from vibe_model.runs import SEQUENCES

VERSION: Final = 14  # raised when the page's texts or layout change
SOFTWARE: Final = ("vibe-pipeline", "jinja2", "matplotlib", "numpy", "opencv-python", "zarr")
TITLE: Final = "Report on human motion data and models"
ABLATION: Final = "ablation.json"
ABLATE: Final = "Delete it and run `luigi --module tasks Ablation` again."
_RECORDED: Final = re.compile(r'<code id="report-fingerprint">([0-9a-f]{16})</code>')


@dataclass(frozen=True, slots=True)
class ReportContent:
    """The sources of a report page: the cache, the runs, and what to show of them."""

    root: cache.Root
    raw: Path | None  # the folder of the datasets' raw folders; None: as recorded at conversion
    body: Path | None  # folder of a body model
    stream: str  # whose missing features the page counts
    runs_folder: Path  # [paths] runs; its other runs are listed
    runs: tuple[tuple[str, Path], ...] = ()  # name on the page, folder
    notes: tuple[str, ...] = ()  # notes on the choice of runs
    ablation: bool = False  # show the ablation in the runs' folder
    training: bool = True  # show sections about training

    def fingerprint(self) -> str:
        """A fingerprint of the page's sources, 16 hex digits: if it changes, the page is outdated.

        It covers the commits of the cache, and sizes and times of files of the runs and the body.
        """
        state = {
            "version": VERSION,
            "software": _software(),
            "notes": self.notes,
            "stream": self.stream,
            "training": self.training,
            "raw": [str(self.raw), [path.name for path in _entries(self.raw)]],
            "body": [str(self.body), _stamps(_entries(self.body))],
            "splits": _splits_state(self.root),
            "runs": [(name, str(folder)) for name, folder in self.runs],
            "results": _stamps(self._result_files()),
            "other runs": sorted(folder.name for folder in self.other_runs()),
        }
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]

    def _result_files(self) -> list[Path]:
        """The files of the runs and of the ablation that the page shows."""
        names = (runs.CONFIG, runs.METRICS, runs.BEST, runs.CURVES, f"{SEQUENCES}.json")
        files: list[Path] = []
        if self.ablation:
            files.append(self.runs_folder / ABLATION)
        for _, folder in self.runs:
            files += [folder / name for name in names]
        return files

    def other_runs(self) -> list[Path]:
        """Run folders in the runs' folder, the newest first."""
        folders = [path.parent for path in self.runs_folder.glob("*/config.json")]
        return sorted(folders, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def write_report(content: ReportContent, out: Path, progress: Progress = silent) -> tuple[str, str]:
    """Write the page, which itself reports sources that cannot be read.

    Returns the page's size, such as "8 sections, 4.1 MB", and the mark for demo data
    (`OpenedCache.mark`).
    """
    fingerprint = content.fingerprint()  # first, so that later changes make the page out of date
    progress(0, 3, "training")
    opened = open_splits(content.root)
    shown = [read_run(folder, name) for name, folder in content.runs]
    sections: list[PageSection] = []
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    facts = {
        "Made": made,
        "Software": _software(),
        "Cache": str(content.root),
        "Runs": str(content.runs_folder),
    }
    if content.training:
        sections += _training_sections(content, opened, shown)
    progress(1, 3, "data")
    if opened.splits:
        uses = split_uses(shown) if shown else None
        sections += [overview_section(opened, uses), accounting_section(opened)]
    progress(2, 3, "page")
    mark = opened.mark
    if not mark and any(run.stand_in for run in shown):
        mark = DEMO
    out.parent.mkdir(parents=True, exist_ok=True)
    write_page(
        out,
        sections,
        title=TITLE,
        mark=mark,
        facts=facts,
        summary=summary(opened, shown, stream=content.stream, trains=content.training),
        fingerprint=fingerprint,
    )
    progress(3, 3, "")
    return f"{count(len(sections), 'section')}, {out.stat().st_size / 1e6:.1f} MB", mark


def _training_sections(
    content: ReportContent, opened: OpenedCache, shown: Sequence[TrainingRun]
) -> list[PageSection]:
    """The sections on training: results, bodies if there are any, and curves."""
    ablation: dict[str, Any] = {}
    problems: list[str] = []
    if content.ablation:
        ablation, problems = _read_ablation(content.runs_folder)
    of_ablation = [read_run(folder, name) for name, folder in _ablation_runs(ablation, content)]
    drawn = {run.folder.resolve() for run in (*shown, *of_ablation)}
    notes = [*content.notes, *_not_shown(content, drawn), *problems]
    sections = [results_section(shown, ablation)]
    bodies = bodies_section(opened, shown, raw=content.raw, body=content.body)
    if any(bodies.data.values()):
        sections.append(bodies)
    sections.append(curves_section(shown, of_ablation, notes=notes))
    return sections


def summary(
    opened: OpenedCache, shown: Sequence[TrainingRun], *, stream: str, trains: bool = True
) -> dict[str, Any]:
    """Data of the page's first lines: demo parts, problems, and a line about the content.

    stream: The feature stream. trains: Whether the page covers training.
    """
    _, wrong = opened.frames_left_out()
    n_rejected = sum(rejected_videos(split)[0] for split in opened.splits)
    missing = sum(n for (_, name), n in opened.missing.items() if name == stream)
    problems = [*opened.problems]
    if n_rejected:
        problems.append(f"{count(n_rejected, 'video')} rejected (Dropped data)")
    if wrong:
        frames = count(wrong, "person-frame")
        problems.append(f"{frames} dropped because of errors (Dropped data)")
    for run in shown:
        problems += [f"{run.name}: {text}" for text in run.problems]

    state = "complete"
    if missing:
        state = f"with {count(missing, 'row')} missing"
    texts = [
        opened.splits_of_datasets,
        f"{count(opened.n_rows, 'row')} (one person in one frame each)",
    ]
    if not wrong and not n_rejected:
        texts.append("no row dropped because of errors")
    texts.append(f"features {stream} {state}")
    if trains:
        texts += map(_training_state, shown)
        if not shown:
            texts.append("no training run to show")
    mark = "" if problems else "✓ "
    line = f"{mark}{'; '.join(texts)}."
    return {"line": line, "problems": problems, "demo_parts": _demo_parts(opened, shown)}


def _training_state(run: TrainingRun) -> str:
    """A run's progress and best epoch, for the first lines."""
    best = run.metrics.get("best") or {}
    if "epoch" not in best:
        return f"{run.name}: {run.state}"
    return f"{run.name}: {run.state}, best epoch {best['epoch'] + 1}"


def _demo_parts(opened: OpenedCache, shown: Sequence[TrainingRun]) -> str:
    """A sentence that says which of data, body and networks are not real; "" if all are."""
    demo = [split for split in opened.splits if is_demo(split)]
    untrained: set[str] = set()
    for split in opened.splits:
        untrained.update(name for name in split.streams if is_untrained(split, name))

    parts = []
    if demo:
        which = f"{len(demo)} of {len(opened.splits)} splits"
        if len(demo) == len(opened.splits):
            which = "all splits"
        parts.append(f"The data of {which} are synthetic, in the datasets' layouts")
        if any((split.manifest.get("reader") or {}).get("body") for split in demo):
            parts.append("the body model is procedural, not SMPL")
    if untrained:
        article = "the" if demo else "The"
        streams = ", ".join(sorted(untrained))
        parts.append(f"{article} network of the features {streams} has random weights")
    stand_in = [run.name for run in shown if run.stand_in]
    if not parts and stand_in:
        parts.append(f"Trained on demo data: {', '.join(stand_in)}")
    if not parts:
        return ""
    return f"{'; '.join(parts)}."


def _software() -> str:
    """Versions of the packages that draw a page."""
    return ", ".join(f"{name} {version(name)}" for name in SOFTWARE)


def recorded_fingerprint(page: Path) -> str:
    """The fingerprint that a page records; "" if there is no such page."""
    if not page.is_file():
        return ""
    marks = _RECORDED.findall(page.read_text(encoding="utf-8", errors="replace"))
    return str(marks[-1]) if marks else ""


def _read_ablation(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Content of ablation.json in the runs' folder, empty if there is none, and its problems."""
    problems: list[str] = []
    ablation = read_json(folder / ABLATION, problems, ABLATE)
    if ablation and not isinstance(ablation.get("rows"), list):
        return {}, [f"{folder / ABLATION}: expected a list of rows, found none. {ABLATE}"]
    return ablation, problems


def _ablation_runs(ablation: dict[str, Any], content: ReportContent) -> list[tuple[str, Path]]:
    """(name, folder) of the ablation's runs that are not among `content.runs`."""
    shown = [folder for _, folder in content.runs]
    of_ablation = []
    for variant, names in ablation.get("runs", {}).items():
        for name in names:
            folder = content.runs_folder / Path(name).name  # stay in the runs' folder
            if not folder.is_dir() or folder in shown:
                continue
            title = variant
            if len(names) > 1:
                title += f", {folder.name}"
            of_ablation.append((title, folder))
    return of_ablation


def _not_shown(content: ReportContent, shown: set[Path]) -> list[str]:
    """Notes about the runs that are not shown."""
    hidden = [folder for folder in content.other_runs() if folder.resolve() not in shown]
    if not hidden:
        return []
    names = ", ".join(folder.name for folder in hidden[:FEW])
    if len(hidden) > FEW:
        names += ", ..."
    show = command("report", "--run", from_here(hidden[0]), module="tasks")
    notes = [
        f"{count(len(hidden), 'run')} with other settings not shown: {names}. To show one: "
        f"{show} (repeatable)."
    ]
    of_models = {
        str(read_json(folder / runs.CONFIG, [], "").get("of_model", "vibe")) for folder in hidden
    }
    for name in sorted(of_models):
        text = models.not_installed(name)
        if text:
            notes.append(f"Among them are some of {text}.")
    return notes


def _splits_state(root: cache.Root) -> Any:
    """Digests of the cache's splits and their streams, or why it cannot be read."""
    try:
        opened = cache.open(root)
        return {name: _commits(opened, name) for name in opened.splits}
    except UNREADABLE as error:
        return str(error)


def _commits(opened: cache.FeatureCache, name: str) -> Any:
    """Digests of a split and its streams, or why they cannot be read."""
    try:
        split = opened[name]
        streams = {stream: split.stream_manifest(stream).get("digest") for stream in split.streams}
        return [split.manifest.get("digest"), streams]
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
