"""windows -> training -> evaluation, as Luigi tasks."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import luigi
from rich.table import Table

from pipeline.cli import console
from pipeline.errors import ConfigError
from tasks import children, terminal
from tasks.base import PipelineTask
from tasks.data import NETWORK, Data
from tasks.settings import check_what_it_reads, own_config, settings, which_runs
from vibe_model import runs
from vibe_model.metrics import ERRORS, PROTOCOLS, UNITS
from vibe_model.settings.config import TrainConfig
from vibe_model.settings.variants import PER_FRAME

if TYPE_CHECKING:
    from pipeline.cli.progress import Progress
    from vibe_model.training.feature_table import TableProgress
    from vibe_model.training.loop import Progress as TrainingProgress

RESULTS: Final = "results.csv"
COLUMNS: Final = ("split", "protocol", "model", *ERRORS, "frames")  # of results.csv


def train_config(variant: str = "", seed: int | None = None) -> TrainConfig:
    """[train] of luigi.cfg: a preset, a variant of it, the settings that differ from these, and the paths.

    variant (of `vibe_model.settings.variants`) and seed: in place of luigi.cfg's. Raises ConfigError.
    """
    config = own_config(settings(), variant, seed)
    check_what_it_reads(settings(), config)
    return _with_prior(config)


def _with_prior(config: TrainConfig) -> TrainConfig:
    """Filled in: the checkpoint of the motion prior that `TrainMPoser` trains, where the settings name none."""
    if config.prior != "mposer" or config.mposer is not None:
        return config
    from tasks.mposer import mposer_checkpoint  # it needs the settings of training, too

    return replace(config, mposer=mposer_checkpoint(config))


class TrainVIBE(PipelineTask):
    """Train generator and motion discriminator on the cached features, into runs/<name>-<fingerprint>/."""

    verb = "train"
    resources = NETWORK
    variant = luigi.Parameter(default="", description="of vibe_model.settings.variants; empty: as luigi.cfg says")
    seed = luigi.IntParameter(default=-1, description="-1: as luigi.cfg says")

    @property
    def what(self) -> str:
        config = self.config()
        return f"VIBE, {config.name}" + (f", seed {config.seed}" if self.seed >= 0 else "")

    def config(self) -> TrainConfig:
        return train_config(self.variant, None if self.seed < 0 else self.seed)

    def requires(self) -> list[luigi.Task]:
        config = self.config()  # a mistake in [train] is told before anything runs
        if config.prior != "mposer" or settings().train.get("mposer", "none") not in ("", "none"):
            return [Data()]
        from tasks.mposer import TrainMPoser  # it needs the settings of training, too

        return [Data(), TrainMPoser(variant=self.variant, seed=self.seed)]

    def up_to_date(self) -> bool:
        return runs.is_complete(self.config())

    def work(self) -> None:
        config = self.config()
        if other := runs.beside(config):
            terminal.say(self.verb, self.what, f"a new run beside {terminal.plain(other)}", mark=console.IDLE)
        try:
            with terminal.working(self, self.verb, self.what) as progress:
                folder = train(config, self.variant, progress, self.what)
        except KeyboardInterrupt as error:
            with suppress(Exception):  # whatever happens to the files: it is the interruption that counts
                error.add_note(f"of {self.what}, {kept(config)}")
            raise
        best = read_metrics(folder)["best"]
        course = f"{terminal.count(config.epochs, 'epoch')} of {terminal.count(config.iterations, 'step')}"
        found = f"validation PA-MPJPE {best['pa_mpjpe']:.1f} mm, best of epoch {best['epoch'] + 1}"
        terminal.say(self.verb, self.what, f"{course}, {found}")


def kept(config: TrainConfig) -> str:
    """What there is of a training that ends now: the step of its last checkpoint."""
    last = runs.run_folder(config) / "last.pt"
    if not last.is_file():
        return "nothing, since no checkpoint was written yet"
    import torch

    step = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["course"]["step"]
    return f"step {step:,} of {config.epochs * config.iterations:,} ({terminal.shortened(last)})"


def train(config: TrainConfig, variant: str, progress: Progress, what: str) -> Path:
    """Train in this process, or in as many as the settings say, by torch's own launcher. Returns the run's folder.

    what: whose epochs the lines are.
    """
    from tasks.prediction.pictures import pictures
    from vibe_model import training  # imports torch
    from vibe_model.training.parallel import n_processes

    n = n_processes(config)
    if n == 1:
        return training.run(config, progress=telling(progress, what), pictures=pictures(config))
    progress(0, config.epochs * config.iterations, f"{n} processes")
    launch = [sys.executable, "-m", "tasks.launcher", "--standalone", "--nproc-per-node", str(n)]
    code = children.run([*launch, "-m", "tasks", "train", "--variant", variant, "--seed", str(config.seed)])
    if code != 0:
        raise ConfigError(f"training in {n} processes ended with exit code {code}: what they said is above")
    return runs.run_folder(config)


class EvaluateVIBE(PipelineTask):
    """Print and store the trained model's errors on every evaluation split, beside those of the baselines.

    A temporal model is worth its name where it beats the same regressor frame by frame, and that one smoothed in time:
    they are trained along, unless luigi.cfg says `baseline = false`.
    """

    verb = "evaluate"

    @property
    def what(self) -> str:
        return "VIBE"

    def requires(self) -> list[luigi.Task]:
        config, per_frame = train_config(), baseline_config()
        wanted: list[luigi.Task] = [TrainVIBE()]
        return wanted if per_frame in (None, config) else [*wanted, TrainVIBE(variant=baseline_variant())]

    def up_to_date(self) -> bool:
        folder = runs.run_folder(train_config())
        return (folder / RESULTS).is_file() and (folder / RESULTS).read_text() == as_csv(_all_rows())

    def work(self) -> None:
        folder = runs.run_folder(train_config())
        content = as_csv(_all_rows()).encode()
        runs.replace_file(folder / RESULTS, lambda stream: stream.write(content))
        self.tell()

    def tell(self) -> None:
        """The table on the terminal, and where to look."""
        folder = runs.run_folder(train_config())
        show_results(folder, _all_rows(), stand_in=read_metrics(folder)["stand_in"])


def baseline_config() -> TrainConfig | None:
    """The per-frame baseline's configuration; None where luigi.cfg says that there is to be none."""
    return train_config(baseline_variant()) if which_runs(settings()).baseline else None


