"""A checkpoint's errors on splits of a cache, beside the published figures.  features -> windows -> [evaluation]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cache import FeatureCache, Split
from pipeline.errors import PipelineError
from tasks.prediction.predict import refuse_other_features
from tasks.prediction.trained import Trained, refuse_mixture
from tasks.training import as_csv, result_rows
from vibe_model import runs
from vibe_model.evaluation import published
from vibe_model.metrics import ERRORS
from vibe_model.settings.config import TrainConfig

METRICS: Final = "metrics.json"
RESULTS: Final = "results.csv"


def chosen_splits(trained: Trained, opened: FeatureCache, named: Sequence[str], stream: str) -> dict[str, Split]:
    """The named splits, or those of the evaluation that the model was configured with; of a published one, of VIBE's.

    Raises PipelineError for what the cache lacks, and for features of another size or network than the model's;
    StandInMixed when model and splits are partly stand-ins.
    """
    names = tuple(named) or (trained.config or TrainConfig()).evaluation
    wanted = names if named else tuple(name for name in names if name in opened.splits)
    absent = [name for name in wanted if name not in opened.splits or stream not in opened[name].streams]
    if absent or not wanted:
        raise PipelineError(
            f"{opened.root}: expected {', '.join(absent or names)} with the stream {stream!r}, found splits "
            f"{', '.join(opened.splits) or 'none'}. Convert and extract them, or name others: --split, --stream."
        )
    splits = {name: opened[name] for name in wanted}
    kinds: dict[str, bool | None] = {f"split {name}": bool(s.manifest.get("stand_in")) for name, s in splits.items()}
    refuse_mixture(kinds | {f"the checkpoint {trained.checkpoint}": trained.stand_in})
    for name, split in splits.items():
        _check_stream(trained, name, split.stream_manifest(stream))
    return splits


def evaluate(
    trained: Trained, splits: Mapping[str, Split], *, stream: str, batch_size: int, smooth: float, out: Path | None
) -> dict[str, Any]:
    """metrics.json's content: every split's metrics by both protocols, and `stand_in`.

    Into `out`, where one is named: metrics.json, results.csv, results by track and the worst windows.
    """
    tracks = (trained.config or TrainConfig()).tracks
    stand_in = any(bool(split.stream_manifest(stream).get("stand_in")) for split in splits.values())
    from vibe_model.evaluation.evaluate import evaluate_all  # imports torch

    found = evaluate_all(
        trained.generator,
        splits,
        stream=stream,
        seqlen=trained.seqlen,
        tracks=tracks,
        batch_size=batch_size,
        smooth=smooth,
        folder=out,
        stand_in=stand_in,
        about={"checkpoint": trained.about},
    )
    said = {"stand_in": any(metrics["stand_in"] for metrics in found.values()), "checkpoint": trained.about}
    if out is not None:
        runs.write_json(out / METRICS, {**said, **found})
        content = as_csv(result_rows({**said, **found})).encode()
        runs.replace_file(out / RESULTS, lambda stream: stream.write(content))
    return {**said, **found}


def rows_beside_published(metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """By split, rows of a table: the model and the mean body by both protocols, then what was published.

    What was published says nothing beside stand-ins, and is left out there.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in result_rows(metrics):
        rows.setdefault(row["split"], []).append(row)
    for split, shown in rows.items():
        for figures in () if metrics["stand_in"] else published.figures_of(split):
            errors = {name: figures.errors.get(name, "") for name in ERRORS}
            model = figures.model
            shown.append({"split": split, "protocol": "published", "model": model, **errors, "frames": ""})
    return rows


def _check_stream(trained: Trained, name: str, manifest: Mapping[str, Any]) -> None:
    if manifest["dim"] != trained.feature_size:
        raise PipelineError(
            f"{name}: expected features of {trained.feature_size} numbers, as {trained.checkpoint} was trained on, "
            f"found {manifest['dim']}. Name another stream: --stream."
        )
    identity = manifest.get("identity", {})
    if identity and identity.get("kind") != "imported":
        refuse_other_features(trained, identity)
