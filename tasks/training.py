"""windows -> training -> evaluation, as Luigi tasks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from pipeline.errors import ConfigError
from tasks import terminal
from tasks.base import PipelineTask
from tasks.data import Data
from tasks.settings import settings, typed
from vibe_model import runs
from vibe_model.config import PRESETS, TrainConfig

if TYPE_CHECKING:
    import luigi

    from pipeline.progress import Progress
    from vibe_model.training import Progress as TrainingProgress

RESULTS = "results.csv"
COLUMNS = {  # metric -> its unit
    "pa_mpjpe": "mm",
    "mpjpe": "mm",
    "pve": "mm",
    "accel": "mm/frame²",
    "accel_error": "mm/frame²",
}


def train_config() -> TrainConfig:
    """[train] of luigi.cfg: a preset, the settings that differ from it, and the paths. Raises ConfigError."""
    given = dict(settings().train)
    preset = given.pop("preset", "published")
    if preset not in PRESETS:
        raise ConfigError(f"{settings().file} [train] preset = {preset}: expected one of {', '.join(PRESETS)}")
    elsewhere: dict[str, Any] = {
        "cache": settings().paths.cache,
        "runs": settings().paths.runs,
        "body": settings().paths.body,
    }
    if twice := sorted(given.keys() & (elsewhere.keys() | {"stream"})):
        raise ConfigError(f"{settings().file} [train] {twice[0]}: is set in [paths] or [features], not here")
    changes = typed(settings().file, "train", given, TrainConfig)
    config = replace(PRESETS[preset](), stream=settings().features.stream, **elsewhere, **changes)
    enabled = set(settings().data.datasets)
    if absent := [name for name in config.splits if name.split("/")[0] not in enabled]:
        raise ConfigError(
            f"{settings().file} [train]: {', '.join(absent)} is to be used, but [data] datasets does not enable it. "
            "Enable it, or set datasets_2d, datasets_3d, motion, validation and evaluation to what there is."
        )
    return config


class TrainVIBE(PipelineTask):
    """Train generator and motion discriminator on the cached features, into runs/<name>-<fingerprint>/."""

    verb = "train"

    @property
    def what(self) -> str:
        return f"VIBE, {settings().train.get('preset', 'published')}"

    def requires(self) -> luigi.Task:
        return Data()

    def up_to_date(self) -> bool:
        return runs.is_complete(train_config())

    def work(self) -> None:
        from vibe_model import training  # imports torch

        config = train_config()
        with terminal.working(self, self.verb, self.what) as progress:
            folder = training.run(config, progress=_telling(progress))
        best = json.loads((folder / runs.METRICS).read_text())["best"]
        detail = f"{config.epochs} epochs of {config.iterations} steps"
        terminal.say(
            self.verb, self.what, f"{detail}, best PA-MPJPE {best['pa_mpjpe']:.1f} mm after epoch {best['epoch'] + 1}"
        )


class EvaluateVIBE(PipelineTask):
    """Print and store the trained model's errors on every evaluation split, beside the constant mean body's."""

    verb = "evaluate"

    @property
    def what(self) -> str:
        return "VIBE"

    def requires(self) -> luigi.Task:
        return TrainVIBE()

    def up_to_date(self) -> bool:
        return (runs.run_folder(train_config()) / RESULTS).is_file()

    def work(self) -> None:
        folder = runs.run_folder(train_config())
        metrics = json.loads((folder / runs.METRICS).read_text())
        rows = list(result_rows(metrics))
        lines = [",".join(("split", "protocol", "model", *COLUMNS, "frames"))]
        lines += [",".join(str(row[key]) for key in ("split", "protocol", "model", *COLUMNS, "frames")) for row in rows]
        runs.replace_file(folder / RESULTS, lambda stream: stream.write(("\n".join(lines) + "\n").encode()))
        self.tell()

    def tell(self) -> None:
        """The table on the terminal, and where to look."""
        folder = runs.run_folder(train_config())
        metrics = json.loads((folder / runs.METRICS).read_text())
        show_results(folder, metrics)


def result_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """metrics.json as rows: a split, a protocol, a model (VIBE or the constant mean body), and its errors."""
    rows = []
    for split, result in metrics.items():
        if "/" not in split:
            continue  # facts of the run
        for protocol, values in (("default", result), ("published", result["published"])):
            for model, numbers in (("VIBE", values), ("mean body", values["baseline"])):
                errors = {name: round(numbers[name], 2) if name in numbers else "" for name in COLUMNS}
                rows.append(
                    {"split": split, "protocol": protocol, "model": model, **errors, "frames": values["frames"]}
                )
    return rows


def show_results(folder: Path, metrics: dict[str, Any]) -> None:
    """The default protocol's rows, and the files where the rest is."""
    errors = [f"{name} {unit}" for name, unit in COLUMNS.items()]
    table = Table("split", "model", *errors, "frames", box=None, pad_edge=False)
    for row in result_rows(metrics):
        if row["protocol"] == "default":
            numbers = [f"{row[name]:.1f}" if row[name] != "" else "-" for name in COLUMNS]
            table.add_row(row["split"], row["model"], *numbers, str(row["frames"]))
    terminal.console.print()
    terminal.console.print(table)
    terminal.console.print()
    if metrics["stand_in"]:
        terminal.console.print(terminal.STAND_IN)
    shown = terminal.shortened(folder)
    terminal.console.print(f"numbers    {shown / RESULTS}  (both protocols: {runs.METRICS})")
    terminal.console.print(f"curves     .venv/bin/tensorboard --logdir {shown.parent}")
    held = terminal.shortened(settings().paths.cache)
    terminal.console.print(f"cache      .venv/bin/python -m pipeline status --cache {held}")


def _telling(progress: Progress) -> Any:
    """Training's news as a bar over all steps, with the losses and the last validation beside it."""
    best: dict[str, float] = {}

    def tell(news: TrainingProgress) -> None:
        for metrics in news.validation.values():
            best["validation"] = metrics["pa_mpjpe"]
        loss = "" if news.terms is None else f"loss {sum(news.terms.values()):.2f}"
        last = f"PA-MPJPE {best['validation']:.1f} mm" if best else ""
        done = news.epoch * news.iterations + news.iteration
        progress(done, news.epochs * news.iterations, f"epoch {news.epoch + 1}/{news.epochs}  {loss}  {last}")

    return tell
