"""raw -> tracks -> features -> windows -> training -> evaluation -> [report], as a Luigi task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import luigi

from pipeline.cli import console
from pipeline.cli.text import from_here
from tasks.base import DEMO_DATA, UNTRAINED_FEATURES, USER_ERRORS, PipelineTask, fact, plain
from tasks.evaluation import Evaluate, baseline_config
from tasks.settings import settings
from tasks.training import model_config
from vibe_model import models, runs
from vibe_model.sections import VIBE, which_runs

if TYPE_CHECKING:
    from vibe_extensions.pages.report.assembly import ReportContent

PAGE: Final = "report.html"  # in [paths] runs


class Report(PipelineTask):
    """Write a page about data, training and results to [paths] runs; out of date when any of them changes.

    The page opens from disk without a network. `python -m tasks report` writes one from the current state.
    """

    verb = "report"
    what = "page"

    def requires(self) -> list[luigi.Task]:
        return [Evaluate(model=m.section) for m in models.every() if which_runs(settings(), m).report]

    def up_to_date(self) -> bool:
        from vibe_extensions.pages.report.assembly import recorded_fingerprint  # slow to import

        return recorded_fingerprint(page()) == as_configured().fingerprint()

    def work(self) -> None:
        from vibe_extensions.pages.report.assembly import write_report

        with self.progress() as progress:
            written = write_report(as_configured(), page(), progress)
        self.say(str(written))
        self.show()

    def show(self) -> None:
        """Print where the page is, and whether it is about demo data."""
        from vibe_extensions.pages.report.data import open_splits

        show(page(), open_splits(settings().paths.cache).mark)


def show(out: Path, mark: str) -> None:
    """Print where a page is, and whether it is about demo data or features of random weights."""
    if mark:
        console.out.print(DEMO_DATA if "demo" in mark else UNTRAINED_FEATURES)
    fact("report", plain(f"{from_here(out)} (open it in a browser)"))


def page() -> Path:
    """Path of the task's page."""
    return settings().paths.runs / PAGE


def as_configured(*, training: bool = True) -> ReportContent:
    """The cache, every model's configured run and baseline, and the ablation, as far as they exist."""
    from vibe_extensions.pages.report.assembly import ReportContent

    s, notes = settings(), list[str]()
    folders: dict[str, Path] = {}
    for model in models.every() if training else ():
        try:
            config, baseline = model_config(model), baseline_config(model)
            per_frame = f"{model.title}, per frame" if "per frame" in folders else "per frame"
            configs = {model.title: config} | ({} if baseline in (None, config) else {per_frame: baseline})
            begun = {name: folder for name, of in configs.items() if (folder := runs.run_folder(of)).is_dir()}
            folders |= begun
            if which_runs(s, model).report:
                missing = f"no run with the settings of {s.file} has started on the current cache."
                notes += [f"{name}: {missing}" for name in configs if name not in begun]
        except USER_ERRORS as error:  # such as a model that luigi.cfg does not name and whose streams are missing
            if model is VIBE or ("report" in s.source.section(model.section) and which_runs(s, model).report):
                notes.append(f"The runs of {model.title} in {s.file} are unknown: {error}")
    where = (s.paths.cache, s.paths.raw, s.paths.body, s.stream.name, s.paths.runs)
    return ReportContent(*where, tuple(folders.items()), tuple(notes), ablation=training, training=training)
