"""Options that state something for all clips, or by patterns of their paths.  [raw] -> tracks"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pipeline.clips.labels.column_names import EXPECTED, LabelColumn, StatedColumns, parse_columns
from pipeline.clips.labels.joint_orders import ORDER_NAMES, StatedOrder
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError, did_you_mean
from pipeline.files.raw.video_names import VideoNames, fits

T = TypeVar("T")


class _Entry(NamedTuple):
    """What an option states for some clips."""

    pattern: str  # of their names (`video_names`)
    value: str


def _entries(option: str | None) -> list[_Entry]:
    entries = []
    for entry in filter(None, map(str.strip, (option or "").split(","))):
        pattern, _, text = entry.rpartition("=")
        entries.append(_Entry(pattern.strip() or "*", text.strip()))
    return entries


def check_patterns(dataset: Dataset, names: VideoNames) -> None:
    """Raise ConfigError for an entry of an option that fits no clip (`VideoNames.check`)."""
    for option in dataset.by_clip:
        for entry in _entries(getattr(dataset, option)):
            names.check(entry.pattern, f"[{dataset.name}] {option}")


def value_of_clip(
    split: str, clip: str, name: str, option: str | None, parse: Callable[[str], T]
) -> T | None:
    """The value that an option such as "slow/*=240, 60" states for a clip; None if it states none.

    split: DATASET/SPLIT. clip: its path below the raw folder. name: the option's. The first entry
    that fits is used. parse: returns the value of an entry, of all entries, or raises. Raises
    ConfigError for an entry that is never used.

    >>> value_of_clip("videos/train", "slow/a.mp4", "fps", "slow/*=240, 60", int)
    240
    """
    stated = None
    earlier: list[str] = []
    for entry in _entries(option):
        value = parse(entry.value)
        for pattern in earlier:
            if _covers(pattern, entry.pattern):
                dataset = split.partition("/")[0]
                raise ConfigError(
                    f"{dataset}: {name} is {option!r}; {'='.join(entry)!r} is never used, because "
                    f"the entry for {pattern!r} comes first and fits the same clips. Put it last.",
                    name,
                )
        earlier.append(entry.pattern)
        if stated is None and any(fits(entry.pattern, split, clip)):
            stated = value
    return stated


def _covers(wide: str, pattern: str) -> bool:
    """Whether a pattern fits all that another fits: surely, if `*` is its only wildcard."""
    one_name = re.sub(r"\[.*?\]", "?", pattern)  # of letters in brackets, a name has one
    return not re.search(r"[?\[]", wide) and fits(wide, "", one_name)[0]


def stated_order(split: str, joints: str | None, clip: str) -> StatedOrder:
    """What the option `joints` states for a clip. split: DATASET/SPLIT. Raises ConfigError for an
    invalid option.
    """
    dataset = split.partition("/")[0]

    def known_order(name: str) -> str:
        if name in ORDER_NAMES:
            return name
        expected = f'one of {", ".join(ORDER_NAMES)}, or "a/*=coco, b.mp4=h36m" by clips'
        expected += did_you_mean(name, ORDER_NAMES)
        raise ConfigError(f"{dataset}: joints is {joints!r}; expected {expected}", "joints")

    order = value_of_clip(split, clip, "joints", joints, known_order)
    return StatedOrder(order, f"[{dataset}] joints")


def stated_columns(split: str, columns: str | None, clip: str) -> StatedColumns:
    """What the option `table_columns` states for a clip. split: DATASET/SPLIT. Raises ConfigError
    for an invalid option.
    """
    dataset = split.partition("/")[0]
    patterns = [entry.pattern for entry in _entries(columns)]

    def parse(text: str) -> dict[str, list[LabelColumn]]:
        theirs = parse_columns(text)
        if not theirs or "*" in patterns[:-1]:  # a comma in place of a blank
            problem = f"{dataset}: table_columns is {columns!r}; expected {EXPECTED}"
            raise ConfigError(problem, "table_columns")
        return theirs

    theirs = value_of_clip(split, clip, "table_columns", columns, parse)
    return StatedColumns(theirs or {}, f"[{dataset}] table_columns")
