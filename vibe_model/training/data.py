"""Datasets for PyTorch of windows and tracks in the cache.  features -> [windows] -> training

- `TrainingBatches`: the batches of a run, by step, as NumPy arrays. It asks `cache.Mixture` which
  windows a step draws, and reads them into arrays of the whole batch.
- `TrainingBatches.stream`: the same batches as tensors on the device, prepared ahead by a thread.
- `Tracks`: whole tracks, for training loops of your own; no model here reads them.

A batch has three parts, as [train] of luigi.cfg names them: "datasets_2d" and "datasets_3d" are
windows of videos, "motion" is windows of bodies without video. The windows of step k depend on the
seed and k only: a resumed run continues with the same batches. Features stay as stored (float16)
until they are on the device.
"""

from __future__ import annotations

import functools
import pickle
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cache.mixture import Mixture, MixturePart, Pick
from pipeline.errors import ConfigError, DataError
from pipeline.skeletons import Array, Ints
from vibe_model.prediction.windows import select_tracks
from vibe_model.settings import RunConfig
from vibe_model.training.feature_table import FeatureTable, ReportFeatures

if TYPE_CHECKING:
    from cache import Split
    from cache.windows import StreamRows

Arrays = dict[str, Array]

_FIELDS: Final = {  # part of a batch -> fields that it reads
    "datasets_2d": ("features", "kp_2d"),  # only 2D labels, even if these splits have others
    "datasets_3d": ("features", "kp_2d", "kp_3d", "theta", "w_3d", "w_smpl"),
    "motion": ("theta",),
}
# Label of a batch whose features are in a FeatureTable, instead of "features": (B,) int64, each
# window's first row in the table.
_ROWS: Final = "rows"
CPU: Final = torch.device("cpu")


class TrainingBatch(NamedTuple):
    """One step's windows: the 2D part first, then the 3D part; and real motion."""

    # The windows' features and labels: arrays or tensors as of `Split.read`, with the
    # configuration's `fields`; w_3d = w_smpl = 0 in the 2D part. Extra streams: (B, T,
    # (history + 1) * size) by the configuration's name, with flags `<name>_ok`, (B, T).
    labels: Mapping[str, Any]
    real_theta: Any  # (B, T, 85) float32; None without real motion

    def on_device(self, device: torch.device, table: FeatureTable | None = None) -> TrainingBatch:
        """The batch as tensors on the device. Features keep the dtype in which they are stored.

        With a table, replaces `_ROWS` by the features of these rows.
        """
        labels = {name: torch.as_tensor(value) for name, value in self.labels.items()}
        if table is not None:
            labels["features"] = table.windows(labels.pop(_ROWS))
        for name, value in labels.items():
            labels[name] = _to_device(value, device)
        motion = None
        if self.real_theta is not None:
            motion = _to_device(torch.as_tensor(self.real_theta), device)
        return TrainingBatch(labels, motion)


