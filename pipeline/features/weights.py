"""Name and identify weights without loading them or importing torch.  crops -> [features]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pipeline.errors import ConfigError, MissingAssets
from pipeline.files.licences import NOT_KNOWN


@dataclass(frozen=True, slots=True)
class _WeightsKind:
    """A kind of weights, written `<kind>:<argument>`. The libraries state terms of their own
    weights; docs/licences.md has more about the others.
    """

    form: str  # its meaning and its form, for --help
    names_file: bool = False  # the argument is a path
    is_random: bool = False  # the argument is a seed
    needs_argument: bool = True
    licence: str = NOT_KNOWN
    source: str = "a library"


KINDS: Final = {
    "spin": _WeightsKind(
        "SPIN's checkpoint, spin:FILE",
        names_file=True,
        licence="non-commercial research, as SMPL and its training data",
        source="github.com/nkolot/SPIN",
    ),
    "torchvision": _WeightsKind(
        "weights that torchvision downloads, torchvision:IMAGENET1K_V2", source="torchvision"
    ),
    "file": _WeightsKind(
        "a state dict of torchvision's ResNet-50, file:FILE", names_file=True, source="a file"
    ),
    "untrained": _WeightsKind(
        "random weights from a seed, untrained:0",
        is_random=True,
        licence="none needed, random numbers",
        source="a seed",
    ),
}
FORMS: Final = "spin:FILE, torchvision:NAME or file:FILE"  # how to name weights for real data


@dataclass(frozen=True, slots=True)
class WeightsSpec:
    """Weights of a ResNet-50, written `<kind>:<argument>` as in `--weights`."""

    kind: str
    argument: str

    kinds: ClassVar[Mapping[str, _WeightsKind]] = KINDS
    forms: ClassVar[str] = FORMS

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `<kind>:<argument>`. Raises ConfigError for an unknown kind.

        >>> WeightsSpec.parse("untrained:0")
        WeightsSpec(kind='untrained', argument='0')
        """
        kind, _, argument = ("untrained:0" if text == "untrained" else text).partition(":")
        entry = cls.kinds.get(kind)
        if entry is None or (entry.needs_argument and not argument):
            forms = "; ".join(entry.form for entry in cls.kinds.values())
            raise ConfigError(f"weights {text!r}: expected {forms}")
        if entry.is_random and not argument.isdecimal():
            raise ConfigError(
                f"weights {text!r}: expected a whole number as seed, such as untrained:0"
            )
        return cls(kind, argument)

    def __str__(self) -> str:
        return f"{self.kind}:{self.argument}" if self.argument else self.kind

    def below(self, folder: Path) -> Self:
        """The same weights, with a relative path of a checkpoint taken as relative to `folder`."""
        if not self.names_file:
            return self
        return replace(self, argument=str(folder / Path(self.argument).expanduser()))

    @property
    def stand_in(self) -> bool:
        """Whether these are random weights, which are for demo data only."""
        return self.kinds[self.kind].is_random

    @property
    def names_file(self) -> bool:
        """Whether the argument is the path of a checkpoint."""
        return self.kinds[self.kind].names_file

    def file(self) -> Path:
        """The checkpoint's path, for the kinds `spin` and `file`. Raises MissingAssets if it does
        not exist.
        """
        path = Path(self.argument)
        if not path.is_file():
            where = ""
            if self.kind == "spin":
                where = " SPIN's checkpoint: github.com/nkolot/SPIN (fetch_data.sh)."
            problem = (
                "this is a folder, where a file is needed" if path.is_dir() else "file not found"
            )
            raise MissingAssets(f"weights {self}: {problem}.{where}")
        return path

    def identity(self) -> dict[str, Any]:
        """What identifies the weights, as JSON: the kind, and the file's SHA-256, a name or a seed;
        never a path. Raises MissingAssets for a missing file.
        """
        from pipeline.files.raw.files import remembered_digest

        if self.names_file:
            return {"kind": self.kind, "file_sha256": remembered_digest(self.file())}
        return {"kind": self.kind, "argument": self.argument}

    def terms(self) -> dict[str, str]:
        """Licence and source, for provenance only. Code must not compare them, as these texts may
        change.
        """
        kind = self.kinds[self.kind]
        return {"licence": kind.licence, "source": kind.source}


class NetworkWeights(WeightsSpec):
    """Weights of a network of a library (torchvision or timm).

    >>> NetworkWeights.parse("pretrained")
    NetworkWeights(kind='pretrained', argument='')
    """

    __slots__ = ()
    kinds: ClassVar[Mapping[str, _WeightsKind]] = {
        "pretrained": _WeightsKind(
            "weights that the library downloads, pretrained or pretrained:IMAGENET1K_V1",
            needs_argument=False,
        ),
        "file": replace(KINDS["file"], form="a state dict of that network, file:FILE"),
        "untrained": KINDS["untrained"],
    }
    forms: ClassVar[str] = "pretrained, pretrained:NAME or file:FILE"
