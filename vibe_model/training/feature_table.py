"""All features of a run in memory, where they fit.  features -> [windows] -> training

Reading features from the cache with each batch may be slower than a training step. If they fit into
the memory of the device or into RAM, they are read once into a table, and a batch only says which
rows of the table it needs. The setting `hold` chooses the place.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from cache.mixture import Mixture, MixturePart
    from cache.windows import StreamRows

NOT_IN_MEMORY: Final = "read with each batch"
SHARE_OF_FREE: Final = 0.8  # of free memory that features may take; the rest is for other processes


# Shows progress: where features are, or why they are not in memory; rows in memory, rows in all.
ReportFeatures = Callable[[str, int, int], None]


class FeatureTable:
    """The features of all windows of a run, in memory.

    table: (R, dim), in the stored dtype; each row that a window needs is there once. layout: Says
    which row of the table has the features of a split's row.
    """

    def __init__(self, table: Tensor, layout: StreamRows) -> None:
        self.table = table
        self.layout = layout
        self._frames = torch.arange(layout.seqlen)
        # view of all windows: NumPy copies each in one piece, ten times faster than torch's rows
        self._window_view = None
        if table.device.type == "cpu":
            view = np.lib.stride_tricks.sliding_window_view(table.numpy(), layout.seqlen, axis=0)
            self._window_view = np.moveaxis(view, -1, 1)

    @classmethod
    def load(
        cls,
        mixture: Mixture,
        hold: str,
        device: torch.device,
        report: ReportFeatures | None = None,
    ) -> _LoadedFeatures:
        """Read all features into memory, unless they are read with each batch.

        Args:
            hold: "none" (read with each batch), "ram", "device", or "auto": the first of device,
                RAM and none that has enough free memory.
            report: Called with the progress, unless `hold` is "none".

        Raises:
            ConfigError: Features do not fit where `hold` puts them.
        """
        if hold == "none":
            return _LoadedFeatures(None, NOT_IN_MEMORY)
        report = report or (lambda *_: None)
        kind = "windows of a rate" if mixture.rate is not None else ""
        if any(part.copies for part in mixture.parts.values()):
            kind = "several copies of features"
        if kind:
            if hold != "auto":
                raise ConfigError(
                    f"hold = {hold}: expected consecutive frames and features without copies, "
                    f"found {kind}, which are read with each batch. Use hold = auto or none."
                )
            where = f"{NOT_IN_MEMORY}: there are {kind}"
            report(where, 0, 0)
            return _LoadedFeatures(None, where)

        layout = mixture.stream_rows()
        (size,), dtype = _field_type(mixture)
        needed = layout.total * size * dtype.itemsize
        place = _choose_place(hold, device, needed, f"{layout.total:,} rows of {size} {dtype}")
        if place.device is None:
            report(place.where, 0, 0)
            return _LoadedFeatures(None, place.where)
        torch_dtype = torch.from_numpy(np.empty(0, dtype)).dtype  # torch converts NumPy's by arrays
        empty = torch.empty((layout.total, size), dtype=torch_dtype, device=place.device)
        table = cls(empty, layout)
        table._fill(mixture, place.where, report)
        return _LoadedFeatures(table, place.where)

    def windows(self, first_rows: Tensor) -> Tensor:
        """Features (B, T, dim) of windows, on the table's device.

        first_rows: (B,) int64, each window's first row in the table.
        """
        if self._window_view is not None:
            return torch.from_numpy(self._window_view[first_rows.numpy()])
        row_numbers = first_rows[:, None] + self._frames
        return self.table[row_numbers.to(self.table.device)]

    def _fill(self, mixture: Mixture, where: str, report: ReportFeatures) -> None:
        """Read all rows into the table, and report progress. where: its place, as text."""
        sources = {}
        for part in _feature_parts(mixture):
            for name, split in part.splits.items():
                sources[name] = (split, part.streams[0])
        _, dtype = _field_type(mixture)
        device = self.table.device
        for name, starts in self.layout.batches():
            split, stream = sources[name]
            windows = np.stack([starts, starts + self.layout.seqlen], axis=1)
            read = split.read(windows, stream=stream, fields=("features",), dtype=dtype)
            first_rows = torch.from_numpy(self.layout.table_rows(name, starts))
            row_numbers = first_rows[:, None] + self._frames
            self.table[row_numbers.to(device)] = torch.from_numpy(read["features"]).to(device)
            report(where, int(row_numbers[-1, -1]) + 1, len(self.table))


class _LoadedFeatures(NamedTuple):
    """The result of `FeatureTable.load`."""

    table: FeatureTable | None  # None: features are read with each batch
    where: str  # where features are, as text for the user


class _TableLocation(NamedTuple):
    """The place that `_choose_place` has chosen for the features."""

    device: torch.device | None  # None: they are read with each batch
    where: str  # the place and the reason for it, as text for the user


def _choose_place(hold: str, device: torch.device, needed: int, content: str) -> _TableLocation:
    """Choose the first place that `hold` allows and that has enough free memory.

    needed: Size of the table in bytes. content: Description of the table, for the message. Raises
    ConfigError if the table does not fit, unless `hold` is "auto".
    """
    cpu = torch.device("cpu")
    places = {"ram": [cpu], "device": [device], "auto": [device, cpu]}[hold]
    tight: list[str] = []
    for place in dict.fromkeys(places):
        allowed = _allowed_bytes(place)
        if allowed >= needed:
            where = f"held in {_name(place)}: {_size(needed)}"
            if tight:
                where += f" ({', '.join(tight)})"
            return _TableLocation(place, where)
        tight.append(f"{_name(place)} has {_size(allowed)} for them")
    if hold == "auto":
        where = f"{NOT_IN_MEMORY}: they need {_size(needed)} ({', '.join(tight)})"
        return _TableLocation(None, where)
    raise ConfigError(
        f"hold = {hold}: the features of this run need {_size(needed)} ({content}), {tight[0]} "
        f"({SHARE_OF_FREE:.0%} of its free memory). Use hold = auto or none, or fewer splits."
    )


def _field_type(mixture: Mixture) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape of a frame's features, and a dtype that represents those of all parts exactly."""
    types = [mixture.fields[part.name][part.streams[0]] for part in _feature_parts(mixture)]
    dtypes = [dtype for _, dtype in types]
    return types[0][0], np.result_type(*dtypes)


