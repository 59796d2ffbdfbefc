"""Contracts: pytest classes in the modules beside this one. Subclass one in a test file and
override its fixtures:

    class TestMine(StreamContract):
        @pytest.fixture
        def stream(self) -> Stream:
            return MyStream()

A test fails with the list of broken promises. The functions behind them return this list:
`reader_problems`, ... Fixtures that a docstring names must be defined; others have a default. This
module has the shared code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def fail_if_any(problems: list[str]) -> None:
    """Fail the test with one line for each broken promise."""
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def declaration_problems(stream: Any) -> Iterator[str]:
    """Problems of a stream's kind, version and identity.

    The identity must contain all options except `crop`, and no path.
    """
    if not isinstance(getattr(stream, "kind", None), str) or not stream.kind:
        yield "has no kind"
    yield from number_problems(stream, "version")
    identity = stream.identity()
    if not isinstance(identity, Mapping):
        yield f"identity() returns {identity!r}: expected a dictionary"
        return
    try:
        is_same = json.loads(json.dumps(identity, allow_nan=False)) == identity
    except (TypeError, ValueError) as error:
        yield f"identity() is not JSON: {error}"
        return
    if not is_same:
        yield (
            "identity() changes when it is written as JSON and read back: use no tuples and "
            "no numbers as keys"
        )
    if identity != stream.identity():
        yield "identity() returns different values when called again"
    for option in fields(stream):
        name = option.name
        is_exempt = name == "crop" or isinstance(getattr(stream, name), Path)
        if name not in identity and not is_exempt:
            yield f"identity() does not contain the option {name}, on which the results depend"
    for text in _texts(identity):
        if text.startswith(("/", "~", "file:")) or (Path(text).suffix and Path(text).exists()):
            yield f"identity() contains the path {text!r}: expected a digest of the file's content"


def number_problems(plug_in: Any, name: str) -> Iterator[str]:
    """Problems of an attribute that must be a positive integer."""
    value = getattr(plug_in, name)
    if not isinstance(value, int) or value < 1:
        yield f"{name} is {value!r}: expected an integer >= 1"


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        yield from _texts(list(values.values()))
    elif isinstance(values, Sequence):
        for value in values:
            yield from _texts(value)


def run_in_new_process(function: Callable[..., T], *arguments: Any) -> T:
    """Return the function's result in a freshly spawned process. A script needs a `__main__`
    guard.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()
