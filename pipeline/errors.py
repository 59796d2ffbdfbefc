"""Errors that a user can act on: file, key, expected, found, what to do.

A temporary error of the system, such as a disk that does not answer, says nothing about a file's
content: `faults` collects those that are met while files are read, so that a video is not rejected
because of one.
"""

from __future__ import annotations

import difflib
import errno
import functools
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

if TYPE_CHECKING:
    from pydantic import ValidationError

T = TypeVar("T")


class PipelineError(Exception):
    """Base of all errors that a user can correct. The command line prints them without a
    traceback.
    """


FOLDER: Final = "folder"  # the key of an error about a folder as a whole
WHOLE: Final = (FOLDER, "file", "video")  # keys for the whole file: the message leaves them out


class RawDataError(PipelineError, ValueError):
    """A raw file is not in its dataset's format. The arguments are in the message's order.

    `reason`: Name in the accounting (`accounting.REASONS`), such as "bad_label_file".
    """

    def __init__(
        self,
        file: Path,
        key: str,
        expected: str,
        found: str,
        do: str,
        reason: str = "bad_label_file",
    ) -> None:
        within = "" if key in WHOLE else f"{key!r}: "
        super().__init__(
            f"{file}: {within}expected {expected}, found {_strip_name(file, found)}. {do}"
        )
        self.file = file
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is pickled with its message as its only argument.
        return RawDataError.__new__, (RawDataError, str(self)), vars(self)


def _strip_name(file: Path, found: str) -> str:
    """`found` without the file's name, with which the message begins.

    >>> _strip_name(Path("a.npz"), "a.npz holds objects")
    'that it holds objects'
    >>> _strip_name(Path("a.npz"), "[Errno 13] Permission denied: 'a.npz'")
    '[Errno 13] Permission denied'
    """
    if found.startswith(f"{file} "):
        return f"that it {found.removeprefix(f'{file} ')}"
    return found.replace(f": {file!r}", "").replace(f": {str(file)!r}", "")


_REFUSALS: Final[ContextVar[list[RawDataError] | None]] = ContextVar("refusals", default=None)


def refuse(error: RawDataError) -> None:
    """Raise the error, or collect it inside `reading_refused`."""
    refusals = _REFUSALS.get()
    if refusals is None:
        raise error
    refusals.append(error)


@contextmanager
def within(variable: ContextVar[T | None], value: T) -> Iterator[T]:
    """Let a variable have a value until the end of the block, which gets the value."""
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)


def reading_refused() -> AbstractContextManager[list[RawDataError]]:
    """Collect the errors of `refuse` instead of raising them, to check invalid data further."""
    return within(_REFUSALS, [])


class MissingAssets(PipelineError, FileNotFoundError):
    """Files that cannot be made here are missing, such as weights or those of the body model.

    The message names them and says how to get them.
    """


class UnsafePickle(PipelineError, ValueError):
    """A pickle names a class or function (`asks_for`) that such a file does not need."""

    def __init__(self, message: str, asks_for: str = "") -> None:
        super().__init__(message)
        self.asks_for = asks_for


class StandInMixed(PipelineError, ValueError):
    """Demo data or the demo body is mixed with real data."""


class CheckpointError(PipelineError, ValueError):
    """A checkpoint is damaged, unsafe, or of another model. The model is unchanged."""


class DataError(PipelineError, ValueError):
    """A split without the data that training or evaluation needs."""


class TrainingDiverged(PipelineError, RuntimeError):
    """Losses stayed non-finite: training stopped, with the last finite state saved."""


class ConfigError(PipelineError):  # no ValueError: pydantic would take it for one of its own
    """A setting is unknown, of the wrong type, or contradicts another.

    `options`: Names of the settings that it is about, the likeliest first, from code that does not
    know in which section they are. `Section.locate` adds the line of the first that is set.
    """

    def __init__(self, message: str, *options: str) -> None:
        super().__init__(message)
        self.options = options


def missing_package(user: str, package: str, extra: str) -> ConfigError:
    """The error for a package that an extra of this one installs."""
    how = f"pip install 'vibe-pipeline[{extra}]', in a clone .venv/bin/pip install -e '.[{extra}]'"
    return ConfigError(f"{user} needs the package {package}: {how}")


# In pydantic's messages: "Input should be greater than 0", "String should match pattern 'a+'",
# "Input should be a valid integer, unable to parse string as an integer".
_AROUND: Final = re.compile(r"^\w+ should (be |match )?|, unable to .*")
_PLAIN_WORDS: Final = {  # pattern of pydantic's words -> plain words
    "a valid integer": "a whole number",
    "a (valid|finite) number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "Value error, ": "",  # before the text of a validator's own ValueError
    "greater than or equal to (.*)": r"\1 or more",
    "less than or equal to": "at most",
    "greater than": "more than",
}


