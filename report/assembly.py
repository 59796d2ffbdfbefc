"""The whole report: everything is read, and the page written.  evaluation -> report: data, training -> [assembly]"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count, from_here
from report.data import data_sections
from report.data.splits import UNREADABLE, open_splits
from report.page import Section, write_page
from report.provenance import provenance_section, report_facts
from report.summary import summary_section
from report.training import training_sections
from report.training.curves import used_for
from report.training.results import as_csv, as_latex
from report.training.run import PATTERN, Run, read_json, read_run
from vibe_model import runs
from vibe_model.runs import SEQUENCES, WORST_WINDOWS

VERSION: Final = 5  # raised when the page shows the same things otherwise
TITLE: Final = "Report on human motion data and models"
ABLATION: Final = "ablation.json"
ABLATE: Final = "Remove it and run `luigi --module tasks Ablation` again."
_RECORDED: Final = re.compile(r'<code id="report-fingerprint">([0-9a-f]{16})</code>')


@dataclass(frozen=True, slots=True)
class Content:
    """What a page is to show."""

    root: cache.Root
    raw: Path | None
    body: Path | None
    stream: str
    runs_folder: Path  # [paths] runs: its other runs are named
    runs: tuple[tuple[str, Path], ...] = ()  # the name on the page, the folder
    notes: tuple[str, ...] = ()  # what a reader should know of the choice of runs
    ablation: bool = False  # with the ablation of the runs' folder
    training: bool = True

    def fingerprint(self) -> str:
        """16 hex digits over all that the page shows: commits of the cache, files of the runs.

        Reads manifests, and the sizes and times of files. What cannot be read counts as that.
        """
        here = [path.name for path in (self.raw.iterdir() if self.raw is not None and self.raw.is_dir() else ())]
        others = [path.name for path in self.other_runs()]
        state: dict[str, Any] = {"version": VERSION, "software": report_facts()["Software"], "notes": self.notes}
        state |= {"raw": sorted(here), "other runs": sorted(others), "stream": self.stream, "training": self.training}
        try:
            opened = cache.open(self.root)
            state["splits"] = {name: _commits(opened, name) for name in opened.splits}
        except UNREADABLE as error:
            state["splits"] = str(error)
        names = (runs.CONFIG, runs.METRICS, runs.BEST, *(f"{table}.json" for table in (SEQUENCES, WORST_WINDOWS)))
        files = [self.runs_folder / ABLATION] if self.ablation else []
        for _, folder in self.runs:
            files += [*(folder / name for name in names), *sorted(folder.glob(PATTERN))]
        seen = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.exists()]
        state["runs"] = [[(name, str(folder)) for name, folder in self.runs], seen]
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]

    def other_runs(self) -> list[Path]:
        """Folders of runs in the runs' folder, the newest first."""
        found = [path.parent for path in self.runs_folder.glob("*/config.json")]
        return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


@dataclass(frozen=True, slots=True)
class Written:
    """A page that was written."""

    sections: int
    size: int  # bytes
    stand_in: bool

    def __str__(self) -> str:
        """As 8 sections, 4.1 MB."""
        return f"{count(self.sections, 'section')}, {self.size / 1e6:.1f} MB"


def write_report(of: Content, out: Path, progress: Progress = silent) -> Written:
    """Read everything, and write the page, and its table of results as .csv and .tex beside it.

    What cannot be read is reported in the page.
    """
    fingerprint = of.fingerprint()  # before anything is read: what changes meanwhile makes the page old
    progress(0, 3, "training")
    opened = open_splits(of.root)
    read = [read_run(folder, name) for name, folder in of.runs]
    shown, of_ablation = list[Section](), list[Run]()
    if of.training:
        content, problems = read_ablation(of.runs_folder) if of.ablation else ({}, [])
        of_ablation = [read_run(folder, name) for name, folder in _ablation_runs(content, of)]
        notes = [*of.notes, *_not_shown(of, {run.folder.resolve() for run in (*read, *of_ablation)}), *problems]
        more: dict[str, Any] = {"ablation": content, "ablation_runs": of_ablation}
        shown += training_sections(opened, read, raw=of.raw, body=of.body, notes=notes, **more)
    progress(1, 3, "data")
    if opened.splits:
        used = used_for(read) if read else None
        shown += data_sections(opened, raw=of.raw, body=of.body, stream=of.stream, used=used)
    verdicts = next((section.data["verdicts"] for section in shown if section.anchor == "stream"), ())
    shown.append(provenance_section(opened, [*read, *of_ablation], fingerprint=fingerprint))
    progress(2, 3, "page")
    stand_in = opened.stand_in or any(run.stand_in for run in read)
    out.parent.mkdir(parents=True, exist_ok=True)
    first = summary_section(opened, read, stream=of.stream, verdicts=verdicts, trains=of.training)
    facts = {"Made": report_facts()["Made"], "Cache": str(of.root), "Runs": str(of.runs_folder)}
    splits: Mapping[str, Any] = next((section.data["splits"] for section in shown if section.anchor == "results"), {})
    beside = {".csv": as_csv(splits), ".tex": as_latex(splits, stand_in=stand_in)} if splits else {}
    if beside:
        facts["Results as files"] = ", ".join(out.with_suffix(end).name for end in beside)
    for end, text in beside.items():
        out.with_suffix(end).write_text(text, encoding="utf-8")
    write_page(out, shown, title=TITLE, stand_in=stand_in, facts=facts, summary=first)
    progress(3, 3, "")
    return Written(len(shown), out.stat().st_size, stand_in)


def recorded(page: Path) -> str:
    """The fingerprint of what a page shows; "" where there is no such page."""
    found = _RECORDED.findall(page.read_text(encoding="utf-8", errors="replace")) if page.is_file() else []
    return str(found[-1]) if found else ""


def is_stand_in(root: cache.Root) -> bool:
    """Is anything in the cache demo data: rows of a split, or features of a stream?"""
    return open_splits(root).stand_in


def read_ablation(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The content of ablation.json in the runs' folder, empty where there is none, and what is wrong with it."""
    problems: list[str] = []
    content = read_json(folder / ABLATION, problems, ABLATE)
    if content and not isinstance(content.get("rows"), list):
        return {}, [f"{folder / ABLATION}: expected the ablation's rows, found none. {ABLATE}"]
    return content, problems


def _ablation_runs(content: dict[str, Any], of: Content) -> list[tuple[str, Path]]:
    """The runs behind the ablation's table that are not shown anyway."""
    shown = [folder for _, folder in of.runs]
    return [
        (f"{variant}, {folder.name}" if len(names) > 1 else variant, folder)
        for variant, names in content.get("runs", {}).items()
        for folder in (of.runs_folder / Path(name).name for name in names)  # never outside the runs' folder
        if folder.is_dir() and folder not in shown
    ]


def _not_shown(of: Content, shown: set[Path]) -> list[str]:
    """Which runs there are besides those that are shown; nothing where they are all."""
    others = [folder for folder in of.other_runs() if folder.resolve() not in shown]
    if not others:
        return []
    names = ", ".join(folder.name for folder in others[:5]) + (", ..." if len(others) > 5 else "")
    return [
        f"{count(len(others), 'run')} with other settings not shown here: {names}. To show one: python -m tasks report "
        f"--run {from_here(others[0])}. --run may be repeated."
    ]


def _commits(opened: cache.FeatureCache, name: str) -> Any:
    try:
        split = opened[name]
        streams = {stream: split.stream_manifest(stream).get("digest") for stream in split.streams}
        return [split.manifest.get("digest"), streams]
    except UNREADABLE as error:
        return str(error)
