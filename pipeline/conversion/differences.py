"""What of a fingerprint is other than it was, part by part.  raw -> [tracks -> features] -> windows"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

_DIGEST: Final = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")


class Difference(NamedTuple):
    """One part of a fingerprint: its name, with a dot before a name within it, and both values, as JSON has them."""

    part: str
    was: Any
    now: Any

    def __str__(self) -> str:
        """
        >>> str(Difference("version", 1, 2))
        'version was 1, is 2'
        """
        return f"{self.part} was {short(self.was)}, is {short(self.now)}"

    def as_dict(self) -> dict[str, Any]:
        return {"part": self.part, "was": self.was, "is": self.now}


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """The parts of a fingerprint that differ, by name.

    >>> differing({"version": 1, "parameters": {"fps": 25}}, {"version": 1, "parameters": {"fps": 30}})
    [Difference(part='parameters.fps', was=25, now=30)]
    """
    return list(_differing("", before, now))


def _differing(within: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    for key in sorted(before.keys() | now.keys()):
        was, found = before.get(key), now.get(key)
        if isinstance(was, Mapping) and isinstance(found, Mapping):
            yield from _differing(f"{within}{key}.", was, found)
        elif was != found:
            yield Difference(f"{within}{key}", was, found)


def in_words(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The same as people read it; a network's weights are told as `--weights` has them.

    >>> untrained = {"kind": "untrained", "argument": "0"}
    >>> in_words({"weights": untrained}, {"weights": {**untrained, "argument": "1"}, "precision": "fast"})
    'precision was not set, is fast; weights was untrained:0, is untrained:1'
    """
    before, now = ({**parts, "weights": short(parts.get("weights"))} for parts in (before, now))
    return "; ".join(map(str, differing(before, now)))


def replaced(before: Mapping[str, Any], now: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """`before` with the named parts as they are in `now`; a part that is no longer there goes.

    >>> replaced({"version": 1, "parameters": {"fps": 25, "a": 0}}, {"version": 2, "parameters": {}}, ["parameters.a"])
    {'version': 1, 'parameters': {'fps': 25}}
    """
    made = dict(before)
    for part in parts:
        key, _, within = part.partition(".")
        if within:
            made[key] = replaced(made[key], now[key], [within])
        elif key in now:
            made[key] = now[key]
        else:
            made.pop(key, None)
    return made


def short(value: Any) -> str:
    """A value in words. Digests are cut: twelve digits tell them apart.

    >>> [short(value) for value in ("0123456789abcdef0123456789abcdef", None, {"kind": "untrained", "argument": "0"})]
    ['0123456789ab...', 'not set', 'untrained:0']
    """
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()  # as luigi.cfg has it
    if isinstance(value, Mapping) and len(value) == 2 and "kind" in value:  # of weights, as --weights has them
        kind, argument = value["kind"], next(value[key] for key in value if key != "kind")
        return f"{kind}:{short(argument)}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {short(of)}" for key, of in value.items()) or "nothing"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(short, value)) or "nothing"
    return _DIGEST.sub(r"\1...", str(value))
