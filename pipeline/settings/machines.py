"""[machine] of luigi.cfg: what a laptop, a machine with a GPU and a cluster do best.  raw -> tracks -> features

A preset only says where and by how many the work is done: another one does nothing again. So it leaves out what decides
numbers: precision, [train] device, threads and eval_batch, and processes, by which the last digits of a run differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

# Of the sections below, what luigi.cfg does not say itself.
PRESETS: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
    # Two processes at a time, whatever the number of cores: one can go on working, and it stays cool.
    "laptop": {"convert": {"workers": "2"}, "features": {"workers": "2"}},
    # Without its GPU it is an error, not days on the CPU.
    "gpu": {"features": {"device": "cuda"}, "train": {"hold": "auto"}},
    # Disks that all share answer late, and then much at a time.
    "cluster": {"features": {"timeout": "300"}, "train": {"hold": "auto", "read_workers": "4"}},
}


@dataclass(frozen=True, slots=True)
class Machine:
    """[machine]: defaults of other sections, by the kind of machine."""

    preset: Literal["laptop", "gpu", "cluster"] | None = None
