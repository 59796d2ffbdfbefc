"""Base classes of feature streams.  crops -> [stream] -> features

A stream is a frozen dataclass whose fields are its options and part of its identity. It declares
its inputs (`reads`) and numbers (`dtype`), and either loads a computer for batches of rows or
computes rows in decoding processes. Bases: `NumberStream` (a crop, in batches on a device),
`PairStream` (a row's crop and the one before, in decoding processes), `LabelStream` (labels without
pixels). A stream of one crop without a network derives from `Stream`: it reads `Reads(crops=1)`,
and defines `computed`.
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
from cache.arrays import Array, Bools, Floats
from pipeline.errors import MissingAssets
from pipeline.features.weights import FILES, WeightsSpec
from pipeline.files.pixels.frames import Image

MOST_CROPS: Final = 8192  # in a batch, 1.2 GB of pixels
# label of every row besides columns: its track's fps / step, NaN if unknown
ROW_RATE: Final = "rows_per_second"
WHOLE: Final = CropPolicy()  # the track's box times its crop scale, 224 x 224

Labels = Mapping[str, Array]  # by column
Provenance = Mapping[str, Any]  # where rows and weights come from, for a manifest


class Reads(NamedTuple):
    """Inputs of a row."""

    crops: int = 0  # of successive rows up to its own: 1, 2 for a pair, 0: no pixels
    labels: tuple[str, ...] = ()  # columns of the cache
    history: int = 0  # number of rows before it whose labels are read, without pixels
    future: int = 0  # number of rows after it, likewise
    # `computed` gets whole frames instead of crops, and must not write into them
    is_whole: bool = False

    @property
    def window(self) -> int:
        """Number of rows whose labels are read for one row, with its own."""
        return self.history + 1 + self.future


@dataclass(frozen=True, slots=True)
class Machine:
    """Resources of a computation. They must not change the numbers beyond the precision."""

    device: str = "auto"  # auto (cuda if there is one, else cpu), cpu, cuda, cuda:1, ...
    batch_size: int = 0  # crops in a batch; 0: chosen by device
    threads: int = 0  # batches at a time on a CPU; 0: one per core
    compile: bool = False  # torch.compile on CUDA


class Computer(Protocol):
    """A stream's computation, loaded and on its device."""

    @property
    def batch_size(self) -> int:
        """Crops in every call: batches are padded, so that a row's numbers do not depend on other
        rows.
        """
        ...

    @property
    def lanes(self) -> int:
        """Number of threads that call it at the same time."""
        ...

    @property
    def provenance(self) -> Provenance:
        """For the stream's manifest: where the weights come from, `stand_in`, ..."""
        ...

    def adopt(self, memory: NDArray[np.uint8]) -> None:
        """Prepare the memory of all crops, once before the first batch: a GPU may pin it."""
        ...

    def release(self) -> None:
        """Release that memory, after the last batch."""
        ...

    def __call__(self, crops: NDArray[np.uint8]) -> Floats:
        """(batch_size, height, width, 3) RGB, part of the adopted memory -> (batch_size, dim).

        Height and width are the crop policy's region, or its size, by default 224 x 224. If the
        stream has `columns`, it is called with them as a second argument: name -> (batch_size,
        ...), as stored.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Stream(ABC):
    """A kind of stream with its options."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1  # increase it if the same crops give other numbers
    dtype: ClassVar[str] = "float32"  # or float16
    is_model_input: ClassVar[bool] = False  # models can predict bodies from it alone
    # its weights are trained here (`trained_by`): other weights replace its rows
    is_trained: ClassVar[bool] = False
    # later options: part of the identity if they are not the default
    added: ClassVar[tuple[str, ...]] = ()
    where: ClassVar[str] = ""  # for messages: where to get a file that is an option

    def __str__(self) -> str:
        """ResNet18(weights='untrained'), crop jitter:1"""
        names = [f.name for f in fields(self) if f.name != "crop"]
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__name__}({arguments}){self._crop_shown}"

    @property
    def _crop_shown(self) -> str:
        crop = str(getattr(self, "crop", ""))
        return f", crop {crop}" if crop else ""

    @property
    @abstractmethod
    def reads(self) -> Reads:
        """Inputs of a row."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns that a split must have for this stream."""
        columns = list(self.reads.labels)
        if self.reads.crops:
            columns = ["frame_index", "bbox", *columns]
        return tuple(name for name in dict.fromkeys(columns) if name != ROW_RATE)

    @property
    def policy(self) -> CropPolicy:
        """Its crop policy, else the default."""
        policy: CropPolicy = getattr(self, "crop", WHOLE)
        return policy

    if TYPE_CHECKING:
        dim: ClassVar[int]  # to a type checker; an option of that name says `# type: ignore[misc]`
    else:

        @property
        @abstractmethod
        def dim(self) -> int:
            """Numbers per row: a class variable, or an option if it depends on others."""

    @property
    def stand_in(self) -> bool:
        """Whether it is only for demo data, such as a network with random weights."""
        return False

    @property
    def weights_file(self) -> Path | None:
        """The file of its weights, if any, for `provenance.json`."""
        for option in fields(self):
            value = getattr(self, option.name)
            if isinstance(value, Path):
                return value
            if isinstance(value, WeightsSpec) and value.kind in FILES:
                return Path(value.argument)
        return None

    @property
    def trained_by(self) -> str:
        """The Luigi task (`CheckpointTask`) that trains its weights if its options name none; "":
        none.
        """
        return ""

    def with_weights(self, checkpoint: Path) -> Stream:
        """This stream with the weights of the task `trained_by`."""
        raise NotImplementedError(
            f"{type(self).__name__}: trained_by names a task, but there is no with_weights"
        )

    @property
    def provenance(self) -> Provenance:
        """Provenance of a stream without a computer, for its manifest."""
        return {"stand_in": self.stand_in}

    def load(
        self,
        machine: Machine,  # noqa: ARG002
        recorded: Provenance | None,  # noqa: ARG002
    ) -> Computer | LabelComputer | None:
        """Load the computer of batches. None: decoding processes call `computed`.

        recorded: provenance of existing rows, if any. Import torch here, not before. Raises
        ConfigError for a missing device.
        """
        return None

    def computed(self, crops: Sequence[Image], labels: Labels) -> Floats | None:
        """Compute a row from its crops, its own last, and labels; None: its value is unknown."""
        raise NotImplementedError(f"{type(self).__name__}: neither load nor computed is defined")

    def identity(self) -> dict[str, Any]:
        """JSON of everything that its rows depend on besides their pixels, frame, box and crop
        scale.

        Files are identified by their content, under "weights" unless that is another option. Raises
        MissingAssets for a missing file.
        """
        names = {f.name for f in fields(self)}
        identity: dict[str, Any] = {"kind": self.kind, "version": self.version}
        for option in fields(self):
            name = option.name
            value = getattr(self, name)
            if name in self.added and value == option.default:
                continue
            if isinstance(value, Path):
                if not value.is_file():
                    raise MissingAssets(f"{name}: file {value} not found. {self.where}")
                name = name if "weights" in names | identity.keys() else "weights"
                value = WeightsSpec("file", str(value))
            if isinstance(value, CropPolicy):
                value = value.as_dict()
                if not value:  # by default, as in older streams
                    continue
            elif isinstance(value, WeightsSpec):
                value = value.identity()
            identity[name] = value
        return identity

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> Self | None:
        """The stream with this identity; None if an option is missing in it, such as a checkpoint's
        path.
        """
        options = {key: value for key, value in identity.items() if key not in ("kind", "version")}
        if "crop" in options:
            options["crop"] = CropPolicy.from_dict(options["crop"])
        kinds: dict[str, Any] = {f.name: type(f.default) for f in fields(cls)}
        files = [name for name, kind in kinds.items() if issubclass(kind, Path)]
        has_spec = issubclass(kinds.get("weights", object), WeightsSpec)
        if files or has_spec:
            if len(files) > 1 or (files and "weights" in kinds.keys() - files):
                return None  # only digests of files are known
            weights = options.pop("weights")
            if "argument" not in weights:
                return None  # only the digest of the file is known
            if has_spec:
                options["weights"] = kinds["weights"](**weights)
            else:
                options[files[0]] = Path(weights["argument"])
        return cls(**options) if options.keys() <= kinds.keys() else None


