"""What a feature stream is, for those who add one.  crops -> [stream] -> features

A stream is a small frozen dataclass: its fields are its options, and all of them are part of its identity. It declares
what its rows are computed from (`reads`) and what they are (`dtype`), and either loads a computer for batches of rows,
or computes each row where images are decoded. Three bases set the declaration: numbers of a crop, in batches on a
device (`NumberStream`); numbers of a row's crop and the one before, where images are decoded (`PairStream`); numbers of
a row's labels, without pixels (`LabelStream`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cache import CropPolicy
from pipeline.errors import MissingAssets
from pipeline.features.weights import FILES, WeightsSpec
from pipeline.files.pixels.frames import Image

MOST_CROPS: Final = 8192  # in a batch, 1.2 GB of pixels
ROW_RATE: Final = "rows_per_second"  # a label of every row, beside columns: its track's fps / step, NaN where not known
WHOLE: Final = CropPolicy()  # the track's box times its crop scale, 224 x 224

Labels = Mapping[str, NDArray[Any]]  # by column


class Reads(NamedTuple):
    """What a row is computed from."""

    crops: int = 0  # of so many successive rows, its own the last: 1, or 2 of a pair; 0: no pixels are read
    labels: tuple[str, ...] = ()  # columns of the cache
    history: int = 0  # rows before it whose labels are read, without pixels
    future: int = 0  # rows after it, likewise

    @property
    def window(self) -> int:
        """How many rows' labels are read for one row, its own among them."""
        return self.history + 1 + self.future


@dataclass(frozen=True, slots=True)
class Machine:
    """What a stream is computed on. None of it may change the numbers beyond what its precision allows."""

    device: str = "auto"  # auto: cuda when there is one, else cpu; cuda:1
    batch_size: int = 0  # crops in a batch; 0: what the device does best
    threads: int = 0  # batches at a time on a CPU; 0: one a core
    compile: bool = False  # torch.compile on CUDA


class Computer(Protocol):
    """A stream's computation, loaded and on its device."""

    @property
    def batch_size(self) -> int:
        """Crops in every call: batches are filled up, so that a row's numbers do not depend on the other rows."""
        ...

    @property
    def lanes(self) -> int:
        """How many threads call it at the same time, each with a batch of its own."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """For the stream's manifest: where the weights come from, `stand_in`, ..."""
        ...

    def adopt(self, memory: NDArray[np.uint8]) -> None:
        """Called once, before the first batch, with the memory that all crops will be in: a GPU may pin it."""
        ...

    def release(self) -> None:
        """That memory goes away: it is called with none of it any more."""
        ...

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(batch_size, height, width, 3) RGB, part of the adopted memory -> (batch_size, dim).

        Height and width are the crop policy's region, or its size: 224 x 224 unless the stream says otherwise.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Stream(ABC):
    """A kind of stream with its options."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1  # raised by hand whenever the same crops would give something else
    dtype: ClassVar[str]  # float16 or float32
    is_trained: ClassVar[bool] = False  # its weights are trained here (`trained_by`): other weights replace its rows
    where: ClassVar[str] = ""  # for messages: where a file that is an option is to be had

    def __str__(self) -> str:
        """ResNet18(weights='untrained'), crop jitter:1"""
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "crop"}
        shown = f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"
        return shown + self._crop_shown

    @property
    def _crop_shown(self) -> str:
        """The crop policy where it is not the usual one."""
        crop = str(getattr(self, "crop", ""))
        return f", crop {crop}" if crop else ""

    @property
    @abstractmethod
    def reads(self) -> Reads:
        """What a row is computed from."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns that a split must have; others are without this stream."""
        columns = (name for name in self.reads.labels if name != ROW_RATE)
        return (*(("frame_index", "bbox") if self.reads.crops else ()), *columns)

    @property
    def policy(self) -> CropPolicy:
        """How its crops are cut; the usual way for a stream without crops."""
        policy: CropPolicy = getattr(self, "crop", WHOLE)
        return policy

    if TYPE_CHECKING:
        dim: ClassVar[int]  # to a type checker; an option of that name says `# type: ignore[misc]`
    else:

        @property
        @abstractmethod
        def dim(self) -> int:
            """Numbers a row: a class variable, or an option where it depends on others."""

    @property
    def stand_in(self) -> bool:
        """Whether it is only for demo data, as an untrained network."""
        return False

    @property
    def weights_file(self) -> Path | None:
        """The file of its weights, where they are in one: `provenance.json` names it."""
        for value in (getattr(self, f.name) for f in fields(self)):
            if isinstance(value, Path) or (isinstance(value, WeightsSpec) and value.kind in FILES):
                return value if isinstance(value, Path) else Path(value.argument)
        return None

    @property
    def trained_by(self) -> str:
        """The Luigi task, a `CheckpointTask`, that trains its weights if its options name none; "": no task does."""
        return ""

    def with_weights(self, checkpoint: Path) -> Stream:
        """This stream with the weights that the task `trained_by` has made."""
        raise NotImplementedError(f"{type(self).__name__}: trained_by names a task, but there is no with_weights")

    @property
    def provenance(self) -> Mapping[str, Any]:
        """For the manifest of a stream that loads no computer."""
        return {"stand_in": self.stand_in}

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Computer | LabelComputer | None:  # noqa: ARG002
        """Load what computes rows in batches. None: `computed` does, where pictures are decoded.

        `recorded` is the provenance of the rows that the stream has already, if any. Torch may be imported here, and
        not before. Raises ConfigError for a device that does not exist.
        """
        return None

    def computed(self, crops: Sequence[Image], labels: Labels) -> NDArray[np.float32] | None:
        """A row of the crops and labels that it reads, its own crop the last; None: nothing is known of it."""
        raise NotImplementedError(f"{type(self).__name__}: neither load nor computed is defined")

    def identity(self) -> dict[str, Any]:
        """JSON of everything that its rows depend on, beside their pixels, frame, box and crop scale.

        Of an option that is a file its content, as "weights" where no other option is. Raises MissingAssets where there
        is no such file.
        """
        names = {f.name for f in fields(self)}
        identity: dict[str, Any] = {"kind": self.kind, "version": self.version}
        for name, value in ((f.name, getattr(self, f.name)) for f in fields(self)):
            if isinstance(value, Path):
                if not value.is_file():
                    raise MissingAssets(f"{name}: there is no file {value}. {self.where}")
                name = name if "weights" in names | identity.keys() else "weights"
                value = WeightsSpec("file", str(value))
            if isinstance(value, CropPolicy):  # none where it is the usual one, as in older streams
                identity |= {name: parts} if (parts := value.as_dict()) else {}
            else:
                identity[name] = value.identity() if isinstance(value, WeightsSpec) else value
        return identity

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> Self | None:
        """The stream that has this identity; None where it does not contain all options, as a checkpoint's path."""
        options = {key: value for key, value in identity.items() if key not in ("kind", "version")}
        if "crop" in options:
            options["crop"] = CropPolicy.from_dict(options["crop"])
        kinds: dict[str, Any] = {f.name: type(f.default) for f in fields(cls)}
        file, *others = [*(name for name, kind in kinds.items() if issubclass(kind, Path)), ""]
        if file and (len(others) > 1 or "weights" in kinds):
            return None  # of files only the digests are known
        if file or issubclass(kinds.get("weights", object), WeightsSpec):
            weights = options.pop("weights")
            if "argument" not in weights:
                return None  # only the digest of a checkpoint's file is known
            options[file or "weights"] = Path(weights["argument"]) if file else kinds["weights"](**weights)
        return cls(**options) if options.keys() <= kinds.keys() else None


