"""Read checkpoints safely, ours and published ones, and write them atomically.  features -> windows -> [training]"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from pipeline.errors import RawDataError
from pipeline.files.formats.checkpoints import load_checkpoint
from vibe_model import runs
from vibe_model.errors import CheckpointError

HMR2: Final = "hmr2.0"
_KINDS: Final = {"gen_state_dict": "vibe", "model": "spin", "state_dict": HMR2}  # key of the tensors -> kind of file
_BODY: Final = ("regressor.smpl.", "smpl.")  # SMPL's data, which our body model has
# Prefixes that no model here uses: SPIN's ResNet-50; HMR2.0's feature network and discriminator.
_OTHER: Final[Mapping[str, tuple[str, ...]]] = {
    "vibe": (),
    "spin": ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4."),
    HMR2: ("backbone.", "smpl_head.transformer.", "discriminator.", "initialized"),
}
LIGHTNING: Final = ".ckpt"  # suffix of PyTorch Lightning's files (HMR2.0); their settings are not read


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Which tensors of a checkpoint were used."""

    kind: str  # "vibe", "spin" or "hmr2.0"
    used: tuple[str, ...]  # names in the model
    ignored: tuple[str, ...]  # names in the file: body data, a backbone, other parts than the requested one
    untouched: tuple[str, ...]  # names in the model that are not in the file, such as the encoder with SPIN's


def load_published(model: nn.Module, path: Path | str, *, only: str = "") -> LoadReport:
    """Fill `model` from a checkpoint of ours, VIBE's or HMR2.0's, or its regressor from SPIN's.

    only: prefix of the part to read, such as "regressor."; the rest is ignored.

    Raises CheckpointError, and leaves the model unchanged, for a missing, damaged or unsafe file, and for tensors that
    are missing, extra (body data aside), misshapen or non-finite.
    """
    path = Path(path)
    content = read_checkpoint(path)
    kind = kind_of(path, content)
    tensors = next(content[key] for key in _KINDS if key in content)
    prefix, skip = "regressor." if kind == "spin" else "", _BODY + _OTHER[kind]
    part = prefix or only
    ignored = tuple(
        str(name) for name in tensors if str(name).startswith(skip) or not f"{prefix}{name}".startswith(part)
    )
    chosen = {f"{prefix}{name}": tensor for name, tensor in tensors.items() if str(name) not in ignored}
    state = model.state_dict()
    check_tensors(path, {name: tensor for name, tensor in state.items() if name.startswith(part)}, chosen)
    with torch.no_grad():
        for name, tensor in chosen.items():
            state[name].copy_(tensor)  # state_dict() shares memory with the model
    return LoadReport(kind, tuple(chosen), ignored, tuple(name for name in state if name not in chosen))


def kind_of(path: Path, content: Mapping[str, Any]) -> str:
    """Kind of a checkpoint: "vibe" (also ours), "spin" or "hmr2.0". Raises CheckpointError for others."""
    present = [key for key in _KINDS if key in content]
    if len(present) != 1 or not isinstance(content[present[0]], Mapping):
        expected = f"expected one dict of tensors, {', '.join(map(repr, _KINDS))}"
        do = "Name the best.pt of a run, or a published file of VIBE, SPIN or HMR2.0."
        raise CheckpointError(f"{path}: {expected}; found keys: {some(map(str, content))}. {do}")
    return _KINDS[present[0]]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the file's dict on the CPU, without running code from it. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint, found no such file")
    try:
        return load_checkpoint(path, settings=path.suffix == LIGHTNING, mapped=path.suffix == LIGHTNING)
    except RawDataError as error:
        raise CheckpointError(f"{error} Do not load it by other means.") from error


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically."""
    runs.replace_file(path, lambda stream: torch.save(dict(state), stream))


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
    rest_text = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return (", ".join(shown[:5]) or "none") + rest_text
