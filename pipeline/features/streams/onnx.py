"""Streams of ONNX graphs, which may need more than the crop.  crops, columns -> [graph] -> features

`Onnx` has the options, `_GraphComputer` runs the graph. A graph gets the crops as its input
`image`, and may get further inputs (CONDITIONS). Its outputs are flattened and joined: they are the
parts of a row, which `read_part` reads by their names. A section of luigi.cfg with such a stream:

[instant_hmr]
kind = onnx
weights = instant_hmr.onnx
inputs = cliff_cond=cliff
outputs = joints_3d joints_2d cam_trans
crop_per_box = 1.2
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cache.arrays import Doubles, Floats
from pipeline.cli import pages
from pipeline.clips.detectors import graphs
from pipeline.clips.detectors.graphs import Session
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.streams.base import Labels, Machine, NumberStream, Provenance
from pipeline.files.licences import NOT_KNOWN
from pipeline.processes import cores

if TYPE_CHECKING:
    from cache import Split

CPU_BATCH: Final = 8
GPU_BATCH: Final = 64
MOST_SESSIONS: Final = 3  # number of loaded graphs that stay in memory
DO: Final = (
    "Name an ONNX graph and its inputs and outputs: weights, image, inputs, outputs "
    f"({pages.ONNX})."
)
DTYPES: Final[Mapping[str, DTypeLike]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class _Condition(NamedTuple):
    """A kind of input that a graph may have besides the crop."""

    shape: tuple[int, ...]  # shape for one row
    columns: tuple[str, ...]  # the columns that it is computed from


CONDITIONS: Final[Mapping[str, _Condition]] = {
    "bbox": _Condition((3,), ("bbox", "crop_scale")),  # centre x, centre y, side: px of the image
    # (2 cx / W - 1, 2 cy / H - 1, side / max(W, H))
    "cliff": _Condition((3,), ("bbox", "crop_scale", "image_size")),
    "image_size": _Condition((2,), ("image_size",)),  # width, height px
    "intrinsics": _Condition((3, 3), ("intrinsics",)),  # px of the image
}


@dataclass(frozen=True, kw_only=True)
class Onnx(NumberStream):
    """The outputs of an ONNX graph for a crop, flattened and joined. `read_part` reads one output,
    by its name.

    The graph's inputs must be float32 or float16. The inputs `bbox` and `cliff` describe a box: its
    side is the crop's side divided by `crop_per_box`. Set that as it was in the network's training.
    """

    weights: Path = Path()  # ONNX file of up to 2 GiB, or a zip with one
    image: str = "image"  # Name of the input for crops, (N, 3, H, W) float32 or float16
    # All other inputs, as NAME=cliff NAME=intrinsics; also bbox, image_size; empty: none
    inputs: str = ""
    outputs: str = ""  # Names of the outputs to store; empty: all
    mean: str = "0.485 0.456 0.406"  # Subtracted from RGB in [0, 1]
    std: str = "0.229 0.224 0.225"  # Divides the difference
    crop_per_box: float = 1.0  # Side of the crop divided by side of the box, over 0

    kind: ClassVar[str] = "onnx"
    dtype: ClassVar[str] = "float32"
    where: ClassVar[str] = "Name an ONNX file: [SECTION] weights, or --set SECTION.weights=FILE."

    def __post_init__(self) -> None:
        if self.weights == Path():
            raise ConfigError(f"weights is not set. {self.where}", "weights")
        for word in self.inputs.split():
            name, _, condition = word.partition("=")
            if not name or condition not in CONDITIONS:
                raise ConfigError(
                    f"inputs {word!r}: expected NAME= one of {', '.join(CONDITIONS)}", "inputs"
                )
        _require_colour("mean", self.mean, least=-math.inf)
        _require_colour("std", self.std, least=0)
        if not (self.crop_per_box > 0 and math.isfinite(self.crop_per_box)):
            raise ConfigError(
                f"crop_per_box {self.crop_per_box}: expected a number above 0", "crop_per_box"
            )

    @property
    def conditions(self) -> dict[str, str]:
        """Input of the graph -> name in CONDITIONS."""
        conditions = {}
        for word in self.inputs.split():
            name, _, condition = word.partition("=")
            conditions[name] = condition
        return conditions

    @property
    def columns(self) -> tuple[str, ...]:
        columns: dict[str, None] = {}
        for condition in self.conditions.values():
            columns |= dict.fromkeys(CONDITIONS[condition].columns)
        return tuple(columns)

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Number of numbers per row, found by running the graph once on the CPU. Raises as `load`
        does.
        """
        parts = _running(self, Machine("cpu"), str(self.identity())).parts
        return sum(math.prod(part["shape"]) for part in parts)

    def load(self, machine: Machine, recorded: Provenance | None) -> _GraphComputer:  # noqa: ARG002
        """Load the graph, check its inputs and outputs, and run it once.

        Raises MissingAssets for a missing file, RawDataError for an unsuitable graph, ConfigError
        if ONNX Runtime is missing or cannot use the device.
        """
        return _running(self, machine, str(self.identity()))

    def condition(self, name: str, labels: Labels) -> Doubles:
        """Compute an input of CONDITIONS, by its name, for n rows: (n, ...)."""
        if name in ("image_size", "intrinsics"):
            return np.asarray(labels[name], np.float64)
        bbox = np.asarray(labels["bbox"], np.float64)
        scale = np.asarray(labels["crop_scale"], np.float64) * self.crop.scale / self.crop_per_box
        side = bbox[:, 2:].max(axis=1) * scale
        if name == "bbox":
            return np.column_stack([bbox[:, :2], side])
        size = np.asarray(labels["image_size"], np.float64)
        return np.column_stack([2 * bbox[:, :2] / size - 1, side / size.max(axis=1)])


