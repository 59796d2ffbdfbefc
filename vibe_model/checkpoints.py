"""Checkpoints, ours and published ones, read safely and written atomically.  features -> windows -> [training]

VIBE's and ours (`gen_state_dict`) and SPIN's (`model`), in either of torch's file formats. A file can hold a program:
torch's restricted unpickler runs none, and exactly one type is allowed beyond those that it knows, a NumPy number,
which is rebuilt here without NumPy's own unpickling.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from vibe_model import runs
from vibe_model.errors import CheckpointError

_KINDS: Final = {"gen_state_dict": "vibe", "model": "spin"}  # key of the tensors -> whose file it is
_BODY: Final = ("regressor.smpl.", "smpl.")  # SMPL's data: our body model owns it
_BACKBONE: Final = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")  # SPIN's ResNet-50
_NUMBER_FORMATS: Final = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i"}  # NumPy's names -> struct's


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of a checkpoint's tensors."""

    kind: str  # "vibe" or "spin"
    used: tuple[str, ...]  # names in the model
    ignored: tuple[str, ...]  # names in the file: body data, SPIN's backbone, what is not of the requested part
    untouched: tuple[str, ...]  # names in the model that this kind of file does not have: with SPIN's, the encoder


def load_published(model: nn.Module, path: Path | str, *, only: str = "") -> LoadReport:
    """Fill `model` from a checkpoint of ours or VIBE's, or its regressor from SPIN's.

    only: with "regressor.", only that part of a checkpoint is read; the rest counts as ignored.

    Raises CheckpointError, and leaves the model as it was, on a file that is missing, damaged or unsafe, and on any
    tensor that is missing, extra (body data aside), misshapen or non-finite.
    """
    path = Path(path)
    content = read_checkpoint(path)
    present = [key for key in _KINDS if key in content]
    if len(present) != 1 or not isinstance(content[present[0]], Mapping):
        expected = "expected one dict of tensors, 'gen_state_dict' or 'model'"
        raise CheckpointError(f"{path}: {expected}; found keys: {some(map(str, content))}")
    kind, found = _KINDS[present[0]], content[present[0]]
    prefix, skip = ("regressor.", _BODY + _BACKBONE) if kind == "spin" else ("", _BODY)
    part = prefix or only
    ignored = tuple(str(name) for name in found if str(name).startswith(skip) or not f"{prefix}{name}".startswith(part))
    taken = {f"{prefix}{name}": tensor for name, tensor in found.items() if str(name) not in ignored}
    own = model.state_dict()
    check_tensors(path, {name: tensor for name, tensor in own.items() if name.startswith(part)}, taken)
    with torch.no_grad():
        for name, tensor in taken.items():
            own[name].copy_(tensor)  # state_dict() shares memory with the model
    return LoadReport(kind, tuple(taken), ignored, tuple(name for name in own if name not in taken))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The file's dict, on the CPU, without running code from it. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint, found no such file")
    try:
        with torch.serialization.safe_globals(list(_NUMPY_NUMBERS)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can raise anything: all of it means the same
        raise CheckpointError(
            f"{path}: expected a torch checkpoint of tensors and numbers, found something else: {_reason(error)}. "
            "Download it again from where it is published, and do not load it by other means."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dict, found {type(content).__name__}")
    return content


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a reader, or the next run, sees the old one or the new one."""
    runs.replace_file(path, lambda stream: torch.save(dict(state), stream))


def _reason(error: Exception) -> str:
    """Why torch refused a file, in a line: without its advice, around the reason, on how to load it unsafely."""
    if isinstance(error, OSError | EOFError):  # of its own making: the file was there, and could be opened
        return "a file that is cut short or damaged"
    cause = (error.__context__ or error) if isinstance(error, pickle.UnpicklingError) else error
    line = str(cause).strip().partition("\n")[0].partition(" Please use ")[0]
    if line.isdecimal() or line.startswith("Unsupported operand"):  # bytes that are no pickle's
        return "not a file that torch wrote"
    return line[:200].rstrip(".") or type(error).__name__


def check_tensors(path: Path, expected: Mapping[str, Tensor], found: Mapping[Any, Any]) -> None:
    """Raise CheckpointError unless `found` has exactly these tensors, finite and of these shapes."""
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing or extra:
        raise CheckpointError(
            f"{path}: expected exactly the model's tensors; missing: {some(missing)}; extra: "
            f"{some(map(str, extra))}. Build the model with the settings that the checkpoint was trained with."
        )
    for name, like in expected.items():
        tensor = found[name]
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise CheckpointError(f"{path}: {name!r}: expected a plain tensor, found {type(tensor).__name__}")
        if tensor.shape != like.shape or tensor.is_floating_point() != like.is_floating_point():
            kind = "floats" if like.is_floating_point() else str(like.dtype)
            raise CheckpointError(
                f"{path}: {name!r}: expected {tuple(like.shape)} {kind}, found {tuple(tensor.shape)} {tensor.dtype}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: {name!r}: expected finite numbers, found nan or infinity")


def some(names: Iterable[str]) -> str:
    """The first five of some names, for a message."""
    shown = sorted(names)
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return (", ".join(shown[:5]) or "none") + more


class _NumberType:
    """Takes the place of `numpy.dtype` while a checkpoint is read: a plain little-endian number's type, no other."""

    def __init__(self, name: str, *_flags: bool) -> None:
        if name not in _NUMBER_FORMATS:
            raise CheckpointError(f"a NumPy number of type {name!r}: expected one of {', '.join(_NUMBER_FORMATS)}")
        self.format = f"<{_NUMBER_FORMATS[name]}"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # (version, byte order, subtype, names, fields, size, alignment, flags): only plain numbers have no fields.
        if tuple(state[1:5]) != ("<", None, None, None):
            raise CheckpointError("a NumPy number that is not a plain little-endian one")


def _number(number_type: _NumberType, data: bytes) -> float | int:
    """Takes the place of NumPy's `scalar` while a checkpoint is read."""
    if type(number_type) is not _NumberType or type(data) is not bytes:
        raise CheckpointError("a NumPy number made of something else")
    value: float | int = struct.unpack(number_type.format, data)[0]
    return value


# pipeline/features/networks/backbones.py lets in the same names: the two must agree.
_NUMPY_NUMBERS: Final[tuple[Any, ...]] = (
    (_NumberType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_number, "numpy._core.multiarray.scalar"),  # NumPy 2
)
