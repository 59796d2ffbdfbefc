"""Read checkpoints, and fill networks from them.

A checkpoint is a dict, saved by torch. These files have a model, each under another key:

    gen_state_dict   "vibe": VIBE's published files, and best.pt of a run here, which also has the
                     run's settings ("config"), its model ("of_model") and its streams' identities
    model            "spin": SPIN's file, a ResNet-50 and VIBE's regressor
    state_dict       "hmr2.0": HMR2.0's file, a vision transformer and its heads

`load_published` fills a module from one of them; `vibe_model.trained` builds the generator first.
Reading runs no code from a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

import torch
from torch import Tensor, nn

from pipeline.errors import CheckpointError, RawDataError
from pipeline.files.formats.checkpoints import load_checkpoint

Kind = Literal["vibe", "spin", "hmr2.0"]  # how a file is read
HMR2: Final = "hmr2.0"
# suffix of PyTorch Lightning's files (HMR2.0); their settings are not read
LIGHTNING: Final = ".ckpt"


@dataclass(frozen=True, slots=True)
class _FileFormat:
    """How a kind of file names its tensors."""

    kind: Kind
    key: str  # of the dict of tensors
    # prefixes of tensors that no model here uses
    unused: tuple[str, ...] = ()
    # Prefix to add to the file's names: SPIN's "decpose.weight" is our "regressor.decpose.weight".
    added_prefix: str = ""


_FORMATS: Final = (
    _FileFormat("vibe", "gen_state_dict"),
    _FileFormat(
        "spin",
        "model",
        unused=("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4."),  # its ResNet-50
        added_prefix="regressor.",
    ),
    _FileFormat(
        HMR2,
        "state_dict",
        # of its feature network and its discriminator
        unused=("backbone.", "smpl_head.transformer.", "discriminator.", "initialized"),
    ),
)
# prefixes of SMPL's data, which the body model has
_BODY_PREFIXES: Final = ("regressor.smpl.", "smpl.")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Which tensors of a checkpoint a model was filled with."""

    kind: Kind
    used: tuple[str, ...]  # names in the model of tensors that were filled
    # names in the file of tensors that were not used: body data, a backbone, parts not requested
    ignored: tuple[str, ...]
    # names in the model of tensors that the file lacks, such as the encoder's for SPIN's file
    untouched: tuple[str, ...]


def load_published(model: nn.Module, path: Path | str, *, only: str = "") -> LoadReport:
    """Fill `model` from a checkpoint of ours, VIBE's or HMR2.0's, or its regressor from SPIN's.

    only: prefix of the part of the model to read, such as "regressor."; the rest is ignored.

    Raises CheckpointError, and leaves the model unchanged, for a missing, damaged or unsafe file,
    and for tensors that are missing, extra (body data aside), misshapen or non-finite.
    """
    return Checkpoint.read(Path(path)).fill(model, only=only)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A file of torch, read on the CPU."""

    path: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file without running code from it. Raises CheckpointError."""
        if not path.is_file():
            actual = "a folder" if path.is_dir() else "no such file"
            raise CheckpointError(f"{path}: expected a checkpoint, found {actual}")
        is_lightning = path.suffix == LIGHTNING
        try:
            content = load_checkpoint(path, settings=is_lightning, mapped=is_lightning)
        except RawDataError as error:
            raise CheckpointError(f"{error} Do not load it by other means.") from error
        return cls(path, content)

    @property
    def stand_in(self) -> bool:
        """Whether it records training on demo data."""
        return bool(self.content.get("stand_in", False))

    @property
    def model_name(self) -> str:
        """Name of the model that it was trained as."""
        return str(self.content.get("of_model", "vibe"))

    @property
    def keys(self) -> str:
        """Its keys, for a message."""
        return _first_names(map(str, self.content))

    @property
    def kind(self) -> Kind:
        """How it is read; "vibe" also for checkpoints of this project. Raises CheckpointError."""
        return self._format().kind

    def fill(self, model: nn.Module, *, only: str = "") -> LoadReport:
        """Fill a model from the tensors, as `load_published` does."""
        file_format = self._format()
        requested = only or file_format.added_prefix  # the part to fill; "" for all of the model
        unused = _BODY_PREFIXES + file_format.unused

        chosen = {}
        ignored = []
        for name, tensor in self.content[file_format.key].items():
            model_name = f"{file_format.added_prefix}{name}"
            if str(name).startswith(unused) or not model_name.startswith(requested):
                ignored.append(str(name))
            else:
                chosen[model_name] = tensor

        state = model.state_dict()
        expected = {name: tensor for name, tensor in state.items() if name.startswith(requested)}
        self.check_tensors(expected, chosen)
        with torch.no_grad():
            for name, tensor in chosen.items():
                state[name].copy_(tensor)  # state_dict() shares memory with the model
        untouched = tuple(name for name in state if name not in chosen)
        return LoadReport(file_format.kind, tuple(chosen), tuple(ignored), untouched)

    def _format(self) -> _FileFormat:
        """The file's format. Raises CheckpointError unless it has one dict of tensors."""
        present = [file_format for file_format in _FORMATS if file_format.key in self.content]
        if len(present) != 1 or not isinstance(self.content[present[0].key], Mapping):
            keys = ", ".join(repr(file_format.key) for file_format in _FORMATS)
            raise CheckpointError(
                f"{self.path}: expected one dict of tensors, {keys}; found keys: {self.keys}. "
                "Name the best.pt of a run, or a published file of VIBE, SPIN or HMR2.0."
            )
        return present[0]

    def check_tensors(self, expected: Mapping[str, Tensor], tensors: Mapping[Any, Any]) -> None:
        """Raise CheckpointError unless the file's `tensors` have the expected names and shapes, and
        are finite.
        """
        missing = expected.keys() - tensors.keys()
        extra = tensors.keys() - expected.keys()
        if missing or extra:
            raise CheckpointError(
                f"{self.path}: expected exactly the model's tensors; missing: "
                f"{_first_names(missing)}; extra: {_first_names(map(str, extra))}. Build the model "
                "with the settings that the checkpoint was trained with."
            )
        for name, like in expected.items():
            tensor = tensors[name]
            if (
                not isinstance(tensor, Tensor)
                or tensor.layout is not torch.strided
                or tensor.device.type != "cpu"
            ):
                raise CheckpointError(
                    f"{self.path}: {name!r}: expected a plain tensor, found {type(tensor).__name__}"
                )
            if tensor.shape != like.shape or tensor.is_floating_point() != like.is_floating_point():
                kind = str(like.dtype)
                if like.is_floating_point():
                    kind = "floats"
                raise CheckpointError(
                    f"{self.path}: {name!r}: expected {tuple(like.shape)} {kind}, found "
                    f"{tuple(tensor.shape)} {tensor.dtype}"
                )
            if not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(
                    f"{self.path}: {name!r}: expected finite numbers, found nan or infinity"
                )


def _first_names(names: Iterable[str]) -> str:
    """The first five names and the number of the others, for a message."""
    shown = sorted(names)
    text = ", ".join(shown[:5]) or "none"
    if len(shown) > 5:
        text += f" and {len(shown) - 5} more"
    return text
