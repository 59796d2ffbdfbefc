"""What the contracts of streams and detectors share: names, versions, identities, and another process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import PipelineError

T = TypeVar("T")


def declaration_problems(plug_in: Any, named_by: str, but: str = "") -> Iterator[str]:
    """What is wrong with the name, version and identity of a stream or detector: for contracts.

    An identity has all options, by name, `but` one, and no path.
    """
    if not isinstance(getattr(plug_in, named_by, None), str) or not getattr(plug_in, named_by):
        yield f"has no {named_by}"
    yield from number_problems(plug_in, "version")
    identity = plug_in.identity()
    if not isinstance(identity, Mapping):
        yield f"identity() gives {identity!r}: expected a dictionary"
        return
    try:
        same = json.loads(json.dumps(identity, allow_nan=False)) == identity
    except (TypeError, ValueError) as error:
        yield f"identity() is not JSON: {error}"
        return
    if not same:
        yield "identity() is another one when it is read from JSON: no tuples, no keys that are numbers"
    if identity != plug_in.identity():
        yield "identity() is another one the second time"
    for name in (option.name for option in fields(plug_in) if option.name != but):
        if name not in identity and not isinstance(getattr(plug_in, name), Path):
            yield f"identity() lacks the option {name}: its numbers depend on it"
    for text in _texts(identity):
        if text.startswith(("/", "~", "file:")) or (Path(text).suffix and Path(text).exists()):
            yield f"identity() names the path {text!r}: expected the digest of what is in it"


def number_problems(plug_in: Any, name: str) -> Iterator[str]:
    """What is wrong with a declared number from 1 on."""
    if not isinstance(value := getattr(plug_in, name), int) or value < 1:
        yield f"{name} is {value!r}: expected a whole number from 1"


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        yield from _texts(list(values.values()))
    elif isinstance(values, Sequence):
        for value in values:
            yield from _texts(value)


def of_another_process(function: Callable[..., T], *arguments: Any) -> T:
    """What a function returns in a process that shares nothing with this one: for contracts."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    if getattr(multiprocessing.current_process(), "_inheriting", False):  # set while a script runs again
        raise PipelineError("a second process runs this script again: call this below `if __name__ == '__main__':`")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()
