"""An extraction of a stream of labels: no pixels are read.  tracks -> [features] -> windows"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

import numpy as np

from cache import Split
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.outputs import Output, check_shape, device_of, load
from pipeline.features.engine.shards import OpenShards
from pipeline.features.spec import Resources
from pipeline.features.streams.base import LabelComputer, LabelStream

AT_ONCE: Final = 1024  # rows

T = TypeVar("T")


class LabelRun(Generic[T]):
    """As `engine.run.Run`, of one stream of labels."""

    def __init__(
        self, split: Split, output: Output[T], *, resources: Resources, progress: Callable[[int, Meter], None]
    ) -> None:
        self._split, self._output, self._resources, self._progress = split, output, resources, progress
        self.meter = Meter(decoders=0)
        self.provenance: list[Mapping[str, Any] | None] = [None]

    def results(self) -> Iterator[tuple[int, T]]:
        """(0, what `write` returned) of each target shard. Raises what `write` and the stream raise."""
        stream = self._output.stream
        assert isinstance(stream, LabelStream)
        computer: LabelComputer | None = None
        shards = OpenShards(self._split, self._output.shards, stream, self._output.target)
        for number in self._output.target:
            shard = shards.open(number)
            todo = np.flatnonzero(shard.todo)
            if len(todo) and computer is None:
                computer, self.provenance[0] = load(stream, self._resources, self._output.recorded)
                self.meter.device = device_of(self.provenance)
            for rows in np.split(todo + shard.start, range(AT_ONCE, len(todo), AT_ONCE)):
                if computer is None or not len(rows):
                    continue
                first, stop = int(rows[0]), int(rows[-1]) + 1
                labels = {name: self._split.rows(name, first, stop)[rows - first] for name in stream.columns}
                with self.meter.measured("model"):
                    computed, known = computer(labels)
                check_shape(stream, computed, len(rows))
                shards.put(rows, computed, known)
                self.meter.rows += len(rows)
                self._progress(self.meter.rows + shards.not_computed, self.meter)
            for finished in shards.finished():
                with self.meter.measured("write"):
                    written = self._output.write(finished)
                yield 0, written
        self.meter.stop()
        self._progress(self.meter.rows + shards.not_computed, self.meter)
