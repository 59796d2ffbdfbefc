"""Registries of datasets, streams, detectors, models and exports: built-in ones, and those of
other packages.

`pipeline.table` lists what is built in ("ours" here). Another package registers a class, or a
record of a model or an export, by an entry point whose name is its name. They are imported when
first used.
"""

from __future__ import annotations

import functools
import pkgutil
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, ClassVar, Final, Generic, TypeVar

from pipeline import table
from pipeline.errors import ConfigError, PipelineError, did_you_mean

T = TypeVar("T")
C = TypeVar("C")

# Groups of entry points
MODELS: Final = "vibe_pipeline.models"  # a model's section of luigi.cfg has its name


class PlugInError(PipelineError):
    """Another package's class cannot be loaded; the message names the package."""


@functools.cache
def entry_points(group: str) -> EntryPoints:
    """Entry points of other installed packages in a group, searched once (20 ms)."""
    return metadata.entry_points(group=group)


def list_names(group: str) -> tuple[str, ...]:
    """Names in a group, ours first, without importing anything."""
    return (*table.OWN[group], *(entry.name for entry in entry_points(group)))


@functools.cache
def _warn(message: str) -> None:
    """Print a warning, once in a process."""
    from pipeline.cli.console import DOUBT, err, plain

    err.print(f"{DOUBT} {plain(message)}")


load: Final = pkgutil.resolve_name  # imports "module:attribute"


def import_on_use(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a module's `__getattr__` that imports names on first use, such as those that need torch.

    homes: Name -> its module, or "module:attribute" if it has another name there.
    """

    def attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home = homes[name]
        if ":" not in home:
            home = f"{home}:{name}"
        return load(home)

    return attribute


@dataclass(frozen=True)
class Records(Generic[T]):
    """All records of one kind, by name: built-in ones, and those of other packages.

    `find` loads one, `every` all, and `broken` says which cannot be loaded. `unknown`,
    `not_installed` and `label` write about a name in messages.
    """

    what: str  # noun for messages: "dataset"
    group: str  # group of entry points
    base: type[Any]  # class of the records
    named_by: str  # attribute of a record that has its name

    @property
    def ours(self) -> Mapping[str, str]:
        """Name -> "module:object" of the built-in ones."""
        return table.OWN[self.group]

    def names(self) -> tuple[str, ...]:
        """All names, ours first. Raises PipelineError if two packages claim one name."""
        return (*self.ours, *sorted(self._plug_ins()))

    def find(self, name: str) -> T:
        """Load the record of this name.

        Raises PipelineError for an unknown name, PlugInError for one that cannot be loaded.
        """
        if name in self.ours:
            ours: T = load(self.ours[name])
            return ours
        plug_ins = self._plug_ins()
        if name not in plug_ins:
            raise PipelineError(self.unknown(name))
        entry = plug_ins[name]
        label = self.label(name)
        try:
            loaded: T = entry.load()
        except Exception as error:
            raise PlugInError(
                f"{label} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        if not self._is_record(loaded) or getattr(loaded, self.named_by) != name:
            expected = f"a {self.base.__name__}{self._relation} whose {self.named_by} is {name!r}"
            raise PlugInError(f"{label}: {entry.value} is not {expected}")
        return loaded

    # A record is an instance of `base`; `Registry` replaces both, as its records are subclasses.
    _relation: ClassVar[str] = ""  # in messages, after the name of `base`

    def _is_record(self, loaded: object) -> bool:
        return isinstance(loaded, self.base)

    def every(self) -> list[T]:
        """Load all records, ours first. Those that cannot be loaded are left out with a warning."""
        broken = self.broken(self.names())
        for message in broken.values():
            _warn(message)
        return [self.find(name) for name in self.names() if name not in broken]

    def unknown(self, name: str) -> str:
        """Why a name is unknown, and what to do; "" for a known name."""
        names = self.names()
        if name in names:
            return ""
        hint = f"known: {', '.join(names)}. If a package adds it, install the package."
        similar = did_you_mean(name, names) or ";"
        return f"no {self.what} is called {name!r}{similar} {hint}"

    def not_installed(self, name: str) -> str:
        """Description of a name in stored data whose package is missing; "" if it is installed."""
        if name in self.names():
            return ""
        return f"{self.what} {name!r}, whose package is not installed"

    def label(self, name: str) -> str:
        """Name for messages: "detector 'my_pose'", with the package's name if it is not ours."""
        label = f"{self.what} {name!r}"
        entry = self._plug_ins().get(name)
        if entry is not None:
            label += f" of {_package(entry)}"
        return label

    @contextmanager
    def calling(self, name: str, function: str) -> Iterator[None]:
        """Context for a call of `function` of the class `name`, which may be another package's.

        Its unexpected exceptions become PlugInError; PipelineError passes, and so do exceptions of
        our own classes.
        """
        try:
            yield
        except PipelineError:
            raise
        except Exception as error:
            entry = self._plug_ins().get(name)
            if entry is None:
                raise
            where = _last_line_of(error, entry.module.partition(".")[0])
            message = (
                f"{self.label(name)} failed in {function}: {type(error).__name__}: {error}{where}"
            )
            raise PlugInError(f"{message}. --debug shows the traceback.") from error

    def broken(self, names: Iterable[str]) -> dict[str, str]:
        """Those of `names` that cannot be loaded because their package is broken -> message."""
        messages = {}
        for name in names:
            try:
                self.find(name)
            except PlugInError as error:
                messages[name] = str(error)
        return messages

    def _plug_ins(self) -> dict[str, EntryPoint]:
        """Entry points of other packages, by name. Raises PipelineError if a name is in use."""
        entries: dict[str, EntryPoint] = {}
        for entry in entry_points(group=self.group):
            label = f"{self.what} {entry.name!r}"
            if entry.name in self.ours:
                raise PipelineError(
                    f"{label} of {_package(entry)}: this name is in use. Rename it."
                )
            if entry.name in entries:
                packages = f"{_package(entries[entry.name])} and {_package(entry)}"
                raise PipelineError(f"{label} comes from {packages}. Uninstall one of them.")
            entries[entry.name] = entry
        return entries


class Registry(Records[type[C]], Generic[C]):
    """All classes of one kind, by name; each is a subclass of `base`."""

    _relation = " subclass"

    def _is_record(self, loaded: object) -> bool:
        return isinstance(loaded, type) and issubclass(loaded, self.base)

    def get(self, name: str, /, **options: Any) -> C:
        """Make an instance of the class `name` with these options.

        Raises what `find` raises, and ConfigError for unknown options and invalid values.
        """
        loaded: Any = self.find(name)
        options_of = [field.name for field in fields(loaded) if field.init]
        unknown = sorted(options.keys() - set(options_of))
        if unknown:
            names = ", ".join(options_of) or "none"
            raise ConfigError(f"{name} has no option {', '.join(unknown)}; it has {names}")
        instance: C = loaded(**options)
        return instance


def _package(entry: EntryPoint) -> str:
    if entry.dist is None:
        return f"{entry.value} (of no known package)"
    return f"package {entry.dist.name}"


def _last_line_of(error: Exception, package: str) -> str:
    """Where a package's own code is last in a traceback: " (at FILE:LINE)"; "" if it is not."""
    text = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] == package:
            text = f" (at {frame.f_code.co_filename}:{line})"
    return text
