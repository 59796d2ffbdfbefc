"""Commands of `python -m pipeline` that other packages bring, loaded when their turn comes.

A package adds one by an entry point of the group "vibe_pipeline.commands": its name is the command's, its value a
module with `HELP`, `options(parser)` and `run(args) -> exit code`. One that cannot be loaded harms no other.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from importlib.metadata import EntryPoint, distributions
from typing import Any, Final

from pipeline.errors import PipelineError

ENTRY_POINTS: Final = "vibe_pipeline.commands"
# Those of this project that know more than this package may: name -> (where it is, what it does).
OURS: Final = {"config": ("tasks.commands.config", "The effective settings, and where each comes from.")}


class PlugIn:
    """A command by its entry point; None: of this project, but not known to the installation."""

    def __init__(self, name: str, entry: EntryPoint | None, help_: str) -> None:
        self.HELP = help_
        self._name, self._entry = name, entry
        self._loaded: Any = None

    def options(self, sub: argparse.ArgumentParser) -> None:
        """The command's own, when it is the one that was named."""
        parse = sub.parse_known_args
        loaded: list[argparse.ArgumentParser] = []  # this parser, once its options are there

        def load_first(args: Any = None, namespace: Any = None) -> Any:
            if not loaded:
                self._loaded = self._load()
                self._loaded.options(sub)
                loaded.append(sub)
            return parse(args, namespace)

        sub.parse_known_args = load_first  # type: ignore[method-assign]  # what argparse calls of the chosen command

    def run(self, args: argparse.Namespace) -> int:
        code: int = self._loaded.run(args)
        return code

    def _load(self) -> Any:
        if self._entry is None:
            raise PipelineError(
                f"{self._name}: this project has been installed before there was such a command. Install it again: "
                "pip install -e . (or as before), in its folder."
            )
        try:
            found = self._entry.load()
        except PipelineError:
            raise  # in words already
        except Exception as error:  # other people's code may fail in any way: say whose it is
            raise PipelineError(f"{self._which()} cannot be loaded: {type(error).__name__}: {error}") from error
        if lacking := [name for name in ("HELP", "options", "run") if not hasattr(found, name)]:
            raise PipelineError(f"{self._which()}: {self._entry.value} has no {', '.join(lacking)}")
        return found

    def _which(self) -> str:
        return f"command {self._name!r} of {package_of(self._entry)}"


def package_of(entry: EntryPoint | None) -> str:
    """
    >>> package_of(EntryPoint("count", "a.b", ENTRY_POINTS))
    'a.b'
    """
    return entry.dist.name if entry is not None and entry.dist is not None else entry.value if entry else ""


def plug_ins(taken: Collection[str]) -> Iterator[tuple[str, PlugIn]]:
    """(name, command) of all that are installed. One whose name is taken has its package before it: `theirs:plan`."""
    # Of every distribution: a build's left-over in the current folder (*.egg-info) would hide the installed one.
    every = [entry for one in distributions() for entry in one.entry_points.select(group=ENTRY_POINTS)]
    found = {(package_of(entry), entry.name, entry.value): entry for entry in every}.values()
    used = set(taken)
    for name, (value, help_) in OURS.items():
        own = next((entry for entry in found if (entry.name, entry.value) == (name, value)), None)
        used.add(name)
        yield name, PlugIn(name, own, help_)
    values = {value for value, _ in OURS.values()}
    for entry in sorted(found, key=lambda entry: (package_of(entry), entry.name)):
        if entry.value in values:
            continue  # above
        name = f"{package_of(entry)}:{entry.name}" if entry.name in used else entry.name
        if name not in used:
            used.add(name)
            yield name, PlugIn(name, entry, f"of package {package_of(entry)}")
