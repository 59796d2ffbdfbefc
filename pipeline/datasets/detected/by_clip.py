"""Options that state something for all clips, or by patterns of their paths.  [raw] -> tracks"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import ConfigError, did_you_mean
from pipeline.files.formats.people.joint_orders import ORDER_NAMES, StatedOrder

T = TypeVar("T")


def value_of_clip(clip: str, option: str | None, parse: Callable[[str], T]) -> T | None:
    """The value that an option such as "slow/*=240, 60" states for a clip; None if it states none.

    clip: its path below the raw folder. The first entry that matches is used. parse: returns the
    value of an entry, of all entries, or raises.

    >>> value_of_clip("slow/a.mp4", "slow/*=240, 60", int)
    240
    """
    stated = None
    for entry in filter(None, map(str.strip, (option or "").split(","))):
        pattern, _, text = entry.rpartition("=")
        value = parse(text.strip())
        if stated is None and fnmatch.fnmatchcase(clip, pattern.strip() or "*"):
            stated = value
    return stated


def stated_order(dataset: str, joints: str | None, clip: str) -> StatedOrder:
    """What the option `joints` of a dataset states for a clip. Raises ConfigError for an invalid
    option.
    """

    def known_order(name: str) -> str:
        if name in ORDER_NAMES:
            return name
        expected = f'one of {", ".join(ORDER_NAMES)}, or "a/*=coco, b.mp4=h36m" by clips'
        expected += did_you_mean(name, ORDER_NAMES)
        raise ConfigError(f"{dataset}: joints is {joints!r}; expected {expected}", "joints")

    return StatedOrder(value_of_clip(clip, joints, known_order), f"[{dataset}] joints")
