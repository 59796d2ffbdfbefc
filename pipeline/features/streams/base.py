"""Base classes of feature streams.  crops -> [stream] -> features

A stream computes `dim` numbers for each row of a split. Its class is a frozen dataclass whose
fields are its options, and part of its identity. It declares the inputs of a row (`reads`), and the
type of its numbers (`dtype`). It either loads a computer, which computes batches of rows (`load`),
or decoding processes compute row by row (`computed`). Derive your stream from one of:

    NumberStream   a row's crop -> numbers, in batches on a device: networks
    PairStream     a row's crop and the previous one -> numbers, in decoding processes
    LabelStream    labels -> numbers, without pixels
    Stream         all else: a stream of one crop without a network has `reads` return
                   `Reads(crops=1)`, and defines `computed`
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cache import CropPolicy, StreamForm
from cache.arrays import Array, Bools, Floats
from pipeline.errors import MissingAssets
from pipeline.features.weights import WeightsSpec
from pipeline.files.pixels.frames import Image
from pipeline.plug_ins import drop_neutral, raised_versions
from pipeline.processes import Machine as Machine

# A label that every row has besides the columns: its track's fps / step; NaN if fps is unknown.
ROW_RATE: Final = "rows_per_second"
WHOLE: Final = CropPolicy()  # the track's box times its crop scale, 224 x 224

Labels = Mapping[str, Array]  # by column
# exact: fp32; fast: bf16 if the device has it
Precision = Literal["exact", "fast"]
Provenance = Mapping[str, Any]  # where rows and weights come from, for a manifest


class Standardisation(NamedTuple):
    """Mean and standard deviation of each feature, by which features are standardised."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Reads(NamedTuple):
    """The inputs of a row."""

    # number of crops: 1, the row's; 2, a pair of the previous row's and the row's; 0: no pixels
    crops: int = 0
    labels: tuple[str, ...] = ()  # columns of the cache whose values are read
    history: int = 0  # number of previous rows whose labels are read; only without pixels
    future: int = 0  # number of following rows whose labels are read; only without pixels
    # `computed` gets whole frames instead of crops, and must not write into them
    is_whole: bool = False

    @property
    def window(self) -> int:
        """Number of rows whose labels are read for one row, including the row itself."""
        return self.history + 1 + self.future