def region_of(crop: CropPolicy) -> tuple[int, int]:
    """(height, width) px of what a computer is given of a crop."""
    return crop.region or (crop.size, crop.size)


@dataclass(frozen=True, kw_only=True)
class NumberStream(Stream):
    """`dim` numbers a crop."""

    crop: CropPolicy = WHOLE  # part of the image that is seen, in the words below: size:256 region:256x192

    dtype: ClassVar[str] = "float16"

    @property
    def reads(self) -> Reads:
        return Reads(crops=1)

    @abstractmethod
    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Computer: ...


@dataclass(frozen=True, kw_only=True)
class PairStream(Stream):
    """`dim` numbers of a row's crop and of the crop one step before. `pair` runs where pictures are decoded.

    Both crops have the later row's box, so that a box which moves is not seen as motion. A row without a row one step
    before, in its run of consecutive frames, is not computed: its numbers are 0, and its flag says so.
    """

    crop: CropPolicy = WHOLE  # part of the image that is seen, in the words below: size:256 region:256x192

    dtype: ClassVar[str] = "float32"

    @property
    def columns(self) -> tuple[str, ...]:
        """Labels of the later row that `pair` needs, as in the cache: none, a class variable, or as options decide."""
        return ()

    @property
    def reads(self) -> Reads:
        return Reads(2, self.columns)

    def computed(self, crops: Sequence[Image], labels: Labels) -> NDArray[np.float32] | None:
        return self.pair(*crops, **labels)

    @abstractmethod
    def pair(self, previous: Image, current: Image, *args: Any, **labels: Any) -> NDArray[np.float32] | None:
        """Two (size, size, 3) uint8 RGB crops, the earlier first -> (dim,); None where nothing can be known of them.

        A stream with `columns` takes them by their names: `pair(self, previous, current, kp_2d)`. They are as stored,
        but that `kp_2d` is as `Split.read` gives it for such crops: in [-1, 1] across them, mirrored where they are.

        One process calls it for one pair after the other. The numbers must not depend on the pairs before.
        """


class LabelComputer(Protocol):
    """A label stream's computation, loaded and on its device."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """For the stream's manifest: where the weights come from, `stand_in`, ..."""
        ...

    def __call__(self, labels: Labels) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The stream's `columns`, each (n, ...) as stored -> (n, dim), and (n,) whether a row's numbers are known.

        With `history` or `future`, each is (n, history + 1 + future, ...), in the order of time, and `labels["in_run"]`
        (n, history + 1 + future) bool says which of these rows there are: frames one step after the other, in the
        row's track. Elsewhere are NaN, the least integer (the greatest of unsigned ones), or False.

        Rows of which nothing is known keep the numbers that are given for them, and their flag says so. A row's numbers
        must not depend on the other rows: the extraction fails otherwise.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LabelStream(Stream):
    """`dim` numbers of labels, the split's `columns`; no pixels are read. A split without one has no rows.

    Labels are those of the row itself, and of `history` rows before and `future` rows after it in its run of
    consecutive frames. Where an option decides how many, `reads` is overridden. A change of them raises `version`.
    Beside columns, `ROW_RATE` (n,) may be read.
    """

    dtype: ClassVar[str] = "float32"
    columns: ClassVar[tuple[str, ...]]  # as in the cache: ("kp_2d",)
    history: ClassVar[int] = 0
    future: ClassVar[int] = 0

    @property
    def reads(self) -> Reads:
        return Reads(labels=self.columns, history=self.history, future=self.future)

    @abstractmethod
    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> LabelComputer: ...
