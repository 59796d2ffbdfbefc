"""`python -m tasks evaluate`: a checkpoint's errors on splits of the cache.

It chooses the splits that a protocol can evaluate, computes the errors, writes them to the folder
of `--out`, and prints a table for each split. The errors are computed in `vibe_model.evaluation`,
the tables made in `tasks.result_tables`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cache
from cache.storage.durable import write_atomic
from pipeline.cli import console
from pipeline.cli.command_line import Command
from pipeline.cli.console import print_json
from pipeline.cli.progress import bar
from pipeline.cli.text import from_here
from pipeline.errors import ConfigError, PipelineError
from pipeline.files.outputs import OutputRule, inputs_of
from pipeline.settings import sections
from pipeline.settings.file import settings_file
from pipeline.settings.sections import Settings
from tasks import evaluation
from tasks.base import fact, plain
from tasks.result_tables import as_csv, table_of
from tasks.results import RunMetrics, rows_by_split
from vibe_model import runs
from vibe_model.evaluation import protocols
from vibe_model.files import write_json
from vibe_model.stand_in import require_one_kind

if TYPE_CHECKING:
    from cache import Split
    from vibe_model.trained import Trained

NOTE: Final = "published figures are beside their protocol; hmmr averages over videos"


def body_folder(body: Path | None, loaded: Settings) -> Path:
    """The body model's folder: `body`, else [paths] body. Raises ConfigError without both."""
    if body is None and loaded.named_paths is not None:
        body = loaded.named_paths.body
    if body is None:
        raise ConfigError(
            f"{loaded.file.resolve()}: file not found. Name the body model's folder: --body DIR"
        )
    return body


def _run(args: argparse.Namespace) -> int:
    """Evaluate the checkpoint, and show its errors. Returns 0."""
    from vibe_model.trained import Trained  # imports torch

    loaded = sections.load(settings_file(), tolerant=True, optional=True)
    opened = cache.open(args.cache or loaded.paths.cache, loaded.data.at)
    for name in args.split:
        _ = opened[name]  # raises CacheError before the model is loaded
    model = Trained.load(args.checkpoint, body_folder(args.body, loaded), args.device)
    stream = args.stream or model.stream or loaded.stream.name
    splits = _usable_splits(_chosen_splits(model, opened, args.split, stream), args.protocol)
    rule = OutputRule("evaluate", inputs_of(opened.root, args.checkpoint), args.overwrite)
    files = (runs.METRICS, evaluation.RESULTS, f"{runs.SEQUENCES}.json")
    if args.out is not None:
        rule.begin_folder(args.out, files)
    metrics = _evaluate(args, model, opened, splits, stream)
    _warn_of_missing_joints(splits)
    if args.out is not None:
        write_json(args.out / runs.METRICS, metrics.content)
        rows = rows_by_split({model.title: metrics})
        results = as_csv([*itertools.chain.from_iterable(rows.values())])
        write_atomic(args.out / evaluation.RESULTS, results.encode())
        rule.end_folder(args.out, files)
    if args.json:
        print_json(metrics.content)
    else:
        _show(model, metrics, args.out)
    return 0


def _show(model: Trained, metrics: RunMetrics, out: Path | None) -> None:
    """Print tables of errors, and the folder of all numbers."""
    shown = rows_by_split({model.title: metrics}, with_published=not metrics.stand_in)
    for name, rows in shown.items():
        console.print_table(table_of(name, rows, protocols=True))
        console.out.print()
    evaluation.show_notes(metrics, model.config, f". --json has all metrics; {NOTE}")
    if out is not None:
        folder = plain(from_here(out))
        fact("numbers", f"{folder}/{evaluation.RESULTS}, {folder}/{runs.METRICS} (all)")


def _usable_splits(chosen: Mapping[str, Split], named: Sequence[str] | None) -> dict[str, Split]:
    """Choose the splits that at least one protocol can evaluate; prints why others are skipped.

    Raises PipelineError if there is none.
    """
    splits: dict[str, Split] = {}
    for name, split in chosen.items():
        records, reasons = protocols.choose(split, named)
        if records:
            splits[name] = split
        else:
            console.err.print(
                f"{console.DOUBT} {plain(name)} is skipped: {plain('; '.join(reasons.values()))}"
            )
    if not splits:
        raise PipelineError(
            f"expected a split that {', '.join(named or ())} can evaluate, found none. Name others."
        )
    return splits


def _evaluate(
    args: argparse.Namespace,
    model: Trained,
    opened: cache.FeatureCache,
    splits: Mapping[str, Split],
    stream: str,
) -> RunMetrics:
    """Evaluate the model on each split."""
    # imports torch
    from vibe_model.evaluation.evaluate import EvalOptions, EvalOutput, evaluate_all

    seqlen = args.seqlen
    if seqlen is None:
        seqlen = model.config.seqlen
    names = model.config.splits_of("datasets_3d")
    training = {name: opened[name] for name in names if name in opened.splits}
    options = EvalOptions(stream=stream, extra_streams=model.config.extra_streams, seqlen=seqlen)
    output = None
    if args.out is not None:
        output = EvalOutput(folder=args.out, about={"checkpoint": model.about})
    with bar(f"evaluate {', '.join(splits)}", console.err):
        by_split = evaluate_all(
            model.generator,
            splits,
            options,
            tracks={**model.config.tracks, **model.config.evaluated},
            named=args.protocol,
            training=training,
            stand_in=any(model.has_random_features(split, stream) for split in splits.values()),
            output=output,
        )
    stand_in = any(metrics["stand_in"] for metrics in by_split.values())
    return RunMetrics({"stand_in": stand_in, "checkpoint": model.about, **by_split})


def _warn_of_missing_joints(splits: Mapping[str, Split]) -> None:
    """Warn of splits on which errors of joints in mm cannot be measured."""
    for name, split in splits.items():
        if not {"kp_3d", "kp_3d_eval"} & {*split.columns}:
            without = (
                "has no 3D joints (converted without a body?): errors of joints in mm are missing"
            )
            console.err.print(f"{console.DOUBT} {plain(name)} {without}")


def _chosen_splits(
    trained: Trained, opened: cache.FeatureCache, named: Sequence[str], stream: str
) -> dict[str, Split]:
    """The named splits, else the evaluation splits of the model's settings.

    Raises PipelineError for missing splits or streams, DataError for features of another size or
    network, StandInMixed if model and splits are partly demo data.
    """
    names = named or trained.config.evaluated
    if named:
        chosen = list(named)
    else:
        chosen = [name for name in names if name in opened.splits]
    absent = [
        name for name in chosen if name not in opened.splits or stream not in opened[name].streams
    ]
    if absent or not chosen:
        raise PipelineError(
            f"{opened.root}: expected {', '.join(absent or names)} with the stream {stream!r}, "
            f"found splits {', '.join(opened.splits) or 'none'}. Convert and extract them, or "
            "use --split and --stream."
        )
    splits = {name: opened[name] for name in chosen}
    require_one_kind({"the checkpoint": trained.stand_in}, splits)
    for split in splits.values():
        trained.check_split(split, stream)
    return splits


COMMAND: Final = Command(_run)