def why_refused(error: Exception) -> str:
    """Why a value is refused, in one line: "expected more than 0" for pydantic's errors, else the
    error's text.
    """
    from pydantic import ValidationError  # 40 ms, which commands need not wait for

    if not isinstance(error, ValidationError):
        return str(error)
    text = _AROUND.sub("", error.errors()[0]["msg"])
    for pydantics, plain in _PLAIN_WORDS.items():
        text = re.sub(pydantics, plain, text)
    return f"expected {text}"


def invalid_setting(error: ValidationError) -> ConfigError:
    """Make one line of pydantic's first error: "epochs: expected more than 0, found 0"."""
    detail = error.errors()[0]
    name, *keys = map(str, detail["loc"])
    if detail["type"] == "unexpected_keyword_argument":
        return ConfigError(f"{name}: there is no such setting", name)
    entry = ""
    if keys:  # of a mapping or a list
        entry = f" for {keys[0]}"
    message = f"{name}: {why_refused(error)}{entry}, found {detail['input']!r}"
    return ConfigError(message, name)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt word, as part of a message; "" without a similar one.

    >>> did_you_mean("precison", ["weights", "precision"]), did_you_mean("x", ["weights"])
    ("; did you mean 'precision'?", '')
    """
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""


def require_option(name: str, value: object, options: Any) -> None:
    """Raise ValueError unless an argument is one of the options of its type, a Literal.

    >>> require_option("norm", "batch", Literal["window", "frame"])
    Traceback (most recent call last):
    ValueError: norm is 'batch', expected 'window' or 'frame'
    """
    known = get_args(options)
    if value not in known:
        raise ValueError(f"{name} is {value!r}, expected {' or '.join(map(repr, known))}")


def require_options(record: object) -> None:
    """Raise ValueError unless each field of a dataclass that is a Literal has one of its options.

    None is one, too: fields that may be unset are `Literal[...] | None`.
    """
    for name, hint in get_type_hints(type(record)).items():
        value = getattr(record, name)
        for options in (hint, *get_args(hint)):
            if get_origin(options) is Literal and value is not None:
                require_option(name, value, options)


def describe_error(error: Exception) -> str:
    """Describe an unexpected exception of a reader: its message, the line that raised it, and the
    library that it is about, if it is about one.

    >>> try:
    ...     {}["joints"]
    ... except KeyError as error:
    ...     print(describe_error(error).partition(" (at ")[0])
    KeyError: 'joints'
    """
    where = traceback.extract_tb(error.__traceback__)[-1]
    places = [f"at {Path(where.filename).name}:{where.lineno}", library_of(error)]
    return f"{type(error).__name__}: {error} ({', '.join(filter(None, places))})"


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Package that is imported -> its distributions."""
    from importlib import metadata

    return metadata.packages_distributions()  # 0.8 s


def library_of(error: BaseException) -> str:
    """The library that an AttributeError or ImportError is about, with its version: "scipy 1.15.3".
    No file is to blame for it, but a version of the library that lacks something.

    Returns "" for other errors, and for those in code of this project, or of a package that adds a
    dataset, a stream or a detector to it.
    """
    from importlib import metadata

    if not isinstance(error, AttributeError | ImportError):
        return ""
    module = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals["__name__"])
    if isinstance(error, ImportError):
        module = error.name or module
    elif isinstance(error.obj, ModuleType | type):  # it lacks an attribute
        module = getattr(error.obj, "__module__", error.obj.__name__)
    for name in _distributions().get(module.partition(".")[0], ()):
        package = metadata.distribution(name)
        adds_to_ours = any("vibe_pipeline" in point.group for point in package.entry_points)
        is_its = any(str(file).startswith(module.replace(".", "/")) for file in package.files or ())
        if is_its and not adds_to_ours and name != "vibe-pipeline":
            return f"{name} {package.version}"
    if isinstance(error, ModuleNotFoundError):
        return f"{module}, which is not installed"
    return ""


# --------------------------------------------------------------------------------------------------
# temporary errors of the system

# permissions, a disk or mount that does not answer, exhausted resources.
_TEMPORARY: Final = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.EAGAIN,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENODEV,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
    }
)
_FAULTS: Final[ContextVar[list[OSError] | None]] = ContextVar("faults", default=None)


def is_temporary(error: BaseException) -> bool:
    """Whether an error is a temporary one of the system, which says nothing about the file."""
    return isinstance(error, OSError) and error.errno in _TEMPORARY


def note_fault(error: BaseException | None) -> None:
    """Inside `faults`, record an error if it is temporary, and its causes that are temporary."""
    noted = _FAULTS.get()
    while noted is not None and error is not None:
        if isinstance(error, OSError) and is_temporary(error):
            noted.append(error)
        error = error.__cause__


def faults() -> AbstractContextManager[list[OSError]]:
    """Within the block, collect the temporary errors of all raw files that are read, including
    errors that are handled.
    """
    return within(_FAULTS, [])
