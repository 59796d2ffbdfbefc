"""windows -> training -> evaluation, as Luigi tasks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from pipeline.errors import ConfigError
from pipeline.parsing import typed
from tasks import terminal
from tasks.base import PipelineTask
from tasks.data import NETWORK, Data, enabled_splits
from tasks.settings import settings
from vibe_model import runs
from vibe_model.config import PRESETS, TrainConfig
from vibe_model.errors import VibeModelError

if TYPE_CHECKING:
    import luigi

    from pipeline.progress import Progress
    from vibe_model.held import Holding
    from vibe_model.training import Progress as TrainingProgress

RESULTS: Final = "results.csv"
ERRORS: Final = {  # metric -> its name in the table; mm, accelerations mm per frame^2
    "pa_mpjpe": "PA-MPJPE",
    "mpjpe": "MPJPE",
    "pve": "PVE",
    "accel": "accel",
    "accel_error": "accel error",
}
COLUMNS: Final = ("split", "protocol", "model", *ERRORS, "frames")  # of results.csv


def train_config() -> TrainConfig:
    """[train] of luigi.cfg: a preset, the settings that differ from it, and the paths. Raises ConfigError."""
    given, file = dict(settings().train), settings().file
    preset = given.pop("preset", "published")
    if preset not in PRESETS:
        raise ConfigError(f"{file} [train] preset = {preset}: expected one of {', '.join(PRESETS)}")
    elsewhere: dict[str, Any] = {
        "cache": settings().paths.cache,
        "runs": settings().paths.runs,
        "body": settings().paths.body,
        "stream": settings().features.stream,
    }
    if twice := sorted(given.keys() & elsewhere.keys()):
        raise ConfigError(f"{file} [train] {twice[0]}: is set in [paths] or [features], not here")
    changes = typed(file, "train", given, TrainConfig)
    try:
        config = replace(PRESETS[preset](), **elsewhere, **changes)
    except VibeModelError as error:
        raise ConfigError(f"{file} [train] {error}") from error
    _check_what_it_reads(config)
    return config


def _check_what_it_reads(config: TrainConfig) -> None:
    """What can be known before hours of conversion: are the splits enabled, do they exist, is the checkpoint there?"""
    where, enabled = f"{settings().file} [train]", settings().data.datasets
    if absent := [name for name in config.splits if name.split("/")[0] not in enabled]:
        raise ConfigError(
            f"{where}: {', '.join(absent)} is to be used, but [data] datasets does not enable it. "
            "Enable it, or set datasets_2d, datasets_3d, motion, validation and evaluation to what there is."
        )
    known = [f"{dataset}/{split}" for dataset, split, _ in enabled_splits()]
    if unknown := [name for name in config.splits if name not in known]:
        raise ConfigError(f"{where}: there is no split {', '.join(unknown)}; known: {', '.join(known)}")
    if config.pretrained is not None and not config.pretrained.is_file():
        raise ConfigError(f"{where} pretrained = {config.pretrained}: there is no such file. Name another, or none.")


class TrainVIBE(PipelineTask):
    """Train generator and motion discriminator on the cached features, into runs/<name>-<fingerprint>/."""

    verb = "train"
    resources = NETWORK

    @property
    def what(self) -> str:
        return f"VIBE, {settings().train.get('preset', 'published')}"

    def requires(self) -> luigi.Task:
        train_config()  # a mistake in [train] is told before anything runs
        return Data()

    def up_to_date(self) -> bool:
        return runs.is_complete(train_config())

    def work(self) -> None:
        from vibe_model import training  # imports torch

        config = train_config()
        with terminal.working(self, self.verb, self.what) as progress:
            folder = training.run(config, progress=_telling(progress))
        best = read_metrics(folder)["best"]
        course = f"{terminal.count(config.epochs, 'epoch')} of {terminal.count(config.iterations, 'step')}"
        found = f"validation PA-MPJPE {best['pa_mpjpe']:.1f} mm, best of epoch {best['epoch'] + 1}"
        terminal.say(self.verb, self.what, f"{course}, {found}")


class EvaluateVIBE(PipelineTask):
    """Print and store the trained model's errors on every evaluation split, beside the constant mean body's."""

    verb = "evaluate"

    @property
    def what(self) -> str:
        return "VIBE"

    def requires(self) -> luigi.Task:
        train_config()
        return TrainVIBE()

    def up_to_date(self) -> bool:
        folder = runs.run_folder(train_config())
        return (folder / RESULTS).is_file() and (folder / RESULTS).read_text() == as_csv(read_metrics(folder))

    def work(self) -> None:
        folder = runs.run_folder(train_config())
        content = as_csv(read_metrics(folder)).encode()
        runs.replace_file(folder / RESULTS, lambda stream: stream.write(content))
        self.tell()

    def tell(self) -> None:
        """The table on the terminal, and where to look."""
        folder = runs.run_folder(train_config())
        show_results(folder, read_metrics(folder))


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a finished run."""
    metrics: dict[str, Any] = json.loads((folder / runs.METRICS).read_text())
    return metrics


