"""Checkpoints of other people, read safely.  features -> windows -> [training] -> evaluation

VIBE's (`gen_state_dict`) and SPIN's (`model`), in either of torch's file formats. A file can hold a program: torch's
restricted unpickler runs none, and beyond what it knows exactly one thing is let in, a NumPy number, which is rebuilt
here without calling into NumPy's own unpickling.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from vibe_model.errors import CheckpointError

_BODY: Final = ("regressor.smpl.", "smpl.")  # SMPL's data: our body model owns it
_BACKBONE: Final = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")  # SPIN's ResNet-50
_NUMBER_FORMATS: Final = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i"}  # NumPy's names -> struct's


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of a checkpoint's tensors."""

    kind: str  # "vibe" or "spin"
    used: tuple[str, ...]  # names in the model
    # Names in the file: body data, SPIN's backbone, what is not of the part that was asked for.
    ignored: tuple[str, ...]
    untouched: tuple[str, ...]  # names in the model that this kind of file does not have: with SPIN's, the encoder


def load_published(model: nn.Module, path: Path | str, *, only: str = "") -> LoadReport:
    """Fill `model` (a VIBE) from VIBE's checkpoint, from ours, or its regressor from SPIN's.

    only: with "regressor.", that part of VIBE's checkpoint too, whatever the rest is like; the rest counts as ignored.

    Raises CheckpointError, and leaves the model as it was, on a file that is missing, damaged or unsafe, and on any
    tensor that is missing, extra (body data aside), misshapen or non-finite.
    """
    path = Path(path)
    kind, found = _state_dict(path, read_checkpoint(path))
    own = model.state_dict()
    part = only if kind == "vibe" else "regressor."
    expected = {name: tensor for name, tensor in own.items() if name.startswith(part)}
    wanted, ignored = _sort_out(kind, found)
    ignored += tuple(name for name in wanted if not name.startswith(part))
    wanted = {name: tensor for name, tensor in wanted.items() if name.startswith(part)}
    _check_names(path, expected, wanted)
    for name, tensor in wanted.items():
        _check_tensor(path, name, tensor, expected[name])
    with torch.no_grad():
        for name, tensor in wanted.items():
            own[name].copy_(tensor)  # state_dict() shares memory with the model
    untouched = tuple(name for name in own if name not in wanted)
    return LoadReport(kind, tuple(wanted), ignored, untouched)


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


def _reason(error: Exception) -> str:
    """Why torch refused a file, in a line: without its advice, around the reason, on how to load it unsafely."""
    if isinstance(error, OSError | EOFError):  # of its own making: the file was there, and could be opened
        return "a file that is cut short or damaged"
    told = (error.__context__ or error) if isinstance(error, pickle.UnpicklingError) else error
    line = str(told).strip().partition("\n")[0].partition(" Please use ")[0]
    if line.isdecimal() or line.startswith("Unsupported operand"):  # bytes that are no pickle's
        return "not a file that torch wrote"
    return line[:200].rstrip(".") or type(error).__name__


def _state_dict(path: Path, content: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """("vibe" or "spin", the tensors by name)."""
    kinds = {"gen_state_dict": "vibe", "model": "spin"}
    present = [key for key in kinds if key in content]
    if len(present) != 1 or not isinstance(content[present[0]], Mapping):
        keys = ", ".join(sorted(map(str, content))[:8]) or "none"
        raise CheckpointError(f"{path}: expected one dict of tensors, 'gen_state_dict' or 'model'; found keys: {keys}")
    return kinds[present[0]], content[present[0]]


def _sort_out(kind: str, found: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Tensors under the model's names, and the names of those that are not for it."""
    skip = _BODY if kind == "vibe" else _BODY + _BACKBONE
    ignored = tuple(str(name) for name in found if str(name).startswith(skip))
    prefix = "" if kind == "vibe" else "regressor."
    return {f"{prefix}{name}": value for name, value in found.items() if str(name) not in ignored}, ignored


def _check_names(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Any]) -> None:
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        raise CheckpointError(
            f"{path}: expected exactly the model's tensors; missing: {_some(missing)}; extra: {_some(extra)}. "
            "Build the model with the settings that the checkpoint was trained with."
        )


def _check_tensor(path: Path, name: str, tensor: Any, expected: Tensor) -> None:
    if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise CheckpointError(f"{path}: {name!r}: expected a plain tensor, found {type(tensor).__name__}")
    if tensor.shape != expected.shape or not tensor.is_floating_point():
        raise CheckpointError(
            f"{path}: {name!r}: expected {tuple(expected.shape)} floats, found {tuple(tensor.shape)} {tensor.dtype}"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{path}: {name!r}: expected finite numbers, found nan or infinity")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "none"
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


class _NumberType:
    """Stands in for `numpy.dtype` while a checkpoint is read: a plain little-endian number's type, and no other."""

    def __init__(self, name: str, *_flags: bool) -> None:
        if name not in _NUMBER_FORMATS:
            raise CheckpointError(f"a NumPy number of type {name!r}: expected one of {', '.join(_NUMBER_FORMATS)}")
        self.format = f"<{_NUMBER_FORMATS[name]}"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # (version, byte order, subtype, names, fields, size, alignment, flags): only plain numbers have no fields.
        if tuple(state[1:5]) != ("<", None, None, None):
            raise CheckpointError("a NumPy number that is not a plain little-endian one")


def _number(number_type: _NumberType, data: bytes) -> float | int:
    """Stands in for NumPy's `scalar` while a checkpoint is read."""
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