class TrainingBatches(Dataset[TrainingBatch]):
    """The batches of a run, by step: a dataset whose items are whole batches, as arrays.

        DataLoader(batches, batch_size=None, sampler=range(step, len(batches)), num_workers=2)

    Workers give the same batches, forked or spawned; spawned ones open the splits again, and raise
    CacheChanged after a commit. Each of `world_size` ranks has its share of every batch
    (`cache.mixture.Mixture`).

    Features are read with each batch, or once into `table`, where `hold` says (the setting of that
    name). Then a batch has `_ROWS` instead of features, from which `stream` makes them.

    splits: all splits of the configuration. device: the device of this process. report: called with
    the progress of reading features into memory. Raises CacheError for a part without a window,
    DataError for splits that cannot be trained on, ConfigError for features that do not fit where
    `hold` puts them.
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
        hold: str = "none",
        device: torch.device = CPU,
        report: ReportFeatures | None = None,
    ) -> None:
        self._n_steps = config.epochs * config.iterations
        if config.batch_size < world_size:
            raise ConfigError(
                f"batch_size: expected a window for each of {world_size} processes, found "
                f"{config.batch_size}"
            )
        parts = [_mixture_part(config, name, splits) for name in config.parts]
        mixture = Mixture(
            parts, seqlen=config.seqlen, seed=config.seed, rank=rank, world_size=world_size
        )
        _require_training_joints(mixture)
        self._extra_streams = config.extra_streams
        self._names = _label_names(config, parts)
        self.mixture = mixture
        loaded = FeatureTable.load(mixture, hold, device, report)
        self.where = loaded.where  # where features are, as text for the user
        self.table = loaded.table  # None in a worker, which needs the layout alone
        self._layout = None if loaded.table is None else loaded.table.layout

    def __reduce__(self) -> tuple[type[_UnopenedBatches], tuple[bytes]]:
        return _UnopenedBatches, (pickle.dumps(vars(self) | {"table": None}),)

    def __len__(self) -> int:
        return self._n_steps

    def __getitem__(self, step: int) -> TrainingBatch:
        if not 0 <= step < self._n_steps:
            raise IndexError(f"step {step} of {self._n_steps}")
        mixture = self.mixture
        picks = mixture.draw(step)
        video_parts = [part for part in picks if part != "motion"]
        arrays: Arrays = {}
        if video_parts:
            arrays = self._new_arrays(sum(mixture.sizes[part] for part in video_parts))
        buffers = self._part_buffers(arrays, video_parts)
        motion = None
        if "motion" in picks:
            motion = np.empty((mixture.sizes["motion"], mixture.seqlen, 85), np.float32)
            buffers["motion"] = {"theta": motion}
        mixture.read(picks, buffers)

        if self._layout is not None:
            arrays[_ROWS] = _table_rows(self._layout, [picks[part] for part in video_parts])
        if video_parts:
            for name, reading in self._extra_streams.items():
                arrays[name] = reading.stack(arrays[name])
                arrays[f"{name}_ok"] = arrays[f"{name}_ok"][:, reading.history :]
        return TrainingBatch(arrays, motion)

    def stream(
        self, start: int, *, device: torch.device, workers: int = 0
    ) -> Generator[TrainingBatch, None, None]:
        """Yield the batches from step `start` to the end of the run, as tensors on the device.

        Features have the dtype in which they are stored. A thread prepares the next batch.

        workers: Number of processes that read several steps ahead; 0: the thread reads.
        """
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(start, len(self)),
            num_workers=workers,
            # Not forked: this process has threads, and maybe a GPU. Not spawned: such workers
            # sometimes abort while they send.
            multiprocessing_context="forkserver" if workers else None,
            generator=torch.Generator(),  # not the default one, from which dropout draws
        )
        source = iter(loader)

        def read_next() -> TrainingBatch | None:
            try:
                batch: TrainingBatch | None = next(source, None)
            except (RuntimeError, ConnectionResetError, EOFError) as error:
                if not _was_killed(error):
                    raise
                do = "Check the machine's memory, or set read_workers = 0."
                raise DataError(
                    f"a process exited unexpectedly, while it read batches: {error}. {do}"
                ) from error
            if batch is None:
                return None
            return batch.on_device(device, self.table)

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as reader:
            batch = reader.submit(read_next).result()
            while batch is not None:
                next_batch = reader.submit(read_next)  # is read while the caller trains
                yield batch
                batch = next_batch.result()

    def _part_buffers(self, arrays: Arrays, parts: Sequence[str]) -> dict[str, Arrays]:
        """Views of a batch's arrays that `Mixture.read` fills: part -> field -> the part's windows.

        The parts follow one another along B.
        """
        buffers: dict[str, Arrays] = {}
        stop = 0
        for part in parts:
            start = stop
            stop += self.mixture.sizes[part]
            buffers[part] = {}
            for field in self.mixture.parts[part].fields:
                name = self._names.get(field, field)
                if name in arrays:
                    buffers[part][field] = arrays[name][start:stop]
        return buffers

    def _new_arrays(self, n_windows: int) -> Arrays:
        """Make the arrays of a batch's windows with video. Labels that a part may lack are 0."""
        mixture = self.mixture
        frames = (n_windows, mixture.seqlen)
        arrays: Arrays = {
            "kp_2d": np.empty((*frames, 49, 3), np.float32),
            "kp_3d": np.zeros((*frames, 49, 3), np.float32),
            "theta": np.zeros((*frames, 85), np.float32),
            "w_3d": np.zeros(frames, np.float32),
            "w_smpl": np.zeros(frames, np.float32),
        }
        # Fields of streams and extra columns: shapes are equal in all parts, dtypes may differ.
        shapes: dict[str, tuple[int, ...]] = {}
        dtypes = defaultdict[str, list[np.dtype[Any]]](list)
        for part in mixture.parts.values():
            for field, (size, dtype) in mixture.fields[part.name].items():
                name = self._names.get(field, field)
                n_frames = part.history_rows(field) + mixture.seqlen
                shapes.setdefault(name, (n_windows, n_frames, *size))
                dtypes[name].append(dtype)
        if self._layout is not None:
            shapes.pop("features", None)
        for name, shape in shapes.items():
            if name not in arrays:
                arrays[name] = np.empty(shape, np.result_type(*dtypes[name]))
        return arrays