def result_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """metrics.json as rows: a split, a protocol, a model (VIBE or the constant mean body), and its errors."""
    rows = []
    for split, result in metrics.items():
        if "/" not in split:
            continue  # facts of the run
        for protocol, values in (("default", result), ("published", result["published"])):
            for model, numbers in (("VIBE", values), ("mean body", values["baseline"])):
                errors = {name: round(numbers[name], 2) if name in numbers else "" for name in ERRORS}
                rows.append(
                    {"split": split, "protocol": protocol, "model": model, **errors, "frames": values["frames"]}
                )
    return rows


def as_csv(metrics: dict[str, Any]) -> str:
    """`result_rows` with a line of names; an error that no frame has a label for is left empty."""
    rows = [COLUMNS, *([row[name] for name in COLUMNS] for row in result_rows(metrics))]
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def show_results(folder: Path, metrics: dict[str, Any]) -> None:
    """The default protocol's rows, and the files where the rest is."""
    table = Table("split", "model", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in (*ERRORS.values(), "frames"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result_rows(metrics):
        if row["protocol"] == "default":
            numbers = [f"{row[name]:.1f}" if row[name] != "" else "-" for name in ERRORS]
            table.add_row(row["split"], row["model"], *numbers, f"{row['frames']:,}")
    terminal.console.print()
    terminal.console.print(table)
    terminal.console.print("[dim]mean errors over frames in mm, accelerations in mm per frame²[/dim]\n")
    if metrics["stand_in"]:
        terminal.console.print(terminal.STAND_IN)
    shown = terminal.shortened(folder)
    terminal.fact("numbers", f"{shown / RESULTS} (both protocols), {shown / runs.METRICS} (all)")
    terminal.fact("curves", terminal.command("-m tensorboard.main --logdir", str(shown.parent)))
    terminal.fact(
        "status", terminal.command("-m pipeline status --cache", str(terminal.shortened(settings().paths.cache)))
    )


def _telling(progress: Progress) -> Any:
    """Training's news as a bar over all steps, with the losses and the last validation beside it.

    Before that, features on their way into memory, where the settings say so, and then a line of where they are.
    """
    from vibe_model.held import Holding

    best: dict[str, float] = {}

    def tell(news: TrainingProgress | Holding) -> None:
        if isinstance(news, Holding):
            progress(news.done, news.total, f"features {news.where}")
            if news.done == news.total:
                terminal.fact("features", news.where)
            return
        for metrics in news.validation.values():
            best["validation"] = metrics["pa_mpjpe"]
        loss = "" if news.terms is None else f"loss {sum(news.terms.values()):.2f}"
        last = f"PA-MPJPE {best['validation']:.1f} mm" if best else ""
        done = news.epoch * news.iterations + news.iteration
        progress(done, news.epochs * news.iterations, f"epoch {news.epoch + 1}/{news.epochs}  {loss}  {last}")

    return tell