class _GraphComputer:
    """A graph on its device, with checked inputs and outputs."""

    def __init__(self, stream: Onnx, machine: Machine) -> None:
        graph = graphs.read(stream.weights, DO)
        self._stream = stream
        self._session = Session(graph, machine.device, "The stream onnx")
        shapes: dict[str, tuple[int, ...]] = {stream.image: (3, *stream.crop.shape)}
        for name, condition in stream.conditions.items():
            shapes[name] = CONDITIONS[condition].shape
        fixed_rows = self._check(shapes)
        if self._session.on_gpu:
            size = machine.batch_size or GPU_BATCH
            self.lanes = 1
        else:
            size = machine.batch_size or CPU_BATCH
            self.lanes = cores(machine.threads)
        self._n_rows = fixed_rows or size  # number of rows in one call of the graph
        self.batch_size = math.ceil(size / self._n_rows) * self._n_rows
        self._outputs = stream.outputs.split() or self._session.outputs
        unknown = [name for name in self._outputs if name not in self._session.outputs]
        if unknown:
            names = ", ".join(self._session.outputs)
            raise graph.error("outputs", f"{', '.join(unknown)}, as the option names", names)
        self.parts = self._find_parts(shapes)
        self.provenance = {
            "stand_in": False,
            "network": stream.weights.name,
            "library": "onnxruntime",
            "licence": NOT_KNOWN,
            "source": stream.weights.name,
            "sha256": self._session.graph.digest,
            "parts": self.parts,
            "device": "cuda" if self._session.on_gpu else "cpu",
        }

    def adopt(self, memory: NDArray[np.uint8]) -> None:
        """Nothing to prepare: crops are copied."""

    def release(self) -> None:
        """Nothing to release."""

    def __call__(self, crops: NDArray[np.uint8], labels: Labels | None = None) -> Floats:
        """Run the graph: crops (batch_size, height, width, 3) RGB, and columns (batch_size, ...)
        -> (batch_size, dim).
        """
        stream = self._stream
        n = self._n_rows
        pixels = (crops / np.float32(255) - _numbers(stream.mean)) / _numbers(stream.std)
        inputs = {stream.image: np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))}
        for name, condition in stream.conditions.items():
            inputs[name] = stream.condition(condition, labels or {})
        for name, values in inputs.items():
            inputs[name] = values.astype(self._dtype(name))
        rows = []
        for first in range(0, len(crops), n):
            selected = {name: values[first : first + n] for name, values in inputs.items()}
            outputs = self._session.run(self._outputs, selected)
            numbers = [output.reshape(n, -1).astype(np.float32) for output in outputs]
            rows.append(np.concatenate(numbers, axis=1))
        return np.concatenate(rows)

    def _dtype(self, name: str) -> DTypeLike:
        return DTYPES[self._session.inputs[name][1]]

    def _check(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """Check the graph's inputs. Returns the number of rows that it computes at once, if that is
        fixed; 0: any number.

        Args:
            shapes: the shape that each input must have for one row.

        Raises RawDataError if the graph has other inputs.
        """
        session = self._session
        fixed = set[int]()
        matches = session.inputs.keys() == shapes.keys()
        for name, shape in shapes.items():
            axes, dtype = session.inputs.get(name, ([], ""))
            has_shape = len(axes) == 1 + len(shape) and all(map(_accepts, axes[1:], shape))
            if not has_shape or dtype not in DTYPES:
                matches = False
            elif isinstance(axes[0], int):
                fixed.add(axes[0])
        if not matches or len(fixed) > 1:
            expected = ", ".join(f"{name} {['N', *shape]}" for name, shape in shapes.items())
            do = f"{DO} crop = size:256 region:256x192 sets the crop's height and width."
            raise session.graph.error(
                "inputs", f"{expected}, float32 or float16", session.inputs_shown, do
            )
        return max(fixed, default=0)

    def _find_parts(self, shapes: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
        """Run the graph on random numbers, and return the name, offset in a row and shape of each
        output. Raises RawDataError for outputs that are not numbers (N, ...).
        """
        n = self._n_rows
        rng = np.random.default_rng(0)
        inputs = {}
        for name, shape in shapes.items():
            inputs[name] = rng.uniform(0.5, 1, (n, *shape)).astype(self._dtype(name))
        outputs = self._session.run(self._outputs, inputs)
        parts = []
        offset = 0
        for name, output in zip(self._outputs, outputs, strict=True):
            is_number = output.dtype.kind in "fiu"
            has_rows = output.size > 0 and output.shape[:1] == (n,)
            if not is_number or not has_rows:
                actual = f"{name} {output.shape} {output.dtype} for {n} rows"
                raise self._session.graph.error("outputs", "numbers (N, ...)", actual)
            parts.append({"name": name, "offset": offset, "shape": list(output.shape[1:])})
            offset += math.prod(output.shape[1:])
        return parts


@functools.lru_cache(maxsize=MOST_SESSIONS)
def _running(stream: Onnx, machine: Machine, content: str) -> _GraphComputer:  # noqa: ARG001 - a changed file is another
    return _GraphComputer(stream, machine)


def _accepts(axis: object, size: int) -> bool:
    """Whether an axis of a graph's input can have this size. A fixed axis is a number, and a free
    one has a name.
    """
    return axis == size or not isinstance(axis, int)


def _require_colour(key: str, text: str, *, least: float) -> None:
    """Raise ConfigError unless the option `key` has three finite numbers above `least`."""
    try:
        numbers = _numbers(text)
    except ValueError:
        numbers = np.zeros(0, np.float32)
    is_valid = np.isfinite(numbers) & (numbers > least)
    if numbers.shape != (3,) or not is_valid.all():
        raise ConfigError(f"{key} {text!r}: expected three numbers, of red, green and blue", key)


def _numbers(text: str) -> Floats:
    return np.array(text.split(), np.float32)


def read_part(split: Split, windows: ArrayLike, stream: str, name: str) -> Floats:
    """Read one output of an ONNX graph from a stream, by its name.

    Args:
        windows: (B, 2), as for `Split.read`.

    Returns an array (B, T, ...): the output's shape for each of T frames in B windows. Raises
    PipelineError if the stream has no output of this name.
    """
    recorded = (split.open_stream(stream).manifest["backbone"] or {}).get("parts", [])
    parts = {part["name"]: part for part in recorded}
    if name not in parts:
        names = ", ".join(map(str, parts)) or "none"
        raise PipelineError(
            f"{split.name}: stream {stream!r} has no part {name!r}; it has: {names}"
        )
    start = parts[name]["offset"]
    shape = parts[name]["shape"]
    rows = split.read(windows, stream=stream, fields=["features"])["features"]
    numbers: Floats = rows[..., start : start + math.prod(shape)]
    return numbers.reshape(*rows.shape[:2], *shape)