@dataclass(frozen=True, kw_only=True)
class NumberStream(Stream):
    """`dim` numbers a crop."""

    # part of the image that is seen, in the words below: size:256 region:256x192
    crop: CropPolicy = WHOLE

    dtype: ClassVar[str] = "float16"
    is_model_input: ClassVar[bool] = True

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the network gets with the crops, such as `bbox`, `image_size` and
        `intrinsics`.

        A row is computed again when their values change. They describe the whole image, so that
        crops with jitter are refused.
        """
        return ()

    @property
    def reads(self) -> Reads:
        return Reads(1, self.columns)

    @abstractmethod
    def load(self, machine: Machine, recorded: Provenance | None) -> Computer: ...


@dataclass(frozen=True, kw_only=True)
class PairStream(Stream):
    """`dim` numbers of a row's crop and the crop one step before. `pair` runs in decoding
    processes.

    Both crops have the later row's box, so that a moving box is not motion. The first row of a run
    of consecutive frames is not computed: its numbers are 0, with a flag.
    """

    # part of the image that is seen, in the words below: size:256 region:256x192
    crop: CropPolicy = WHOLE

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the later row's labels that `pair` needs."""
        return ()

    @property
    def reads(self) -> Reads:
        return Reads(2, self.columns)

    def computed(self, crops: Sequence[Image], labels: Labels) -> Floats | None:
        return self.pair(*crops, **labels)

    @abstractmethod
    def pair(self, previous: Image, current: Image, *args: Any, **labels: Any) -> Floats | None:
        """Two (size, size, 3) uint8 RGB crops, the earlier first -> (dim,); None: unknown.

        `columns` are keyword arguments: `pair(self, previous, current, kp_2d)`. They are as stored,
        but `kp_2d` is in [-1, 1] across the crops and mirrored with them, as in `Split.read`.

        One process calls it for one pair after the other. The numbers must not depend on earlier
        pairs.
        """


