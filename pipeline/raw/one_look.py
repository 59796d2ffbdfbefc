"""One look at each file and folder of a video while it is read.  [raw -> tracks] -> features -> windows

The digest of a video, the reader, and the digest of its pixels ask for the same listings and contents. Inside
`one_look` they are asked of the disk once, so that all three also speak of the same state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_SEEN: Final[ContextVar[dict[Any, Any] | None]] = ContextVar("seen", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """What functions marked with `once` find is kept until the end of the block, and then forgotten."""
    token = _SEEN.set({})
    try:
        yield
    finally:
        _SEEN.reset(token)


def once(look: Callable[P, R]) -> Callable[P, R]:
    """Inside `one_look`, call a function once for the same (hashable) arguments. Nobody may change what it returned."""

    @functools.wraps(look)
    def looked(*args: P.args, **kwargs: P.kwargs) -> R:
        seen = _SEEN.get()
        if seen is None or kwargs:
            return look(*args, **kwargs)
        key = (look, args)
        if key not in seen:
            seen[key] = look(*args, **kwargs)
        found: R = seen[key]
        return found

    return looked


def known(looked: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
    """What a function marked with `once` found for these arguments, if it was asked before; None otherwise."""
    seen = _SEEN.get()
    if seen is None or kwargs:
        return None
    found: R | None = seen.get((looked.__wrapped__, args))  # type: ignore[attr-defined]  # wraps() puts it there
    return found
