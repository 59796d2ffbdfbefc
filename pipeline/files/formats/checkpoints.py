"""Read checkpoints of torch and safetensors without running code from them.  [weights]

A checkpoint of torch is a pickle, which can name functions to call. torch's restricted unpickler
does not call them. NumPy numbers are allowed, too: they are rebuilt by functions of this module,
without NumPy's own unpickling. Importing this module imports torch.

Readers of published weights and of this project's runs call `load_checkpoint`, and raise
`not_a_checkpoint` for a dict of other tensors.
"""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import torch

from pipeline.errors import ConfigError, RawDataError
from pipeline.files.formats.other_formats import other_format

DO: Final = "Check that the download is complete and is the checkpoint that was named."
SAVE_AGAIN: Final = (
    "Its settings are not read: have the program that wrote it save its state_dict alone."
)
# Libraries for settings. People save objects of these together with the tensors.
SETTINGS: Final = (
    "addict",
    "argparse",
    "easydict",
    "lightning",
    "mmengine",
    "omegaconf",
    "pytorch_lightning",
    "yacs",
)
# NumPy's name of a number type -> that of the module `struct`
_NUMBER_FORMATS: Final = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i"}


def load_checkpoint(file: Path, *, settings: bool = False, mapped: bool = False) -> dict[str, Any]:
    """Read the dict in a checkpoint; its tensors are on the CPU. No class or function that the file
    names is imported or called.

    Args:
        settings: accept objects of other classes; each becomes an empty dict.
        mapped: read a tensor from the disk when it is used; the file must stay until then.

    Raises RawDataError for a file with other content, ConfigError if safetensors is not installed.
    """
    try:
        if file.suffix == ".safetensors":
            return _load_safetensors(file)
        is_zip = zipfile.is_zipfile(file)
        # pairs of what stands for a class, and the class's name in the file
        allowed: list[Any] = []
        # PyTorch Lightning saves settings as objects, which become dicts here.
        if settings and is_zip:
            names = {*torch.serialization.get_unsafe_globals_in_checkpoint(file)}
            names.difference_update(name for _, name in _NUMPY_NUMBERS)
            allowed = [(_StoredSettings, name) for name in names]
        with torch.serialization.safe_globals([*allowed, *_NUMPY_NUMBERS]):
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped and is_zip)
    except ConfigError:
        raise
    except Exception as error:  # a hostile file can cause any error; all mean the same
        reason = _reason(file, error)
        do = DO
        library = re.search(r"GLOBAL (\w+)", reason)
        if library is not None and library[1] in SETTINGS:
            reason = f"{library[1]} objects"
            do = SAVE_AGAIN
        raise not_a_checkpoint(file, "file", "tensors and numbers only", reason, do) from error
    if not isinstance(state, dict):
        raise not_a_checkpoint(file, "file", "a dict of tensors", type(state).__name__)
    return state


def not_a_checkpoint(file: Path, key: str, expected: str, found: str, do: str = DO) -> RawDataError:
    """The error for a file that is not the expected checkpoint."""
    return RawDataError(file, key, expected, found, do, reason="bad_checkpoint")


def _load_safetensors(file: Path) -> dict[str, Any]:
    """Read a safetensors file. Raises ConfigError if the library is not installed."""
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ConfigError(
            f"{file}: this format needs the library safetensors: pip install safetensors"
        ) from error
    tensors: dict[str, Any] = load_file(file)
    return tensors


def _reason(file: Path, error: Exception) -> str:
    """Why torch refused a file, in one line, without its advice to load it unsafely.

    torch raises "Weights only load failed ..." in place of the error that says why, such as
    "Unsupported global: GLOBAL argparse.Namespace was not an allowed global by default. Please use
    ...", which is its `__context__`.
    """
    if isinstance(error, EOFError):
        return "a file that is cut short or damaged"
    cause: BaseException = error
    if isinstance(error, pickle.UnpicklingError):
        cause = error.__context__ or error
    line = str(cause).strip().partition("\n")[0].partition(" Please use ")[0]
    if line.isdecimal() or line.startswith("Unsupported operand"):  # bytes that are no pickle's
        with file.open("rb") as stream:
            start = stream.read(12)
        return other_format(start) or "a file of another kind"
    return line[:200].rstrip(".") or type(error).__name__


class _StoredSettings:
    """Stands for the class of any object that is not a tensor: its objects become dicts."""

    def __new__(cls, *_parts: object) -> Any:
        # torch's restricted loader sets both items and attributes only for this class.
        return OrderedDict()


class _NumberType:
    """Stands for `numpy.dtype`. It accepts only plain little-endian numbers."""

    def __init__(self, name: str, *_flags: bool) -> None:
        if name not in _NUMBER_FORMATS:
            raise ValueError(
                f"a NumPy number of type {name!r}: expected one of {', '.join(_NUMBER_FORMATS)}"
            )
        self.format = f"<{_NUMBER_FORMATS[name]}"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # (version, byte order, subtype, names, fields, size, alignment, flags): only plain numbers
        # have no fields.
        if tuple(state[1:5]) != ("<", None, None, None):
            raise ValueError("a NumPy number that is not a plain little-endian one")


def _number(number_type: _NumberType, data: bytes) -> float | int:
    """Stands for NumPy's function `scalar`, which makes a number from its bytes."""
    if type(number_type) is not _NumberType or type(data) is not bytes:
        raise ValueError("a NumPy number made of something else")
    value: float | int = struct.unpack(number_type.format, data)[0]
    return value


_NUMPY_NUMBERS: Final[tuple[tuple[Any, str], ...]] = (
    (_NumberType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_number, "numpy._core.multiarray.scalar"),  # NumPy 2
)
