"""A run's curves and pictures out of its TensorBoard events.  training -> evaluation -> report: [events] -> curves

Memory is bounded: a long curve is thinned as it is read, and of the pictures only those of the best and of the last
epoch are kept. What a killed run had logged beyond the state that it goes on from is left out, as viewers do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto import event_pb2

MAX_POINTS: Final = 1 << 14  # of a curve; beyond, every other one goes
MAX_PICTURES: Final = 8  # of an epoch
MAX_PICTURE_BYTES: Final = 1 << 23
PATTERN: Final = "events.out.tfevents.*"
VALIDATION: Final = "validation/"
SCORE: Final = "/pa_mpjpe"  # what the best epoch is told by
_FRAME: Final = 16  # bytes around each record
_HOST: Final = re.compile(r"events\.out\.tfevents\.\d+\.(.+)\.\d+\.\d+")


@dataclass(slots=True)
class Curve:
    """One number over the steps at which it was logged."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    every: int = 1  # so many logged points does each stand for
    _skipped: int = 0

    def add(self, step: int, value: float) -> None:
        """One more point; thins the curve when it has become too long."""
        if self.steps and self._skipped < self.every - 1:
            self._skipped += 1
            return
        self.steps.append(step)
        self.values.append(value)
        self._skipped = 0
        if len(self.steps) > MAX_POINTS:
            del self.steps[1::2], self.values[1::2]
            self.every *= 2

    def cut(self, first: int) -> None:
        """Without the points from step `first` on."""
        while self.steps and self.steps[-1] >= first:
            self.steps.pop()
            self.values.pop()


@dataclass(slots=True)
class Events:
    """What the event files of one run hold."""

    curves: dict[str, Curve] = field(default_factory=dict)  # by tag, as train/total
    pictures: dict[int, dict[str, bytes]] = field(default_factory=dict)  # by step and tag: PNG or JPEG bytes
    seconds: float = 0.0  # between the first and the last event of each file, added up
    began: float | None = None  # of the first event, s since 1970
    hosts: tuple[str, ...] = ()  # as the files' names say
    problems: list[str] = field(default_factory=list)

    def splits(self) -> list[str]:
        """The validation splits, in the order in which they were logged."""
        return [tag.removeprefix(VALIDATION).removesuffix(SCORE) for tag in self._scores()]

    def best_step(self) -> int | None:
        """The step after which the mean validation PA-MPJPE was lowest; None without one."""
        curves = self._scores().values()
        by_step: dict[int, list[float]] = {}
        for curve in curves:
            for step, value in zip(curve.steps, curve.values, strict=True):
                by_step.setdefault(step, []).append(value)
        means = {s: math.fsum(v) / len(v) for s, v in by_step.items() if len(v) == len(curves) and all_finite(v)}
        return min(means, key=lambda step: (means[step], step)) if means else None

    def last_step(self) -> int:
        """The last step of which anything was logged; 0 if nothing."""
        return max((curve.steps[-1] for curve in self.curves.values() if curve.steps), default=0)

    def add(self, event: Any) -> None:
        """Take in one event."""
        if event.HasField("session_log"):  # a run goes on from here
            self._cut(event.step)
        for value in event.summary.value:
            kind = value.WhichOneof("value")
            if kind == "simple_value":
                self.curves.setdefault(value.tag, Curve()).add(event.step, value.simple_value)
            elif kind == "image":
                self._picture(event.step, value.tag, value.image.encoded_image_string)

    def _scores(self) -> dict[str, Curve]:
        return {t: c for t, c in self.curves.items() if t.startswith(VALIDATION) and t.endswith(SCORE)}

    def _cut(self, first: int) -> None:
        for curve in self.curves.values():
            curve.cut(first)
        self.pictures = {step: of for step, of in self.pictures.items() if step < first}

    def _picture(self, step: int, tag: str, data: bytes) -> None:
        if step not in self.pictures:  # an epoch's numbers are logged before its pictures
            kept = {max(self.pictures, default=step), self.best_step()}
            self.pictures = {known: of for known, of in self.pictures.items() if known in kept}
            self.pictures[step] = {}
        if len(data) <= MAX_PICTURE_BYTES and len(self.pictures[step]) < MAX_PICTURES:
            self.pictures[step][tag] = data


def read_events(folder: Path) -> Events:
    """Everything that the event files of a run's folder hold, in the order in which they were written.

    A file that is damaged or ends early counts as far as it can be read; `problems` tell how far that is.
    """
    found, hosts = Events(), []
    for file in sorted(folder.glob(PATTERN)):
        hosts += [match[1]] if (match := _HOST.fullmatch(file.name)) else []
        _read_file(file, found)
    found.hosts = tuple(dict.fromkeys(hosts))
    return found


def all_finite(values: list[float]) -> bool:
    """Is none of them NaN or infinite?"""
    return all(math.isfinite(value) for value in values)


def _read_file(file: Path, found: Events) -> None:
    size, read = file.stat().st_size, 0
    first = last = None
    try:
        for record in _records(file):
            event = event_pb2.Event.FromString(record)
            found.add(event)
            read += len(record) + _FRAME
            first = event.wall_time if first is None else first
            last = event.wall_time
    except (OSError, DecodeError) as error:
        found.problems.append(f"{file}: {error}")
    if first is not None and last is not None:
        found.seconds += max(last - first, 0.0)
        found.began = first if found.began is None else min(found.began, first)
    if read < size:
        found.problems.append(
            f"{file}: its last {size - read:,} of {size:,} bytes cannot be read: the file is damaged or being written. "
            "The curves end there."
        )


def _records(file: Path) -> Iterator[bytes]:
    records: Iterator[bytes] = RawEventFileLoader(str(file)).Load()
    yield from records
