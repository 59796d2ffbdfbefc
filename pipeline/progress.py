"""How long work tells how far it is, whoever listens: a terminal, Luigi's page, or nobody."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with units done, units in all and a few words ("S1/Seq1", "71 frames/s")."""

    def __call__(self, done: int, total: int, message: str = "") -> None: ...


def silent(done: int, total: int, message: str = "") -> None:  # noqa: ARG001 - the signature is Progress's
    """Nobody listens."""