def baseline_variant() -> str:
    """The per-frame baseline of the configured run: trained on the same windows, whatever variant that is."""
    own = [name for name in (which_runs(settings()).variant or "").split("+") if name and name != PER_FRAME]
    return "+".join([*own, PER_FRAME])


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a finished run."""
    metrics: dict[str, Any] = json.loads((folder / runs.METRICS).read_text())
    return metrics


def _all_rows() -> list[dict[str, Any]]:
    """The results of the configured run, and below them those of the baselines."""
    config, baseline = train_config(), baseline_config()
    metrics = read_metrics(runs.run_folder(config))
    per_frame = None if baseline is None else read_metrics(runs.run_folder(baseline))
    return result_rows(metrics, per_frame)


def result_rows(metrics: Mapping[str, Any], per_frame: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """metrics.json as rows: a split, a protocol, a model, and its errors.

    Models: VIBE; the per-frame baseline and that one smoothed, of `per_frame`, its run's metrics.json; the mean body.
    """
    rows = []
    for split, result in metrics.items():
        if "/" not in split:
            continue  # facts of the run
        for protocol in PROTOCOLS:
            models = {"VIBE": _of(protocol, result)}
            if per_frame is not None:
                found = _of(protocol, per_frame[split])
                models |= {"per frame": found, "per frame, smoothed": found.get("smoothed", {})}
            models["mean body"] = models["VIBE"]["baseline"]
            for model, numbers in models.items():
                errors = {name: round(numbers[name], 2) if name in numbers else "" for name in ERRORS}
                frames = models["VIBE"]["frames"] or models["VIBE"].get("frames_2d", 0)
                rows.append({"split": split, "protocol": protocol, "model": model, **errors, "frames": frames})
    return rows


def _of(protocol: str, result: Mapping[str, Any]) -> Mapping[str, Any]:
    return result if protocol == "default" else result[protocol]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """`result_rows` with a line of names; an error that no frame has a label for is left empty."""
    lines = [COLUMNS, *([row[name] for name in COLUMNS] for row in rows)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def table_of(split: str, rows: Sequence[Mapping[str, Any]], *, protocols: bool = False) -> Table:
    """`result_rows` of one split for the terminal: what says most there, within 80 columns; results.csv has all.

    protocols: with a column that names each row's.
    """
    known = [name for name in ERRORS if any(row[name] != "" for row in rows)]
    idle = {"pck", "auc", "pck_2d"} if "pve" in known else {"pck_2d"} if "mpjpe" in known else set()
    shown = [name for name in known if name not in idle]
    table = Table(split, *(["protocol"] if protocols else []), box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in (*(ERRORS[name] for name in shown), "frames"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = [f"{row[name]:.1f}" if row[name] != "" else "-" for name in shown]
        frames = f"{row['frames']:,}" if row["frames"] else "-"
        table.add_row(row["model"], *([row["protocol"]] if protocols else []), *numbers, frames)
    return table


def show_results(folder: Path, rows: Sequence[Mapping[str, Any]], *, stand_in: bool) -> None:
    """The default protocol's rows, a table a split, and the files where the rest is."""
    for split in dict.fromkeys(row["split"] for row in rows):
        chosen = [row for row in rows if (row["split"], row["protocol"]) == (split, "default")]
        terminal.console.print()
        terminal.console.print(table_of(split, chosen))
    terminal.console.print(f"[dim]{UNITS}[/dim]\n")
    if stand_in:
        terminal.console.print(terminal.STAND_IN)
    where = terminal.shortened(folder)
    terminal.fact("numbers", f"{where / RESULTS} (both protocols), {where / runs.METRICS} (all)")
    terminal.fact("curves", terminal.command("-m tensorboard.main --logdir", str(where.parent)))
    terminal.fact(
        "status", terminal.command("-m pipeline status --cache", str(terminal.shortened(settings().paths.cache)))
    )


