"""Windows of several splits, put together into batches.  features -> [windows] -> training -> evaluation

Which windows step k sees is a function of the seed and k alone: the sampler's whole state is a step number, so that a
run goes on in the middle of an epoch with exactly the batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vibe_model.config import TrainConfig
from vibe_model.errors import DataError

if TYPE_CHECKING:
    from cache import Split

Arrays = dict[str, NDArray[Any]]

FIELDS_2D: Final = ("features", "kp_2d")
FIELDS_3D: Final = (*FIELDS_2D, "kp_3d", "theta", "w_3d", "w_smpl")


class WindowPool:
    """The windows of several splits, numbered through in the order of the splits.

    Raises DataError when there is not a single window.
    """

    def __init__(
        self, part: str, splits: Mapping[str, Split], strides: Mapping[str, int], *, seqlen: int, stream: str | None
    ) -> None:
        self.names = tuple(splits)
        self._splits = tuple(splits.values())
        self._stream = stream
        windows = [split.windows(seqlen, strides[name], stream) for name, split in splits.items()]
        self.counts = {name: len(found) for name, found in zip(splits, windows, strict=True)}
        self._windows = np.concatenate(windows) if windows else np.empty((0, 2), np.int64)
        self._ends = np.cumsum([len(found) for found in windows])  # where each split's windows end
        if not len(self._windows):
            raise DataError(
                f"{part}: expected windows of {seqlen} frames, found none in {', '.join(self.names)} "
                f"(stream {stream}). Convert and extract these splits, or choose others."
            )

    def __len__(self) -> int:
        return len(self._windows)

    def read(self, index: NDArray[np.int64], fields: Sequence[str]) -> Arrays:
        """Windows by number, in the order asked for: arrays of (B, T, ...). Each split is read once."""
        owner = np.searchsorted(self._ends, index, side="right")
        parts: list[tuple[NDArray[np.intp], Arrays]] = []
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            parts.append((places, self._read(int(number), self._windows[index[places]], fields)))
        result: Arrays = {}
        for name in fields:
            first = parts[0][1][name]
            result[name] = np.empty((len(index), *first.shape[1:]), first.dtype)
            for places, arrays in parts:
                result[name][places] = arrays[name]
        return result

    def _read(self, number: int, windows: NDArray[np.int64], fields: Sequence[str]) -> Arrays:
        arrays: Arrays = self._splits[number].read(windows, stream=self._stream, fields=fields)
        joints = arrays["kp_3d"].shape[-2] if "kp_3d" in fields else 49
        if joints != 49:
            raise DataError(
                f"{self.names[number]}: kp_3d: expected 49 joints to train on, found {joints}. An "
                "evaluation split cannot be trained on; remove it from datasets_3d."
            )
        return arrays


class WindowSampler:
    """An endless row of window numbers: every window once, in a new random order each time round."""

    def __init__(self, n_windows: int, *, seed: int, part: int) -> None:
        self._n_windows = n_windows
        self._seed = (seed, part)
        self._round = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def at(self, start: int, count: int) -> NDArray[np.int64]:
        """Numbers `start` to `start + count` of the row: (count,) int64."""
        places = np.arange(start, start + count)
        rounds = places // self._n_windows
        return np.concatenate(
            [self._shuffled(int(r))[places[rounds == r] % self._n_windows] for r in np.unique(rounds)]
        )

    def _shuffled(self, number: int) -> NDArray[np.int64]:
        if number != self._round:
            rng = np.random.default_rng((*self._seed, number))
            self._round, self._order = number, rng.permutation(self._n_windows)
        return self._order


class Batch(NamedTuple):
    """One step's windows: the 2D part first, then the 3D part; and real motion."""

    labels: Arrays  # as `Split.read` gives them; w_3d = w_smpl = 0 in the 2D part
    real_theta: NDArray[np.float32] | None  # (B, T, 85); None when there is no discriminator


class Batches:
    """The batches of a run, by step. `splits`: every split of the configuration, open."""

    def __init__(self, config: TrainConfig, splits: Mapping[str, Split]) -> None:
        self._n_2d = config.windows_2d
        self._n_3d = config.batch_size - self._n_2d
        self._n_motion = config.batch_size
        self._seqlen = config.seqlen
        self._pools: dict[str, WindowPool] = {}
        parts = {"datasets_2d": config.datasets_2d, "datasets_3d": config.datasets_3d, "motion": config.motion}
        for part, names in parts.items():
            if names:
                stream = None if part == "motion" else config.stream
                strides = {name: config.stride_of(name) for name in names}
                chosen = {name: splits[name] for name in names}
                self._pools[part] = WindowPool(part, chosen, strides, seqlen=config.seqlen, stream=stream)
        self._samplers = {
            part: WindowSampler(len(self._pools[part]), seed=config.seed, part=number)
            for number, part in enumerate(parts)
            if part in self._pools
        }

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many windows each split gives, by part."""
        return {part: pool.counts for part, pool in self._pools.items()}

    def at(self, step: int) -> Batch:
        """The batch of step `step`, from 0."""
        parts = []
        if self._n_2d:
            parts.append(self._without_3d(self._draw("datasets_2d", step, self._n_2d, FIELDS_2D)))
        if self._n_3d:
            parts.append(self._draw("datasets_3d", step, self._n_3d, FIELDS_3D))
        labels = {name: np.concatenate([part[name] for part in parts]) for name in FIELDS_3D}
        if "motion" not in self._pools:
            return Batch(labels, None)
        return Batch(labels, self._draw("motion", step, self._n_motion, ("theta",))["theta"])

    def stream(self, step: int) -> Generator[Batch, None, None]:
        """Batches from `step` on, without end. The next one is read while the caller works on the last."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as reader:
            ahead = reader.submit(self.at, step)
            while True:
                step += 1
                batch, ahead = ahead.result(), reader.submit(self.at, step)
                yield batch

    def _draw(self, part: str, step: int, count: int, fields: Sequence[str]) -> Arrays:
        index = self._samplers[part].at(step * count, count)
        return self._pools[part].read(index, fields)

    def _without_3d(self, arrays: Arrays) -> Arrays:
        """Windows used for their 2D labels alone, whatever else their split knows."""
        shape = (self._n_2d, self._seqlen)
        zeros = {"kp_3d": (49, 3), "theta": (85,), "w_3d": (), "w_smpl": ()}
        return arrays | {name: np.zeros((*shape, *rest), np.float32) for name, rest in zeros.items()}