class Tracks(Dataset[dict[str, Any]]):
    """A dataset of whole tracks: each item is one track of F frames.

    F varies, so batches need padding or packing (`collate_fn`). An item has:

    - for each of `streams`, `<stream>` (F, dim) float32 and `<stream>_ok` (F,) bool, which is False
      for frames that could not be decoded; their features are 0
    - each of `fields`, as `Split.read` returns it: `kp_2d` (F, 49, 3) in [-1, 1] over the crop of
      the first stream, and `frame_index` (F,) int64, strictly increasing, with gaps
    - `track` and `video`, the names

    Labels that the split does not have are 0, with a confidence or weight of 0. Workers of a
    `DataLoader` open the split again. Raises CacheError for a stream that the split does not have
    and for an unknown field, and ValueError for the field `features`, which `streams` give.
    """

    def __init__(
        self,
        split: Split,
        streams: Sequence[str] = ("resnet50",),
        fields: Sequence[str] = ("kp_2d", "frame_index"),
    ) -> None:
        self.split = split
        self.streams = tuple(streams)
        for stream in self.streams:
            split.open_stream(stream)  # raises CacheError if the split lacks it
        self.fields = tuple(fields)
        # reads no row; raises CacheError for an unknown field
        split.read(np.empty((0, 2), np.int64), streams=self.streams, fields=self.fields)

    def __len__(self) -> int:
        return len(self.split.tracks)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"track {index} of {len(self)}")
        track = self.split.tracks[index]
        window = np.array([[track.start, track.stop]])
        read = self.split.read(window, streams=self.streams, fields=self.fields)
        item: dict[str, Any] = {name: torch.from_numpy(array[0]) for name, array in read.items()}
        for stream in self.streams:
            features = self.split.rows(f"features/{stream}", track.start, track.stop)
            features = features.astype(np.float32)
            ok = self.split.rows(f"features/{stream}_ok", track.start, track.stop) == 1
            features[~ok] = 0
            item[stream] = torch.from_numpy(features)
            item[f"{stream}_ok"] = torch.from_numpy(ok)
        item["track"] = track.name
        item["video"] = track.video
        return item


class _UnopenedBatches(Dataset[TrainingBatch]):
    """`TrainingBatches` in a worker, which opens the splits with its first batch: if it cannot, it
    raises then, instead of dying silently while it starts.
    """

    def __init__(self, state: bytes) -> None:
        self._state = state

    @functools.cached_property
    def _opened(self) -> TrainingBatches:
        batches = TrainingBatches.__new__(TrainingBatches)
        vars(batches).update(pickle.loads(self._state))  # noqa: S301  our own bytes
        return batches

    def __getitem__(self, step: int) -> TrainingBatch:
        return self._opened[step]


def _label_names(config: RunConfig, parts: Sequence[MixturePart]) -> dict[str, str]:
    """Field of `Split.read` -> name in a batch, where they differ.

    Example: {"resnet50": "features", "vipe_2": "pr_vipe", "vipe_2_ok": "pr_vipe_ok"}.
    """
    names: dict[str, str] = {}
    for name, reading in config.extra_streams.items():
        names[reading.stream] = name
        names[f"{reading.stream}_ok"] = f"{name}_ok"
    for part in parts:
        if part.streams:
            names[part.streams[0]] = "features"
    return names


def _table_rows(layout: StreamRows, parts: Sequence[Sequence[Pick]]) -> Ints:
    """First row in the table of features of each drawn window, (B,)."""
    rows = [np.empty(0, np.int64)]
    for picks in parts:
        rows += [layout.table_rows(pick.split, pick.starts) for pick in picks]
    return np.concatenate(rows)


def _mixture_part(config: RunConfig, name: str, splits: Mapping[str, Split]) -> MixturePart:
    """Describe one part of the batches for `Mixture`."""
    part_splits = {split: splits[split] for split in config.splits_of(name)}
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
            if reading.history:
                history[reading.stream] = reading.history
        fields += streams
        fields += _extra_columns(config, name, part_splits)
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
        unknown = sorted({*columns} - split.known_columns)
        if unknown:
            raise DataError(
                f"{split_name}: expected {', '.join(unknown)} for every track, since the model's "
                "configuration names it "
                f"(fields); found tracks without. Remove the split from {name}."
            )
    return columns


def _was_killed(error: Exception) -> bool:
    """Whether DataLoader raises this because one of its processes was killed, for lack of memory
    perhaps; also while it sent a batch. torch has no type for it.
    """
    if isinstance(error, RuntimeError):
        return "exited unexpectedly" in str(error)
    return not str(error).startswith("Caught ")  # as errors do that were raised in the process


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    is_any_index = device.index is None and tensor.device.type == device.type
    if is_any_index or tensor.device == device:
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # from it, a GPU copies while the CPU continues
    return tensor.to(device, non_blocking=True)


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