def telling(progress: Progress, what: str) -> Any:
    """Training's news as a bar over all steps, with the losses and the last validation beside it.

    Before that, features on their way into memory, where the settings say so, and then a line of where they are.
    """
    from vibe_model.training.feature_table import TableProgress

    best: dict[str, float] = {}
    told_where = False
    quiet = not terminal.console.is_terminal  # no bar is shown: an epoch is a line

    def tell(news: TrainingProgress | TableProgress) -> None:
        if isinstance(news, TableProgress):
            progress(news.done, news.total, f"features {news.where}")
            if news.done == news.total:
                terminal.fact("features", news.where)
            return
        nonlocal told_where
        for metrics in news.validation.values():
            best["validation"] = metrics["pa_mpjpe"]
        if news.terms is not None:
            best["loss"] = sum(news.terms.values())
        done = news.epoch * news.iterations + news.iteration
        if not told_where and done > 1:
            terminal.fact("goes on", f"from step {done - 1:,}, where it was interrupted")
        told_where = True
        loss = f"loss {best['loss']:.2f}" if "loss" in best else ""
        last = f"{best['validation']:.1f} mm" if "validation" in best else ""
        # The loss first: a narrow terminal cuts the end.
        said = [loss, f"val {last}" if last else "", f"epoch {news.epoch + 1}/{news.epochs}"]
        progress(done, news.epochs * news.iterations, "  ".join(filter(None, said)))
        if news.validation and quiet:
            found = ", ".join(filter(None, [loss, f"validation PA-MPJPE {last}"]))
            terminal.say("train", what, f"epoch {news.epoch + 1} of {news.epochs}: {found}", mark=" ")

    return tell
