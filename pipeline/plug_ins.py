"""Datasets, streams, detectors, models by name: ours, and what other packages add. Each is imported when it is used.

A package adds one by an entry point, which has its name and leads to its class; of a model, to its record.
"""

from __future__ import annotations

import functools
import importlib
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, Final, Generic, TypeVar

from pipeline.errors import ConfigError, PipelineError, did_you_mean

T = TypeVar("T")

MODELS: Final = "vibe_pipeline.models"  # the group of entry points; a model's section of luigi.cfg has its name
COMMANDS: Final = "vibe_pipeline.commands"  # the group of commands: each leads to a CommandEntry
SECTIONS: Final = "vibe_pipeline.sections"  # the group of luigi.cfg's sections; each leads to its package's record
TASKS: Final = "vibe_pipeline.tasks"  # the group of Luigi tasks; each leads to its class
EXPORTS: Final = "vibe_pipeline.exports"  # the group of export formats
OWN: Final = "vibe-pipeline"  # this distribution: its extensions are found as other packages are


class PlugInError(PipelineError):
    """What another package adds cannot be loaded: the message names the package. All the rest can go on."""


@functools.cache
def entry_points(group: str) -> EntryPoints:
    """Entry points of all installed packages, which are searched once: that takes 20 ms."""
    return metadata.entry_points(group=group)


def is_own(entry: EntryPoint) -> bool:
    """Whether an entry point belongs to this distribution: to an extension, not to another package."""
    return entry.dist is not None and entry.dist.name == OWN


def load_records(group: str, record: type[T]) -> dict[str, T]:
    """Load the records of a group by name, our own first.

    Raises PlugInError for one that cannot be loaded or is of another class.
    """
    records: dict[str, T] = {}
    for entry in sorted(entry_points(group), key=lambda entry: (not is_own(entry), entry.name)):
        try:
            loaded = entry.load()
        except Exception as error:  # other people's code may fail in any way: say whose it is
            raise PlugInError(f"{group}: {entry.name!r} of {_package(entry)} cannot be loaded: {error!r}") from error
        if not isinstance(loaded, record) or entry.name in records:
            expected = f"one {record.__name__} called {entry.name!r}"
            raise PlugInError(f"{group}: expected {expected}, found {entry.value} of {_package(entry)}")
        records[entry.name] = loaded
    return records


def service(group: str) -> Any:
    """What the one entry point of a group names. Raises PipelineError where no extension has it."""
    entries = [*entry_points(group)]
    if not entries:
        raise PipelineError(f"no extension provides {group!r}: install vibe-pipeline again (make setup).")
    return entries[0].load()


def load(name: str) -> Any:
    """What `module:attribute` names: imported when it is used."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True)
class Registry(Generic[T]):
    """All classes of one kind, by name; or all records of one class."""

    what: str  # what messages call one of them: "dataset"
    group: str  # of entry points
    ours: Mapping[str, str]  # name -> module:class
    base: type[Any]
    named_by: str  # the attribute that holds the name
    records: bool = False  # an entry point leads to an object of the class `base`, not to a subclass

    def names(self) -> tuple[str, ...]:
        """All names, ours first. Raises PipelineError when two packages claim one name."""
        plug_ins = self._plug_ins()
        return (*self.ours, *sorted(plug_ins, key=lambda name: (not is_own(plug_ins[name]), name)))

    def find(self, name: str) -> type[T]:
        """The class of that name. Raises PipelineError for an unknown name, PlugInError for one that does not load."""
        if name in self.ours:
            ours: type[T] = load(self.ours[name])
            return ours
        plug_ins = self._plug_ins()
        if name not in plug_ins:
            raise PipelineError(self.unknown(name))
        entry, which = plug_ins[name], self.label(name)
        try:
            loaded: type[T] = entry.load()
        except Exception as error:  # other people's code may fail in any way: say whose it is
            raise PlugInError(f"{which} cannot be loaded: {type(error).__name__}: {error}") from error
        of_class = isinstance(loaded, type) and issubclass(loaded, self.base)
        if not (isinstance(loaded, self.base) if self.records else of_class) or getattr(loaded, self.named_by) != name:
            which_class = f"{self.base.__name__}{'' if self.records else ' subclass'}"
            expected = f"a {which_class} whose {self.named_by} is {name!r}"
            raise PlugInError(f"{which}: {entry.value} is not {expected}")
        return loaded

    def unknown(self, name: str) -> str:
        """Why there is none of that name, and what to do; "" where there is one."""
        if name in (names := self.names()):
            return ""
        hint = f"known: {', '.join(names)}. If a package adds it, install that package."
        return f"no {self.what} is called {name!r}{did_you_mean(name, names)} {hint}"

    def not_installed(self, name: str) -> str:
        """What a message calls one that made what is stored, where its package is missing; "" where it is not."""
        return "" if name in self.names() else f"{self.what} {name!r}, whose package is not installed"

    def label(self, name: str) -> str:
        """What messages call it: "detector 'my_pose'", of another package with that package's name."""
        entry = self._plug_ins().get(name)
        return f"{self.what} {name!r}" + (f" of {_package(entry)}" if entry is not None and not is_own(entry) else "")

    @contextmanager
    def calling(self, name: str, function: str) -> Iterator[None]:
        """While a function of another package's class runs: raise PlugInError for what it was not meant to raise."""
        try:
            yield
        except PipelineError:
            raise
        except Exception as error:  # other people's code may fail in any way: say whose it is
            entry = self._plug_ins().get(name)
            if entry is None or is_own(entry):
                raise
            where = _own_line(error, entry.module.partition(".")[0])
            message = f"{self.label(name)} failed in {function}: {type(error).__name__}: {error}{where}"
            raise PlugInError(f"{message}. --debug shows the traceback.") from error

    def broken(self, names: Iterable[str]) -> dict[str, str]:
        """Which of these cannot be loaded, because their package is broken: name -> message."""
        messages = {}
        for name in names:
            try:
                self.find(name)
            except PlugInError as error:
                messages[name] = str(error)
        return messages

    def get(self, name: str, /, **options: Any) -> T:
        """One with its options set.

        Raises as `find` does, and ConfigError for an option that it does not have or a value that it refuses.
        """
        loaded: Any = self.find(name)
        options_of = [field.name for field in fields(loaded) if field.init]
        if unknown := sorted(options.keys() - set(options_of)):
            raise ConfigError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(options_of) or 'none'}")
        made: T = loaded(**options)
        return made

    def _plug_ins(self) -> dict[str, EntryPoint]:
        entries: dict[str, EntryPoint] = {}
        for entry in entry_points(group=self.group):
            which = f"{self.what} {entry.name!r}"
            if entry.name in self.ours:
                raise PipelineError(f"{which} of {_package(entry)} has the name of one of ours: rename it")
            if entry.name in entries:
                both = f"{_package(entries[entry.name])} and {_package(entry)}"
                raise PipelineError(f"{which} comes from {both}: uninstall one of them")
            entries[entry.name] = entry
        return entries


def _package(entry: EntryPoint) -> str:
    return f"package {entry.dist.name}" if entry.dist is not None else f"{entry.value} (of no known package)"


def _own_line(error: Exception, package: str) -> str:
    """The last line of a package's own code in an exception's traceback, for a message: "" without any."""
    frames = traceback.walk_tb(error.__traceback__)
    own = [(f, line) for f, line in frames if str(f.f_globals.get("__name__")).partition(".")[0] == package]
    return f" (at {own[-1][0].f_code.co_filename}:{own[-1][1]})" if own else ""
