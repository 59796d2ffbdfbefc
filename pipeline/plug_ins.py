"""Registries of datasets, streams, detectors, models and exports: built-in ones, and those of
other packages.

`pipeline.table` lists what is built in ("ours" here). Another package registers a class, or a
record of a model or an export, by an entry point whose name is its name. They are imported when
first used.
"""

from __future__ import annotations

import functools
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

from pipeline import table
from pipeline.errors import ConfigError, PipelineError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

T = TypeVar("T")
C = TypeVar("C")

# groups of entry points; a model's section of luigi.cfg has the entry's name
DATASETS: Final = "vibe_pipeline.datasets"
STREAMS: Final = "vibe_pipeline.streams"
DETECTORS: Final = "vibe_pipeline.detectors"
MODELS: Final = "vibe_pipeline.models"


class PlugInError(PipelineError):
    """Another package's class cannot be loaded; the message names the package."""


@functools.cache
def _entry_points(group: str) -> EntryPoints:
    """Entry points of other installed packages in a group, searched once (20 ms)."""
    from importlib import metadata

    return metadata.entry_points(group=group)


def list_names(group: str) -> tuple[str, ...]:
    """Names in a group, ours first, without importing anything."""
    return (*table.OWN[group], *(entry.name for entry in _entry_points(group)))


load: Final = pkgutil.resolve_name  # imports "module:attribute"


