"""What became of rows.  crops -> [features]"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.features.engine.assembly import EXAMPLES, OpenShard


@dataclass(slots=True)
class Counts:
    """What became of rows."""

    computed: int = 0
    carried: int = 0  # whose pixels, frame and box the stream already had
    problems: dict[str, int] = field(default_factory=dict)  # why rows have no feature -> how many
    examples: list[str] = field(default_factory=list)  # the first few problems, in words

    @classmethod
    def of(cls, shard: OpenShard) -> Counts:
        """Of one whole shard."""
        return cls(shard.computed, shard.carried, dict(shard.problems), list(shard.examples))

    def add(self, other: Counts) -> None:
        """Of other rows, too."""
        self.computed += other.computed
        self.carried += other.carried
        for kind, rows in other.problems.items():
            self.problems[kind] = self.problems.get(kind, 0) + rows
        self.examples = (self.examples + other.examples)[:EXAMPLES]
