"""Which windows a training draws, by its configuration.  features -> [windows] -> training

A batch has three parts, as [train] of luigi.cfg names them: "datasets_2d" and "datasets_3d" are
windows of videos, "motion" is windows of bodies without video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from cache import MixturePart, TorchMixture, torch_mixture
from cache.read.labels import JOINT_WEIGHTS, SOME_3D
from pipeline.errors import ConfigError, DataError
from pipeline.people.skeletons import Ints
from vibe_model.evaluation.protocols import KEYPOINTS
from vibe_model.prediction.windows import select_tracks
from vibe_model.settings import RunConfig

if TYPE_CHECKING:
    from cache import Split
    from cache.mixture import Mixture

_FIELDS: Final = {  # part of a batch -> fields that it reads
    "datasets_2d": ("features", "kp_2d"),  # only 2D labels, even if these splits have others
    "datasets_3d": ("features", "kp_2d", "kp_3d", "theta", "w_3d", "w_smpl"),
    "motion": ("theta",),
}


def training_loader(
    config: RunConfig, splits: Mapping[str, Split], *, world_size: int, **options: int
) -> TorchMixture:
    """The loader of a training's windows: of each batch, one of `world_size` ranks has its share.

    options: others of `torch_mixture`.

    Raises CacheError for a part without a window, DataError for splits that cannot be trained on,
    ConfigError for more ranks than windows in a batch.
    """
    if config.batch_size < world_size:
        raise ConfigError(
            f"batch_size: expected a window for each of {world_size} processes, found "
            f"{config.batch_size}"
        )
    parts = [_mixture_part(config, name, splits) for name in config.parts]
    loader = torch_mixture(
        parts,
        seqlen=config.seqlen,
        rate=config.rate,
        seed=config.seed,
        steps=config.epochs * config.iterations,
        world_size=world_size,
        **options,
    )
    _require_training_joints(loader.mixture)
    return loader


def _mixture_part(config: RunConfig, name: str, splits: Mapping[str, Split]) -> MixturePart:
    """Describe one part of the batches."""
    part_splits = {split: splits[split] for split in config.splits_of(name)}
    if name == "datasets_2d":
        _require_keypoints(part_splits)
    # Streams with the model's features, of which a window reads one; several are jittered copies.
    # Empty if the part has no features.
    copies = config.streams_of(name)
    fields = list(_FIELDS[name])
    streams: list[str] = []
    history: dict[str, int] = {}
    if copies:
        fields.remove("features")
        streams.append(copies[0])
        for reading in config.extra_streams.values():
            streams.append(reading.stream)
            fields.append(f"{reading.stream}_ok")
            history[reading.stream] = reading.history
        fields += streams
        fields += _extra_columns(config, name, part_splits)
    sums = [split.manifest.get("sums", {}) for split in part_splits.values()]
    if name == "datasets_3d" and any(SOME_3D in of_split for of_split in sums):
        fields.append(JOINT_WEIGHTS)  # rows with some of the 14 3D joints that losses compare
    left_out = {key: _rows_of(split, config.left_out(key)) for key, split in part_splits.items()}
    return MixturePart(
        name=name,
        splits=part_splits,
        count=config.parts[name],
        fields=fields,
        streams=streams,
        history=history,
        copies={copies[0]: copies} if len(copies) > 1 else {},
        stride=config.stride,
        strides=config.strides,
        weights=config.window_weights,
        tail=config.tail,
        left_out=left_out,
    )


def _require_keypoints(splits: Mapping[str, Split]) -> None:
    """Raise DataError for splits whose reader declares that they have no 2D joints."""
    for name, split in splits.items():
        if split.manifest.get(KEYPOINTS) == "none":
            raise DataError(
                f"datasets_2d: {name}: expected 2D joints to train on, found none. Remove it."
            )


def _rows_of(split: Split, patterns: Sequence[str]) -> Ints:
    """Rows [start, stop) of the tracks that match any of the patterns: (N, 2), ascending."""
    rows = set[tuple[int, int]]()
    for pattern in patterns:
        rows.update((track.start, track.stop) for track in select_tracks(split, pattern))
    return np.array(sorted(rows), np.int64).reshape(-1, 2)


def _extra_columns(config: RunConfig, name: str, splits: Mapping[str, Split]) -> list[str]:
    """Columns in the configuration's `fields` that are not labels.

    Raises DataError if a split of the part lacks one of them.
    """
    columns = [field for field in config.fields if field not in _FIELDS["datasets_3d"]]
    if not columns:
        return []
    for split_name, split in splits.items():
        unknown = split.unknown_columns(columns)
        if unknown:
            raise DataError(
                f"{split_name}: expected {', '.join(unknown)} for every track, since the model's "
                "configuration names it "
                f"(fields); found tracks without. Remove the split from {name}."
            )
    return columns


def _require_training_joints(mixture: Mixture) -> None:
    """Raise DataError for parts with other 3D joints than the 49 of training."""
    for name, fields in mixture.fields.items():
        shape, _ = fields.get("kp_3d", ((49, 3), None))
        if shape != (49, 3):
            raise DataError(
                f"{name}: {', '.join(mixture.parts[name].splits)}: kp_3d: expected 49 "
                f"joints to train on, found {shape[0]}. Evaluation splits "
                f"cannot be trained on; remove them from {name}."
            )
