"""The batches of a training run, by step.  features -> [windows] -> training

`training_loader` makes the loader, which draws the windows of a step. `_BatchReader` reads them
into arrays of the whole batch, which `_BatchLayout` describes, in this process or in workers.
`TrainingBatches` gives a run's batches by step, and its `stream` gives them as tensors on the
device, prepared ahead by the loader's thread.

The windows of step k depend on the seed and k only: a resumed run continues with the same batches.
Features stay as stored (float16) until they are on the device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from cache.mixture import Mixture, Pick
from pipeline.people.skeletons import Array, Ints
from vibe_model.reading import Reading
from vibe_model.settings import RunConfig
from vibe_model.training.feature_table import FeatureTable, ReportFeatures
from vibe_model.training.mixtures import training_loader

if TYPE_CHECKING:
    from cache import Split
    from cache.windows import StreamRows

_Arrays = dict[str, Array]
_CPU: Final = torch.device("cpu")
# Labels of every batch with video, float32: name -> shape after (B, T).
_LABELS: Final[Mapping[str, tuple[int, ...]]] = {
    "kp_2d": (49, 3),
    "kp_3d": (49, 3),
    "theta": (85,),
    "w_3d": (),
    "w_smpl": (),
}


class TrainingBatch(NamedTuple):
    """One step's windows: the 2D part first, then the 3D part; and real motion."""

    # The windows' features and labels: arrays or tensors as of `Split.read`, with the
    # configuration's `fields`; w_3d = w_smpl = 0 in the 2D part; w_kp_3d if a split has rows with
    # some of the 14 3D joints. Extra streams: (B, T, (history + 1) * size) by the configuration's
    # name, with flags `<name>_ok`, (B, T).
    labels: Mapping[str, Any]
    real_theta: Any  # (B, T, 85) float32; None without real motion
    # (B,) int64, each window's first row in the `FeatureTable` with the features, which `on_device`
    # adds to the labels; None: they are there.
    table_rows: Any = None

    def on_device(self, device: torch.device, table: FeatureTable | None = None) -> TrainingBatch:
        """The batch as tensors on the device. Features keep the dtype in which they are stored.

        table: Has the features of `table_rows`.
        """
        labels = {**self.labels}
        if table is not None:
            labels["features"] = table.windows(torch.as_tensor(self.table_rows))
        for name, value in labels.items():
            labels[name] = _to_device(value, device)
        motion = None
        if self.real_theta is not None:
            motion = _to_device(self.real_theta, device)
        return TrainingBatch(labels, motion)


class TrainingBatches:
    """The batches of a run, by step, as arrays, and from a step on, as tensors (`stream`).

    Each of `world_size` ranks has its share of every batch (`cache.torch_mixture`).

    Features are read with each batch, or once into `table`, where `hold` says (the setting of that
    name). Then a batch has `table_rows`, from which `stream` makes features.

    splits: all splits of the configuration. read_workers: number of processes in which `stream`
    reads ahead; 0: a thread reads. device: the device of this process. report: called with the
    progress of reading features into memory. Raises what `training_loader` does, and ConfigError
    for features that do not fit where `hold` puts them.
    """

    mixture: Mixture
    """The splits, and which windows each step draws from them."""

    def __init__(
        self,
        config: RunConfig,
        splits: Mapping[str, Split],
        *,
        rank: int = 0,
        world_size: int = 1,
        read_workers: int = 0,
        hold: str = "none",
        device: torch.device = _CPU,
        report: ReportFeatures | None = None,
    ) -> None:
        self._loader = training_loader(
            config, splits, rank=rank, world_size=world_size, read_workers=read_workers
        )
        self.mixture = self._loader.mixture
        # where: where features are, as text for the user
        self.table, self.where = FeatureTable.load(self.mixture, hold, device, report)
        table_layout = None if self.table is None else self.table.layout
        layout = _BatchLayout.plan(config, self.mixture, has_features=table_layout is None)
        self._reader = _BatchReader(self.mixture, layout, config.extra_streams, table_layout)

    def __len__(self) -> int:
        return self._loader.steps

    def __getitem__(self, step: int) -> TrainingBatch:
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        return self._reader.read(step)

    def stream(self, start: int, *, device: torch.device) -> Generator[TrainingBatch, None, None]:
        """Yield the batches from step `start` to the end of the run, as tensors on the device.

        Features have the dtype in which they are stored. A thread prepares the next batch.
        """
        self._loader.step = start
        yield from self._loader.batches(
            self._reader.read, lambda batch: batch.on_device(device, self.table)
        )


