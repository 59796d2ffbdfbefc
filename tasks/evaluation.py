"""training -> evaluation, as Luigi tasks: the errors of trained models, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import luigi
from rich.table import Table

from pipeline.cli import console
from pipeline.cli.text import command, count, from_here
from tasks.base import DEMO_DATA, PipelineTask, fact, plain
from tasks.settings import settings
from tasks.training import MODEL_NAMES, Train, model_config, read_metrics, splits_of
from vibe_model import models, runs
from vibe_model.evaluation import published
from vibe_model.evaluation.protocols import LEFT_OUT, by_protocol, table_metrics
from vibe_model.metrics import METRICS, UNITS, UNITS_2D
from vibe_model.models import Model
from vibe_model.sections import VIBE, which_runs
from vibe_model.settings import VideoConfig

RESULTS: Final = "results.csv"
WIDE: Final = 120  # least width of a table: numbers must not be cut

Rows = Sequence[Mapping[str, Any]]


class Evaluate(PipelineTask):
    """Print and store a trained model's errors on every evaluation split, beside those of the
    baselines.

    Per-frame baselines are trained, too, unless luigi.cfg sets `baseline = false`.
    """

    verb = "evaluate"
    model = luigi.Parameter(description=MODEL_NAMES)

    @property
    def record(self) -> Model:
        """Raises PipelineError for an unknown model, and for one that does not load."""
        return models.find(self.model)

    @property
    def what(self) -> str:
        return self.record.title

    def requires(self) -> list[luigi.Task]:
        variants = [""]
        baseline = baseline_config(self.record)
        if baseline not in (None, model_config(self.record)):
            variants.append(_baseline_variant(self.record))
        return [Train(model=self.model, variant=variant) for variant in variants]

    def up_to_date(self) -> bool:
        file = self._folder() / RESULTS
        return file.is_file() and file.read_text() == as_csv(_all_rows(self.record))

    def work(self) -> None:
        runs.write_text(self._folder() / RESULTS, as_csv(_all_rows(self.record)))
        self.show()

    def show(self) -> None:
        folder = self._folder()
        rows = _all_rows(self.record)
        for split, protocol in dict.fromkeys((row["split"], row["protocol"]) for row in rows):
            console.out.print()
            of_protocol = [
                row for row in rows if (row["split"], row["protocol"]) == (split, protocol)
            ]
            console.show(table_of(f"{split}, {protocol}", of_protocol), least=WIDE)
        show_notes(read_metrics(folder))
        where = from_here(folder)
        fact("numbers", f"{where}/{RESULTS}, {where}/{runs.METRICS} (all)")
        fact("curves", command("--logdir", from_here(folder.parent), module="tensorboard.main"))
        fact("status", command("status", "--cache", from_here(settings().paths.cache)))

    def _folder(self) -> Path:
        return runs.run_folder(model_config(self.record))


class EvaluateVIBE(Evaluate):
    """Print and store VIBE's errors on every evaluation split, beside those of the baselines."""

    model = "vibe"


def baseline_config(model: Model = VIBE) -> VideoConfig | None:
    """The per-frame baseline's configuration; None with `baseline = false`."""
    return (
        model_config(model, _baseline_variant(model))
        if which_runs(settings(), model).baseline
        else None
    )


def _baseline_variant(model: Model = VIBE) -> str:
    """Variant for the per-frame baseline of the configured run, trained on the same windows."""
    variants = (which_runs(settings(), model).variant or "").split("+")
    return "+".join(
        [*(name for name in variants if name and name != model.baseline), model.baseline]
    )


def _all_rows(model: Model) -> list[dict[str, Any]]:
    of_run = read_metrics(runs.run_folder(model_config(model)))
    baseline = baseline_config(model)
    per_frame = None if baseline is None else read_metrics(runs.run_folder(baseline))
    return result_rows(of_run, per_frame, title=model.title)


def result_rows(
    metrics: Mapping[str, Any],
    per_frame: Mapping[str, Any] | None = None,
    *,
    title: str = VIBE.title,
) -> list[dict[str, Any]]:
    """metrics.json as rows: split, protocol (the dataset's own, such as emdb, first), model, and
    its errors.

    Models: the trained one; the per-frame baseline (`per_frame`, its metrics.json), plain and
    smoothed; the mean body.
    """
    rows = []
    for split in splits_of(metrics):
        results = by_protocol(metrics[split])
        for protocol, own in sorted(
            results.items(), key=lambda item: item[0] != split.partition("/")[0]
        ):
            keypoints = metrics[split].get(runs.KEYPOINTS)
            models = {f"{title}, keypoints {keypoints}" if keypoints else title: own}
            if per_frame is not None:
                per_frame_result = by_protocol(per_frame[split]).get(protocol, {})
                models |= {
                    "per frame": per_frame_result,
                    "per frame, smoothed": per_frame_result.get("smoothed", {}),
                }
            models["mean body"] = own["baseline"]
            measured = table_metrics(models.values())
            for model, numbers in models.items():
                errors = {name: numbers.get(name, "") for name in measured}
                frames = own["frames"] or own.get("frames_2d", 0)
                rows.append(
                    {
                        "split": split,
                        "protocol": protocol,
                        "model": model,
                        **errors,
                        "frames": frames,
                    }
                )
    return rows