def import_on_use(
    module: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make a module's `__getattr__`, which imports names on first use, such as those that need
    torch, and its `__dir__`, which lists them.

    A module hides both from type checkers, to which every name would exist.

    homes: Name -> its module.
    """

    def attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return load(f"{homes[name]}:{name}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[module]), *homes})

    return attribute, names


def drop_neutral(options: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """The options that an identity records: all but those of `added` with their neutral value.

    added: Option of a later version -> the value with which results are those of the versions that
    did not have it.
    """
    return {
        name: value for name, value in options.items() if name not in added or value != added[name]
    }


def raised_versions(uses: Mapping[str, int]) -> dict[str, Any]:
    """The entry "uses" of an identity: versions of shared code from 2 on; {} without any.

    uses: Name of code that several datasets, streams or detectors use -> its version.
    """
    raised = {name: version for name, version in uses.items() if version > 1}
    return {"uses": raised} if raised else {}


@dataclass(frozen=True)
class _Registration:
    """A name of a registry: where its record is, and whose it is."""

    title: str  # "detector 'my_pose'"
    target: str  # "module:object"
    package: str | None  # another package that adds it, for messages; None: it is ours

    @property
    def label(self) -> str:
        """Title for messages, with the package's name if it is not ours."""
        return self.title if self.package is None else f"{self.title} of {self.package}"


@dataclass(frozen=True)
class _LoadedRecords(Generic[T]):
    """The records of some names."""

    records: dict[str, T]  # by name
    broken: dict[str, PlugInError]  # name -> why its package could not be loaded


@dataclass(frozen=True)
class Registry(Generic[T]):
    """All records of one kind, by name: built-in ones, and those of other packages."""

    what: str  # noun for messages: "dataset"
    group: str  # group of entry points
    base: type[Any]  # class of the records
    named_by: str  # attribute of a record that has its name
    instead: str = ""  # end of the message for an unknown name

    # A record is an instance of `base`; `ClassRegistry` replaces both.
    _relation: ClassVar[str] = ""  # in messages, after the name of `base`

    def _is_record(self, loaded: object) -> bool:
        return isinstance(loaded, self.base)

    def names(self) -> tuple[str, ...]:
        """All names, ours first. Raises PipelineError if two packages claim one name."""
        return tuple(self._entries())

    def is_known(self, name: str) -> bool:
        """Whether this name is registered."""
        return self._entry(name) is not None

    def find(self, name: str) -> T:
        """Load the record of this name.

        Raises PipelineError for an unknown name, PlugInError for one that cannot be loaded.
        """
        entry = self._entry(name)
        if entry is None:
            raise self.unknown(name)
        try:
            loaded: T = load(entry.target)
        except Exception as error:
            if entry.package is None:
                raise
            why = f"{type(error).__name__}: {error}"
            raise PlugInError(f"{entry.label} cannot be loaded: {why}") from error
        if not self._is_record(loaded) or getattr(loaded, self.named_by, None) != name:
            expected = f"a {self.base.__name__}{self._relation} whose {self.named_by} is {name!r}"
            raise PlugInError(f"{entry.label}: {entry.target} is not {expected}")
        return loaded

    def load_all(self, names: Iterable[str]) -> _LoadedRecords[T]:
        """Load the records of known names, also if some of their packages are broken."""
        loaded = _LoadedRecords[T]({}, {})
        for name in names:
            try:
                loaded.records[name] = self.find(name)
            except PlugInError as error:
                loaded.broken[name] = error
        return loaded

    def every(self) -> list[T]:
        """Load all records, ours first. Those that cannot be loaded are left out with a warning."""
        loaded = self.load_all(self.names())
        for error in loaded.broken.values():
            # here: processes that read videos print nothing
            from pipeline.cli.console import warn_once

            warn_once(str(error))
        return list(loaded.records.values())

    @contextmanager
    def calling(self, name: str, function: str) -> Iterator[None]:
        """Context for a call of `function` of the record `name`, which may be another package's.

        Its unexpected exceptions become PlugInError; PipelineError passes, and so do exceptions of
        our own code.
        """
        try:
            yield
        except PipelineError:
            raise
        except Exception as error:
            entry = self._entry(name)
            if entry is None or entry.package is None:
                raise
            raise _failed_call(entry, function, error) from error

    def label(self, name: str) -> str:
        """Name for messages: "detector 'my_pose'", with the package's name if it is not ours."""
        entry = self._entry(name)
        return self._title(name) if entry is None else entry.label

    def missing_label(self, name: str) -> str:
        """Name for messages about stored data whose package is not installed."""
        return f"{self._title(name)}, whose package is not installed"

    def unknown(self, name: str) -> PipelineError:
        """The error for a name that is not registered."""
        names = self.names()
        hint = f"known: {', '.join(names)}. If a package adds it, install the package."
        similar = did_you_mean(name, names) or ";"
        return PipelineError(f"no {self.what} is called {name!r}{similar} {hint}{self.instead}")

    def _entry(self, name: str) -> _Registration | None:
        """The entry of a name. For one of ours, other packages are not asked: that takes 60 ms."""
        target = table.OWN[self.group].get(name)
        if target is None:
            return self._entries().get(name)
        return _Registration(self._title(name), target, package=None)

    def _entries(self) -> dict[str, _Registration]:
        """All entries by name, ours first. Raises PipelineError if two packages claim one name."""
        entries = {}
        for name, target in table.OWN[self.group].items():
            entries[name] = _Registration(self._title(name), target, package=None)
        for point in sorted(_entry_points(self.group), key=lambda point: point.name):
            entry = _Registration(self._title(point.name), point.value, _package(point))
            if point.name in entries:
                raise _name_in_use(entry, entries[point.name])
            entries[point.name] = entry
        return entries

    def _title(self, name: str) -> str:
        return f"{self.what} {name!r}"


class ClassRegistry(Registry[type[C]], Generic[C]):
    """All classes of one kind, by name; each is a subclass of `base`."""

    _relation = " subclass"

    def _is_record(self, loaded: object) -> bool:
        return isinstance(loaded, type) and issubclass(loaded, self.base)

    def get(self, name: str, /, **options: Any) -> C:
        """Make an instance of the class `name` with these options.

        Raises what `find` raises, and ConfigError for unknown options and invalid values.
        """
        loaded: Any = self.find(name)
        known = [field.name for field in fields(loaded) if field.init]
        unknown = sorted(options.keys() - set(known))
        if unknown:
            names = ", ".join(known) or "none"
            raise ConfigError(f"{name} has no option {', '.join(unknown)}; it has {names}")
        instance: C = loaded(**options)
        return instance


def _package(point: EntryPoint) -> str:
    """The package that has an entry point, for messages."""
    if point.dist is None:
        return f"{point.value} (of no known package)"
    return f"package {point.dist.name}"


# --------------------------------------------------------------------------------------------------
# errors


def _name_in_use(entry: _Registration, earlier: _Registration) -> PipelineError:
    if earlier.package is None:
        return PipelineError(f"{entry.label}: this name is in use. Rename it.")
    packages = f"{earlier.package} and {entry.package}"
    return PipelineError(f"{entry.title} comes from {packages}. Uninstall one of them.")


def _failed_call(entry: _Registration, function: str, error: Exception) -> PlugInError:
    """The error for a failed call; it names the last line of the package's own code."""
    package = entry.target.partition(":")[0].partition(".")[0]
    where = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] == package:
            where = f" (at {frame.f_code.co_filename}:{line})"
    return PlugInError(
        f"{entry.label} failed in {function}: {type(error).__name__}: {error}{where}. "
        "--debug shows the traceback."
    )