class LabelComputer(Protocol):
    """A label stream's computation, loaded and on its device."""

    @property
    def provenance(self) -> Provenance:
        """For the stream's manifest: where the weights come from, `stand_in`, ..."""
        ...

    def __call__(self, labels: Labels) -> tuple[Floats, Bools]:
        """The stream's `columns`, each (n, ...) as stored -> (n, dim), and (n,) whether a row's
        numbers are known.

        With `history` or `future`, each is (n, history + 1 + future, ...) in order of time, and
        `labels["in_run"]` (n, history + 1 + future) bool is true for existing rows: consecutive
        frames of the row's track. Other rows have NaN, the least integer (unsigned: the greatest),
        or False.

        Unknown rows are stored with their numbers and a flag. A row's numbers must not depend on
        other rows: else the extraction fails.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LabelStream(Stream):
    """`dim` numbers from labels, without pixels. Splits without these columns have no rows.

    Labels are those of the row, and of `history` rows before and `future` rows after it in its run
    of consecutive frames. Override `reads` if an option decides their number. `ROW_RATE` (n,) is
    available besides columns.
    """

    columns: ClassVar[tuple[str, ...]]  # as in the cache: ("kp_2d",)
    history: ClassVar[int] = 0
    future: ClassVar[int] = 0

    @property
    def reads(self) -> Reads:
        return Reads(labels=self.columns, history=self.history, future=self.future)

    def load(self, machine: Machine, recorded: Provenance | None) -> LabelComputer:  # noqa: ARG002
        """Load what computes the rows: the stream itself, unless it needs weights or a device."""
        return self

    def __call__(self, labels: Labels) -> tuple[Floats, Bools]:
        """Compute rows, as `LabelComputer` does."""
        raise NotImplementedError(f"{type(self).__name__}: neither load nor __call__ is defined")
