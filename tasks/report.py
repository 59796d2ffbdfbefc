"""raw -> tracks -> features -> windows -> training -> evaluation -> [report], as a Luigi task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import luigi

import cache
from tasks import terminal
from tasks.base import PipelineTask
from tasks.settings import settings
from tasks.training import EvaluateVIBE, baseline_config, train_config
from vibe_model import runs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.cli.progress import Progress
    from report.data.opened import Opened
    from report.page import Section
    from report.training.run_folder import Run

PAGE: Final = "report.html"  # in [paths] runs
TITLE: Final = "Report on human motion data and VIBE"
_RECORDED: Final = re.compile(r'<code id="report-fingerprint">([0-9a-f]{16})</code>')


class Report(PipelineTask):
    """One page about everything: the data, the training, the results. It is written anew when anything of it changes.

    It lies in [paths] runs, opens from disk and needs no network. `python -m tasks report` writes one of whatever is
    there now.
    """

    verb = "report"

    @property
    def what(self) -> str:
        return "page"

    def requires(self) -> list[luigi.Task]:
        return [EvaluateVIBE()]

    def up_to_date(self) -> bool:
        return recorded(page()) == as_configured().fingerprint()

    def work(self) -> None:
        with terminal.working(self, self.verb, self.what) as progress:
            written = write(as_configured(), page(), progress)
        terminal.say(self.verb, self.what, written.in_words())
        self.tell()

    def tell(self) -> None:
        """Where the page is, and whether it is about stand-ins."""
        tell(page(), stand_in=_stand_in(settings().paths.cache))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a page is to show."""

    root: cache.Root
    raw: Path | None
    body: Path | None
    stream: str
    runs: tuple[tuple[str, Path], ...]  # the name on the page, the folder
    ablation: Path | None  # the folder of ablation.json
    notes: tuple[str, ...]  # what a reader should know of the choice of runs
    training: bool = True

    def fingerprint(self) -> str:
        """Over all that the page shows, and how; see `report.provenance.fingerprint`."""
        from report.provenance import fingerprint
        from report.training.sections import ABLATION

        table = [] if self.ablation is None else [self.ablation / ABLATION]
        files = [f"{f} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in table if f.is_file()]
        raw = [] if self.raw is None or not self.raw.is_dir() else sorted(path.name for path in self.raw.iterdir())
        runs_there = sorted(folder.name for folder in _other_runs())
        others = [TITLE, self.stream, str(self.training), *(name for name, _ in self.runs), *self.notes]
        others += [*files, *raw, *runs_there]
        return fingerprint(self.root, [folder for _, folder in self.runs], others)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of it."""

    sections: int
    size: int  # bytes
    stand_in: bool

    def in_words(self) -> str:
        """As 8 sections, 4.1 MB."""
        return f"{terminal.count(self.sections, 'section')}, {self.size / 1e6:.1f} MB"


def page() -> Path:
    """Where the task's page lies."""
    return settings().paths.runs / PAGE


def as_configured(*, training: bool = True) -> Wanted:
    """The cache, the configured run, its baseline and the ablation: as much of them as there is."""
    found, notes = configured_runs() if training else ((), ())
    return wanted(found, notes=notes, ablation=settings().paths.runs if training else None, training=training)


def wanted(
    chosen: Iterable[tuple[str, Path]],
    *,
    notes: Iterable[str] = (),
    ablation: Path | None = None,
    training: bool = True,
) -> Wanted:
    """The configured cache with these runs."""
    paths, stream = settings().paths, settings().features.stream
    return Wanted(paths.cache, paths.raw, paths.body, stream, tuple(chosen), ablation, tuple(notes), training)


def configured_runs() -> tuple[tuple[tuple[str, Path], ...], tuple[str, ...]]:
    """The runs of luigi.cfg that have begun, by the names of the table of results, and why others are not there."""
    found: dict[str, Path] = {}
    notes = []
    try:
        config, baseline = train_config(), baseline_config()
        configs = {"VIBE": config} | ({} if baseline in (None, config) else {"per frame": baseline})
        for name, of in configs.items():
            folder = runs.run_folder(of)
            if folder.is_dir():
                found[name] = folder
            else:
                notes.append(
                    f"{name}: no run with the settings of {settings().file} has begun on what the cache holds now."
                )
    except terminal.MENDABLE as error:
        notes.append(f"The runs that {settings().file} names cannot be told: {error}")
    return tuple(found.items()), tuple(notes)


def recorded(file: Path) -> str:
    """The fingerprint of what a page shows; "" where there is no such page."""
    if not file.is_file():
        return ""
    found = _RECORDED.findall(file.read_text(encoding="utf-8", errors="replace"))
    return str(found[-1]) if found else ""


def write(of: Wanted, out: Path, progress: Progress) -> Written:
    """Read everything, and write the page. What cannot be read is told in it."""
    from report.page import write_page  # here, as everything of the report: it is slow to import
    from report.summary import summary_section

    made_from = of.fingerprint()  # before anything is read: what changes meanwhile makes the page old
    progress(0, 3, "data")
    shown = list(_data(of))
    health = next((section.data["verdicts"] for section in shown if section.anchor == "stream"), ())
    progress(1, 3, "training")
    read = _read_runs(of.runs)
    shown += _training(of, read, made_from)
    progress(2, 3, "page")
    stand_in = _stand_in(of.root) or any(run.stand_in for run in read)
    out.parent.mkdir(parents=True, exist_ok=True)
    first = summary_section(_opened(of.root), read, stream=of.stream, verdicts=health, trains=of.training)
    write_page(out, shown, title=TITLE, stand_in=stand_in, facts=_facts(of), summary=first)
    progress(3, 3, "")
    return Written(len(shown), out.stat().st_size, stand_in)


def tell(out: Path, *, stand_in: bool) -> None:
    """Where a page is, and whether it is about stand-ins."""
    if stand_in:
        terminal.console.print(terminal.STAND_IN)
    terminal.fact("report", terminal.plain(f"{terminal.shortened(out)} (open it in a browser)"))


def _data(of: Wanted) -> Iterable[Section]:
    from report.data.sections import data_sections
    from report.page import Section

    try:
        opened = cache.open(of.root)
        if not opened.splits:
            raise cache.CacheError(f"{of.root}: the cache holds no split yet. `luigi --module tasks Data` fills it.")
    except terminal.MENDABLE as error:
        return [Section("data", "Data", "nothing.html", {"problems": [str(error)]})]
    return data_sections(of.root, raw=of.raw, body=of.body, stream=of.stream)


def _opened(root: cache.Root) -> Opened:
    from report.data.opened import Opened, open_splits

    try:
        return open_splits(root)
    except terminal.MENDABLE as error:
        return Opened(root, problems=[str(error)])


def _training(of: Wanted, read: Sequence[Run], made_from: str) -> Iterable[Section]:
    from report.provenance import provenance_section
    from report.training.sections import read_ablation, training_sections

    if not of.training:
        return [provenance_section(of.root, (), fingerprint=made_from)]
    content, problems = ({}, []) if of.ablation is None else read_ablation(of.ablation)
    others = [] if of.ablation is None else _runs_of_ablation(content, of)
    beside = _not_shown({folder for _, folder in (*of.runs, *others)})
    return training_sections(
        of.root,
        read,
        notes=[*of.notes, *beside, *problems],
        ablation=content,
        ablation_runs=_read_runs(others),
        fingerprint=made_from,
    )


def _runs_of_ablation(content: Mapping[str, Any], of: Wanted) -> list[tuple[str, Path]]:
    """The runs behind the ablation's table that are not shown anyway."""
    listed = content.get("runs")
    if not isinstance(listed, dict) or of.ablation is None:
        return []
    shown = {folder for _, folder in of.runs}
    found = []
    for variant, names in listed.items():
        for name in names if isinstance(names, list) else ():
            folder = of.ablation / Path(str(name)).name  # never outside the runs' folder
            if folder not in shown and folder.is_dir():
                found.append((f"{variant}, {folder.name}" if len(names) > 1 else str(variant), folder))
    return found


def _read_runs(chosen: Iterable[tuple[str, Path]]) -> list[Run]:
    from report.training.run_folder import read_run

    return [read_run(folder, name) for name, folder in chosen]


def _facts(of: Wanted) -> dict[str, str]:
    from report.provenance import report_facts

    return {"Made": report_facts()["Made"], "Cache": str(of.root), "Runs": str(settings().paths.runs)}


def _other_runs() -> list[Path]:
    """Folders of runs below [paths] runs, the newest first."""
    folder = settings().paths.runs
    found = [path.parent for path in folder.glob("*/config.json")] if folder.is_dir() else []
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _not_shown(shown: set[Path]) -> list[str]:
    """What lies beside the runs that are shown, in words; nothing where they are all."""
    known = {folder.resolve() for folder in shown}
    others = [folder for folder in _other_runs() if folder.resolve() not in known]
    if not others:
        return []
    names = ", ".join(folder.name for folder in others[:5]) + (", ..." if len(others) > 5 else "")
    n = terminal.count(len(others), "run")
    return [
        f"{n} with other settings not shown here: {names}. To show one: python -m tasks report --run "
        f"{terminal.shortened(others[0])}. --run may be repeated."
    ]


def _splits(root: cache.Root) -> list[cache.Split]:
    """The splits that can be opened."""
    try:
        opened = cache.open(root)
        return [opened[name] for name in opened.splits]
    except terminal.MENDABLE:
        return []


def _stand_in(root: cache.Root) -> bool:
    """Is anything in the cache a stand-in: rows of a split, or features of a stream?"""
    from report.provenance import stands_in

    for split in _splits(root):
        manifests = [split.manifest, *(split.stream_manifest(name) for name in split.streams)]
        if any(stands_in(manifest) for manifest in manifests):
            return True
    return False
