"""The report as a Luigi task, and as `python -m tasks report`.  training -> evaluation ->
[report]
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

import luigi

import cache
from pipeline.cli import console
from pipeline.cli.command_line import Command
from pipeline.cli.progress import bar
from pipeline.cli.text import from_here, size
from pipeline.errors import PipelineError
from pipeline.files.outputs import OutputRule, inputs_of
from pipeline.files.places import is_whole_page
from pipeline.settings import sections
from pipeline.settings.file import settings_file
from pipeline.settings.sections import Settings
from tasks.base import DEMO_DATA, UNTRAINED_FEATURES, USER_ERRORS, PipelineTask, fact, plain, say
from tasks.evaluation import Evaluate, per_frame_config
from tasks.report import DEMO
from tasks.settings import settings
from tasks.training import model_config
from vibe_model import models, runs
from vibe_model.models import Model
from vibe_model.sections import RunChoice
from vibe_model.settings import VideoConfig

if TYPE_CHECKING:
    from tasks.report.assembly import ReportContent

PAGE: Final = "report.html"  # in [paths] runs
_RECORDED: Final = re.compile(r'<code id="report-fingerprint">([0-9a-f]{16})</code>')


class Report(PipelineTask):
    """Write a page about data, training and results to [paths] runs; out of date when any of them
    changes.

    The page opens from disk without a network. `python -m tasks report` writes one from the current
    state.
    """

    verb = "report"
    what = "page"

    def requires(self) -> list[luigi.Task]:
        return [
            Evaluate(model=m.section)
            for m in models.every()
            if RunChoice.read(settings(), m).report
        ]

    def up_to_date(self) -> bool:
        page = _page()
        if _recorded_fingerprint(page) != _configured_content().fingerprint():
            return False
        with page.open("rb") as stream:
            return is_whole_page(stream)

    def work(self) -> None:
        with self.progress() as progress:
            rule = OutputRule("report")
            rule.require_file(_page())
            _configured_content().write(_page(), progress)
        self.say(size(_page().stat().st_size))
        self.show()

    def show(self) -> None:
        """Print where the page is, and whether it is about demo data."""
        from tasks.report.data import OpenedCache

        _show(_page(), OpenedCache.read(settings().paths.cache).mark)


def _show(out: Path, mark: str) -> None:
    """Print where a page is, and whether it is about demo data or features of random weights."""
    if mark:
        console.out.print(DEMO_DATA if mark == DEMO else UNTRAINED_FEATURES)
    fact("report", plain(f"{from_here(out)} (open it in a browser)"))


def _page() -> Path:
    """Path of the task's page."""
    return settings().paths.runs / PAGE


def _recorded_fingerprint(page: Path) -> str:
    """The fingerprint that a page records; "" if there is no such page."""
    if not page.is_file():
        return ""
    marks = _RECORDED.findall(page.read_text(encoding="utf-8", errors="replace"))
    return str(marks[-1]) if marks else ""


def _configured_content() -> ReportContent:
    """The content of the page that luigi.cfg describes.

    It has the cache, and those runs and baselines of the configured models that have begun.
    """
    from tasks.report.assembly import ReportContent  # slow to import

    s = settings()
    notes = list[str]()
    folders: dict[str, Path] = {}
    for model in models.every():
        try:
            configs = _configs(model, folders)
            begun = {name: runs.run_folder(config) for name, config in configs.items()}
            begun = {name: folder for name, folder in begun.items() if folder.is_dir()}
            folders |= begun
            if RunChoice.read(s, model).report:
                missing = f"no run with the settings of {s.file} has started on the current cache."
                notes += [f"{name}: {missing}" for name in configs if name not in begun]
        except USER_ERRORS as error:
            # such as a model that luigi.cfg does not name and whose streams are missing
            is_named = (
                "report" in s.source.section(model.section) and RunChoice.read(s, model).report
            )
            if model.always_reported or is_named:
                notes.append(f"The runs of {model.title} in {s.file} are unknown: {error}")
    return ReportContent(
        s.paths.cache,
        s.paths.raw,
        s.paths.body,
        s.stream.name,
        tuple(folders.items()),
        tuple(notes),
    )


def _configs(model: Model, shown: Collection[str]) -> dict[str, VideoConfig]:
    """Name on the page -> configuration, for a model's configured run and its baseline.

    shown: Names that are in use already.
    """
    configs = {model.title: model_config(model)}
    baseline = per_frame_config(model)
    if baseline is not None and baseline != configs[model.title]:
        name = "per frame"
        if name in shown:
            name = f"{model.title}, per frame"
        configs[name] = baseline
    return configs


def _content_of(args: argparse.Namespace, s: Settings) -> ReportContent:
    """The page's content by the options."""
    from tasks.report.assembly import ReportContent

    if args.cache is None and not args.folders:
        return _configured_content()
    raw = None  # as recorded at conversion
    body = None
    if s.named_paths is not None:
        body = s.named_paths.body
        if args.cache is None:
            raw = s.named_paths.raw
    return ReportContent(
        args.cache or s.paths.cache,
        raw,
        body,
        s.stream.name,
        tuple((folder.resolve().name, folder) for folder in args.folders),
    )


def _run(args: argparse.Namespace) -> int:
    """Write the page, and print its path. With `--cache`, luigi.cfg is optional."""
    from pipeline.show.command import check_page

    missing = [folder for folder in args.folders if not folder.is_dir()]
    if missing:
        raise PipelineError(f"--run {missing[0]}: folder not found. Runs are in [paths] runs.")
    if args.cache is not None:
        cache.open(args.cache)  # raises CacheError
    s = sections.load(settings_file(), tolerant=True, optional=True)
    content = _content_of(args, s)
    if args.out is not None:
        out = args.out
        check_page(out)
    else:
        folder = Path() if s.named_paths is None else s.named_paths.runs
        out = folder / PAGE
    rule = OutputRule("report", inputs_of(content.root), args.overwrite)
    rule.require_file(out)
    with bar("  report", console.out) as progress:
        mark = content.write(out, progress)
    say("report", "page", size(out.stat().st_size))
    _show(out, mark)
    return 0


COMMAND: Final = Command(_run)