def _feature_parts(mixture: Mixture) -> list[MixturePart]:
    """Parts of a batch that read features. The first of a part's streams has the features."""
    return [part for part in mixture.parts.values() if part.streams]


def _allowed_bytes(device: torch.device) -> int:
    """Number of bytes that the table of one process may take on this device."""
    allowed = SHARE_OF_FREE * _free_memory(device)
    if device.type == "cpu":  # each process of a machine has a table in its RAM
        allowed /= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return int(allowed)


def _free_memory(device: torch.device) -> int:
    """Free memory in bytes: of the GPU, or of RAM within the container's or job's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except OSError:  # not Linux: all RAM
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([free, *_free_in_cgroups()])


def _free_in_cgroups(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """Free bytes within each limit of this process's control groups (version 2)."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    names = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    if not names:
        return []
    free = []
    group = root / names[0].lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root) or not (folder / "memory.max").is_file():
            continue
        limit = (folder / "memory.max").read_text().strip()
        if limit != "max":
            free.append(max(int(limit) - _used_in_cgroup(folder), 0))
    return free


def _used_in_cgroup(folder: Path) -> int:
    """Used bytes of a control group; cached files count as free."""
    used = int((folder / "memory.current").read_text())
    for line in (folder / "memory.stat").read_text().splitlines():
        name, value = line.split()
        if name in ("active_file", "inactive_file"):
            used -= int(value)
    return used


def _name(place: torch.device) -> str:
    return "RAM" if place.type == "cpu" else str(place)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