def as_csv(rows: Rows) -> str:
    """`result_rows` to two digits, with a line of names; errors without labelled frames are
    empty.
    """
    columns = ("split", "protocol", "model", *table_metrics(rows), "frames")
    cells = ([row.get(name, "") for name in columns] for row in rows)
    rounded = (
        [round(cell, 2) if isinstance(cell, float) else cell for cell in line] for line in cells
    )
    return runs.csv_text([columns, *rounded])


def table_of(title: str, rows: Rows, *, protocols: bool = False) -> Table:
    """The main errors in `result_rows` of one split. protocols: with a column of protocols."""
    metrics = table_metrics(rows)
    measured = [name for name in metrics if any(row.get(name, "") != "" for row in rows)]
    minor = (
        {"pck", "auc", "pck_2d"}
        if "pve" in measured
        else {"pck_2d"}
        if "mpjpe" in measured
        else set()
    )
    shown = [name for name in measured if name not in minor]
    table = console.table(title, *(["protocol"] if protocols else []))
    for name in (*(metrics[name].title for name in shown), "frames"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = [f"{row[name]:.1f}" if row.get(name, "") != "" else "-" for name in shown]
        frames = f"{row['frames']:,}" if row["frames"] else "-"
        table.add_row(row["model"], *([row["protocol"]] if protocols else []), *numbers, frames)
    return table


def show_notes(metrics: Mapping[str, Any], note: str = "") -> None:
    """Print explanations below the tables, and `note`.

    By split: protocols that could not evaluate it, gendered bodies of its labels, and the published
    evaluation that a protocol compares with.
    """
    for split in splits_of(metrics):
        for protocol, reason in metrics[split].get(LEFT_OUT, {}).items():
            console.out.print(
                f"{console.DOUBT} {plain(split)}, without protocol {plain(protocol)}: "
                f"{plain(reason)}"
            )
        by_genders: dict[str, list[str]] = {}
        for protocol, numbers in by_protocol(metrics[split]).items():
            by_genders.setdefault(numbers.get(runs.LABEL_BODY, runs.NEUTRAL_BODY), []).append(
                protocol
            )
            if text := numbers.get(runs.COMPARES_WITH):
                console.out.print(f"[dim]{split}, protocol {protocol}: {text}[/dim]")
        for genders, names in by_genders.items():
            if genders != runs.NEUTRAL_BODY:
                labels = f"labels by gendered bodies ({genders}), predictions by the neutral one"
                protocol_names = f", protocol {', '.join(names)}" if len(by_genders) > 1 else ""
                console.out.print(f"[dim]{split}{protocol_names}: {labels}[/dim]")
    _show_dynamics(metrics)
    has_3d = any(metrics[split].get("mpjpe") is not None for split in splits_of(metrics))
    units = UNITS if has_3d else UNITS_2D
    console.out.print(f"[dim]{units}{note}[/dim]\n")
    if metrics["stand_in"]:
        console.out.print(DEMO_DATA)


def _show_dynamics(metrics: Mapping[str, Any]) -> None:
    """Print the errors of past and future bodies, beside published figures on real data."""
    for split in splits_of(metrics):
        by_name = by_protocol(metrics[split])
        dynamics = next(
            (numbers["dynamics"] for numbers in by_name.values() if "dynamics" in numbers), None
        )
        if not dynamics:
            continue
        published_rows = {} if metrics["stand_in"] else published.DYNAMICS.get(split, {})
        rows = {**dynamics["pa_mpjpe"], **published_rows}
        table = console.table(f"{split}, past and future")
        steps = list(next(iter(rows.values())))
        for step in steps:
            table.add_column(
                "now" if step == "0" else f"{int(step):+d} frames", justify="right", no_wrap=True
            )
        for model, errors in rows.items():
            table.add_row(
                model, *(f"{errors[step]:.1f}" if step in errors else "-" for step in steps)
            )
        console.out.print()
        console.out.print(table)
        console.out.print(
            f"[dim]PA-MPJPE from one frame, mean over {count(dynamics['tracks'], 'track')}[/dim]"
        )


def rows_beside_published(
    metrics: Mapping[str, Any], title: str = VIBE.title
) -> dict[str, list[dict[str, Any]]]:
    """Rows by split: the model and the mean body by protocol, then published figures, except on
    demo data.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in result_rows(metrics, title=title):
        rows.setdefault(row["split"], []).append(row)
    for split, shown in rows.items():
        for figures in () if metrics["stand_in"] else published.figures_of(split):
            errors = {name: figures.errors.get(name, "") for name in METRICS}
            shown.append(
                {
                    "split": split,
                    "protocol": figures.protocol,
                    "model": figures.model,
                    **errors,
                    "frames": "",
                }
            )
    return rows