@dataclass(frozen=True, eq=False)
class _BatchReader:
    """Reads the batch of any step."""

    mixture: Mixture
    layout: _BatchLayout
    extra_streams: Mapping[str, Reading]
    table_layout: StreamRows | None  # of the features in memory; None: they are read

    def read(self, step: int) -> TrainingBatch:
        """Draw the windows of a step, and read their features and labels."""
        picks = self.mixture.draw(step)
        buffers = self.layout.allocate()
        self.mixture.read(picks, buffers.of_part)
        labels = buffers.labels
        if self.layout.windows:
            for name, reading in self.extra_streams.items():
                labels[name] = reading.stack(labels[name])
                labels[f"{name}_ok"] = labels[f"{name}_ok"][:, reading.history :]
        table_rows = None
        if self.table_layout is not None:
            with_video = [picks[part] for part in self.layout.windows]
            table_rows = _table_rows(self.table_layout, with_video)
        return TrainingBatch(labels, buffers.real_theta, table_rows)


class _BatchBuffers(NamedTuple):
    """New arrays of a batch, not read yet."""

    labels: _Arrays
    real_theta: Array | None
    # part -> field of `Split.read` -> the part's windows in these arrays, as `Mixture.read` wants
    of_part: dict[str, _Arrays]


@dataclass(frozen=True)
class _BatchLayout:
    """The arrays of a rank's batches, and which of their windows each part fills."""

    seqlen: int
    n_windows: int  # with video
    n_motions: int | None  # windows of real motion; None without that part
    # shape and dtype of features, extra streams, columns and weights, by label
    inputs: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
    windows: Mapping[str, slice]  # part with video -> its windows: they follow one another along B
    names: Mapping[str, Mapping[str, str]]  # part with video -> field of `Split.read` -> label

    @classmethod
    def plan(cls, config: RunConfig, mixture: Mixture, *, has_features: bool) -> Self:
        """Lay out the batches of a mixture. has_features: False if they are in memory."""
        label_names = _label_names(config, mixture)
        windows: dict[str, slice] = {}
        n_windows = 0
        for part in mixture.parts:
            if part != "motion":
                start = n_windows
                n_windows += mixture.sizes[part]
                windows[part] = slice(start, n_windows)

        # Fields of streams and extra columns: shapes are equal in all parts, dtypes may differ.
        shapes: dict[str, tuple[int, ...]] = {}
        dtypes = defaultdict[str, list[np.dtype[Any]]](list)
        names: dict[str, dict[str, str]] = {}
        for part in windows:
            names[part] = {}
            for field, (size, dtype) in mixture.fields[part].items():
                name = label_names.get(field, field)
                if name == "features" and not has_features:
                    continue
                names[part][field] = name
                n_frames = mixture.parts[part].history_rows(field) + mixture.seqlen
                shapes.setdefault(name, (n_windows, n_frames, *size))
                dtypes[name].append(dtype)
        inputs = {
            name: (shape, np.result_type(*dtypes[name]))
            for name, shape in shapes.items()
            if name not in _LABELS
        }

        n_motions = mixture.sizes.get("motion")
        return cls(mixture.seqlen, n_windows, n_motions, inputs, windows, names)

    def allocate(self) -> _BatchBuffers:
        """Make the arrays of a batch. What a part lacks is 0."""
        labels: _Arrays = {}
        if self.windows:
            for name, size in _LABELS.items():
                labels[name] = np.zeros((self.n_windows, self.seqlen, *size), np.float32)
        labels |= {name: np.zeros(*form) for name, form in self.inputs.items()}
        of_part: dict[str, _Arrays] = {}
        for part, windows in self.windows.items():
            names = self.names[part]
            of_part[part] = {field: labels[name][windows] for field, name in names.items()}
        motion = None
        if self.n_motions is not None:
            motion = np.empty((self.n_motions, self.seqlen, *_LABELS["theta"]), np.float32)
            of_part["motion"] = {"theta": motion}
        return _BatchBuffers(labels, motion, of_part)


def _label_names(config: RunConfig, mixture: Mixture) -> dict[str, str]:
    """Field of `Split.read` -> name in a batch, where they differ.

    Example: {"resnet50": "features", "vipe_2": "pr_vipe", "vipe_2_ok": "pr_vipe_ok"}.
    """
    names: dict[str, str] = {}
    for name, reading in config.extra_streams.items():
        names[reading.stream] = name
        names[f"{reading.stream}_ok"] = f"{name}_ok"
    for part in mixture.parts.values():
        if part.streams:
            names[part.streams[0]] = "features"
    return names


def _table_rows(layout: StreamRows, parts: Sequence[Sequence[Pick]]) -> Ints:
    """First row in the table of features of each drawn window, (B,)."""
    rows = [np.empty(0, np.int64)]
    for picks in parts:
        rows += [layout.table_rows(pick.split, pick.starts) for pick in picks]
    return np.concatenate(rows)


def _to_device(array: Any, device: torch.device) -> Tensor:
    tensor = torch.as_tensor(array)
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()  # from it, a GPU copies while the CPU continues
    return tensor.to(device, non_blocking=True)