class Computer(Protocol):
    """What `Stream.load` returns for a stream of crops: it is called to compute batches."""

    @property
    def batch_size(self) -> int:
        """Number of crops in every call. Incomplete batches are padded, so that a row's numbers do
        not depend on how many other rows there are.
        """
        ...

    @property
    def lanes(self) -> int:
        """Number of threads that may call it at the same time."""
        ...

    @property
    def provenance(self) -> Provenance:
        """Facts for the stream's manifest: where the weights come from, `stand_in`, ..."""
        ...

    def adopt(self, memory: NDArray[np.uint8]) -> None:
        """Prepare the memory that will hold all crops; a GPU may pin it. Called once, before the
        first batch.
        """
        ...

    def release(self) -> None:
        """Undo `adopt`. Called after the last batch."""
        ...

    def __call__(self, crops: NDArray[np.uint8]) -> Floats:
        """Compute a batch: crops (batch_size, height, width, 3) RGB, which are part of the adopted
        memory -> (batch_size, dim).

        Height and width are those of the crop policy's region, or else its size, by default 224 x
        224. If the stream has `columns`, the call has a second argument, a dict of them: name ->
        (batch_size, ...), as stored.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Stream(ABC):
    """A stream with its options; subclasses are the kinds of streams."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1  # increase it if the same crops give other numbers
    # shared code that makes its numbers -> its version, likewise: part of the identity from 2 on
    uses: ClassVar[dict[str, int]] = {"streams": 1}
    dtype: ClassVar[str] = "float32"  # or float16
    # whether its weights are trained here (`trained_by`); then other weights replace its rows
    is_trained: ClassVar[bool] = False
    # options that were added later -> the value that changes nothing, which identities leave out
    added: ClassVar[Mapping[str, Any]] = {}
    where: ClassVar[str] = ""  # for messages: where to get the file that an option names

    @property
    @abstractmethod
    def reads(self) -> Reads:
        """The inputs of a row."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns that a split must have for this stream."""
        columns = list(self.reads.labels)
        if self.reads.crops:
            columns = ["frame_index", "bbox", *columns]
        return tuple(name for name in dict.fromkeys(columns) if name != ROW_RATE)

    @property
    def policy(self) -> CropPolicy:
        """The option `crop`; the default policy if the stream has no such option."""
        policy: CropPolicy = getattr(self, "crop", WHOLE)
        return policy

    if TYPE_CHECKING:
        dim: ClassVar[int]  # to a type checker; an option of that name says `# type: ignore[misc]`
    else:

        @property
        @abstractmethod
        def dim(self) -> int:
            """Number of numbers per row: a class variable, or an option if it depends on others."""

    @property
    def form(self) -> StreamForm:
        """The form of its rows. Raises CacheError for an invalid `dim` or `dtype`."""
        return StreamForm(self.dim, self.dtype)

    @property
    def stand_in(self) -> bool:
        """Whether it is only fit for demo data, such as a network with random weights."""
        return False

    @property
    def weights_file(self) -> Path | None:
        """The file of its weights, for `provenance.json`; None without one."""
        for option in fields(self):
            value = getattr(self, option.name)
            if isinstance(value, Path):
                return value
            if isinstance(value, WeightsSpec) and value.names_file:
                return Path(value.argument)
        return None

    @property
    def trained_by(self) -> str:
        """The name of the Luigi task (`CheckpointTask`) that trains its weights if its options name
        no weights; "" if there is no such task.
        """
        return ""

    def with_weights(self, checkpoint: Path) -> Stream:
        """This stream with the weights that the task `trained_by` has written to `checkpoint`."""
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
        """Load the computer of batches. None: decoding processes call `computed` for each row.

        Args:
            recorded: provenance of the rows that the stream already has, if any.

        Import torch in this method, not at the top of the module. Raises ConfigError for a missing
        device.
        """
        return None

    def computed(self, crops: Sequence[Image], labels: Labels) -> Floats | None:
        """Compute a row (dim,) from its crops and labels; None: its value is unknown. The row's own
        crop is the last.
        """
        raise NotImplementedError(f"{type(self).__name__}: neither load nor computed is defined")

    def identity(self) -> dict[str, Any]:
        """Everything that its rows depend on besides their pixels, frame, box, crop scale and
        labels, as JSON. The manifest records it.

        A file is identified by its content:

            {"kind": "hmr2", ..., "weights": {"kind": "file", "file_sha256": "5f1c..."}}

        The key of the first option that is a path is "weights", unless an option has that name.
        Raises MissingAssets for a missing file.
        """
        options = {option.name: getattr(self, option.name) for option in fields(self)}
        identity: dict[str, Any] = {"kind": self.kind, "version": self.version}
        identity |= raised_versions(self.uses)
        for name, value in drop_neutral(options, self.added).items():
            if isinstance(value, Path):
                if not value.is_file():
                    raise MissingAssets(f"{name}: file {value} not found. {self.where}")
                if "weights" not in options.keys() | identity.keys():
                    name = "weights"
                value = WeightsSpec("file", str(value))
            if isinstance(value, CropPolicy):
                value = value.as_dict()
                if not value:  # the default policy is left out
                    continue
            elif isinstance(value, WeightsSpec):
                value = value.identity()
            identity[name] = value
        return identity

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> Self | None:
        """Make the stream with this identity. An option that it lacks has the value in `added`, or
        its default. None if the identity has unknown options, if the path of its file is missing,
        and for several files.

        An identity from a manifest has a file's digest, but no path. If there is one file, and its
        key is "weights", the caller may put its path there:

            {"kind": "hmr2", ..., "weights": {"kind": "file", "argument": "hmr2a.ckpt"}}
        """
        code = ("kind", "version", "uses")
        options = {key: value for key, value in identity.items() if key not in code}
        if "crop" in options:
            options["crop"] = CropPolicy.from_dict(options["crop"])
        types: dict[str, Any] = {f.name: type(f.default) for f in fields(cls)}
        paths = [name for name, option_type in types.items() if issubclass(option_type, Path)]
        if len(paths) > 1:
            return None
        if paths and "weights" not in types and "weights" in options:
            options[paths[0]] = options.pop("weights")  # the key that `identity` gives a path
        if not options.keys() <= types.keys():
            return None
        for name, value in options.items():
            option_type = types[name]
            is_path = issubclass(option_type, Path)
            is_spec = issubclass(option_type, WeightsSpec)
            if (is_path or is_spec) and "argument" not in value:
                return None
            if is_path:
                options[name] = Path(value["argument"])
            elif is_spec:
                options[name] = option_type(**value)
        return cls(**{**cls.added, **options})


