"""What a verification tells: in words, and so that a repair can use it.  [cache]"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is not what it must be."""

    split: str  # "" for a group above the splits
    stream: str | None  # None: of the split itself
    array: str | None  # None: a manifest, a group
    shard: int | None  # None: a small file
    key: str  # below the cache
    what: str  # where, what was expected, what was found, what to do


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found. `notes` tell of left-overs of killed runs, which harm nobody."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    splits: int
    shards: int
    bytes: int
    damaged: tuple[Damage, ...] = ()  # those of the problems that are of one file
    carried: int = 0  # of the shards: found intact by a verification that was interrupted
    fast: bool = False  # chunks were not looked at

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(slots=True)
class Findings:
    """What came of one split or stream, or of all."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)
    splits: int = 0
    shards: int = 0
    bytes: int = 0
    carried: int = 0

    def damage(self, damage: Damage) -> None:
        self.damaged.append(damage)
        self.problems.append(damage.what)

    def add(self, other: Findings) -> None:
        self.problems += other.problems
        self.notes += other.notes
        self.damaged += other.damaged
        self.splits += other.splits
        self.shards += other.shards
        self.bytes += other.bytes
        self.carried += other.carried