@dataclass(frozen=True, kw_only=True)
class NumberStream(Stream):
    """A stream that computes `dim` numbers from a row's crop, in batches."""

    # part of the image that is seen, in the words below: size:256 region:256x192
    crop: CropPolicy = WHOLE

    dtype: ClassVar[str] = "float16"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the network gets together with the crops, such as `bbox`, `image_size` and
        `intrinsics`.

        A row is computed again when their values change. They do not follow the random moves of a
        crop with jitter, so such crops are refused.
        """
        return ()

    @property
    def reads(self) -> Reads:
        return Reads(1, self.columns)

    @abstractmethod
    def load(self, machine: Machine, recorded: Provenance | None) -> Computer: ...


@dataclass(frozen=True, kw_only=True)
class PairStream(Stream):
    """A stream that computes `dim` numbers from a row's crop and the previous row's, by `pair` in
    decoding processes.

    Both frames are cropped with the row's own box, so that a moving box does not look like motion.
    The first row of a run of consecutive frames is not computed: its numbers are 0, with the flag
    `cache.UNDEFINED`.
    """

    # part of the image that is seen, in the words below: size:256 region:256x192
    crop: CropPolicy = WHOLE

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the row's own labels that `pair` gets."""
        return ()

    @property
    def reads(self) -> Reads:
        return Reads(2, self.columns)

    def computed(self, crops: Sequence[Image], labels: Labels) -> Floats | None:
        return self.pair(*crops, **labels)

    @abstractmethod
    def pair(self, previous: Image, current: Image, *args: Any, **labels: Any) -> Floats | None:
        """Compute a row from two crops (size, size, 3) uint8 RGB: -> (dim,); None: unknown.

        Declare each of `columns` as a further argument: `pair(self, previous, current, kp_2d)`.
        Labels are as stored, except that `kp_2d` is in [-1, 1] across the crops, and mirrored with
        them, as in `Split.read`.

        A process calls this for many pairs, one after the other. The numbers must not depend on
        earlier pairs.
        """


class LabelComputer(Protocol):
    """What `LabelStream.load` returns: it is called to compute batches of rows from labels."""

    @property
    def provenance(self) -> Provenance:
        """Facts for the stream's manifest: where the weights come from, `stand_in`, ..."""
        ...

    def __call__(self, labels: Labels) -> tuple[Floats, Bools]:
        """Compute n rows. `labels` has the stream's columns, each (n, ...) as stored. Returns
        numbers (n, dim), and whether each row is known (n,).

        With `history` or `future`, each label is (n, history + 1 + future, ...), sorted by time,
        and `labels["in_run"]` (n, history + 1 + future) bool tells which of these rows exist, as
        consecutive frames of the row's track. Labels of rows that do not exist are NaN, the least
        integer (unsigned: the greatest), or False.

        Rows that are not known are stored with their numbers and the flag `cache.UNDEFINED`. A
        row's numbers must not depend on other rows of the batch (`pipeline.testing` checks this).
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LabelStream(Stream):
    """A stream that computes `dim` numbers from labels, without pixels. Splits that lack one of its
    `columns` do not get the stream.

    It gets the labels of the row, of `history` rows before it and of `future` rows after it in its
    run of consecutive frames. Override `reads` if an option decides these numbers. `columns` may
    also have `ROW_RATE`.
    """

    columns: ClassVar[tuple[str, ...]]  # as in the cache: ("kp_2d",)
    history: ClassVar[int] = 0
    future: ClassVar[int] = 0

    @property
    def reads(self) -> Reads:
        return Reads(labels=self.columns, history=self.history, future=self.future)

    def load(self, machine: Machine, recorded: Provenance | None) -> LabelComputer:  # noqa: ARG002
        """Load what computes the rows. By default it is the stream itself; override this method if
        the stream needs weights or a device.
        """
        return self

    def __call__(self, labels: Labels) -> tuple[Floats, Bools]:
        """Compute rows: see `LabelComputer.__call__`."""
        raise NotImplementedError(f"{type(self).__name__}: neither load nor __call__ is defined")
