"""Streams of ONNX graphs, which may need more than the crop.  crops, columns -> [graph] -> features

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
from numpy.typing import ArrayLike, NDArray

from pipeline.clips.detectors import graphs
from pipeline.clips.detectors.graphs import Session
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.streams.base import Labels, Machine, NumberStream
from pipeline.files.packages import NOT_KNOWN
from pipeline.processes import cores

if TYPE_CHECKING:
    from cache import Split

CPU_BATCH: Final = 8
GPU_BATCH: Final = 64
MOST_SESSIONS: Final = 3  # that stay in memory
DO: Final = (
    "Name an ONNX graph and its inputs and outputs: weights, image, inputs, outputs "
    "(docs/features.md)."
)
DTYPES: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class _Condition(NamedTuple):
    """A kind of input beside the crop."""

    shape: tuple[int, ...]  # of a row
    columns: tuple[str, ...]  # that it is computed from


CONDITIONS: Final[Mapping[str, _Condition]] = {
    "bbox": _Condition((3,), ("bbox", "crop_scale")),  # centre x, centre y, side: px of the image
    # (2 cx / W - 1, 2 cy / H - 1, side / max(W, H))
    "cliff": _Condition((3,), ("bbox", "crop_scale", "image_size")),
    "image_size": _Condition((2,), ("image_size",)),  # width, height px
    "intrinsics": _Condition((3, 3), ("intrinsics",)),  # px of the image
}


@dataclass(frozen=True, kw_only=True)
class Onnx(NumberStream):
    """All outputs of an ONNX graph for a crop, one after the other; `read_part` returns one by its
    name.

    The graph's inputs have float32 or float16. `crop_per_box` says which box `bbox` and `cliff` are
    of: its side is the crop's divided by this, as when the network was trained.
    """

    weights: Path = Path()  # ONNX file, or a zip with one
    image: str = "image"  # Input for crops, (N, 3, H, W)
    inputs: str = ""  # Other inputs, as NAME=cliff NAME=intrinsics; also bbox, image_size
    outputs: str = ""  # Names of the outputs to store; empty: all
    mean: str = "0.485 0.456 0.406"  # Subtracted from RGB in [0, 1]
    std: str = "0.229 0.224 0.225"  # Divides the difference
    crop_per_box: float = 1.0  # Side of the crop divided by side of the box

    kind: ClassVar[str] = "onnx"
    dtype: ClassVar[str] = "float32"
    where: ClassVar[str] = "Name an ONNX file: [SECTION] weights, or --set weights=FILE."

    def __post_init__(self) -> None:
        if self.weights == Path():
            raise ConfigError(f"weights is not set. {self.where}")
        for word in self.inputs.split():
            name, _, condition = word.partition("=")
            if not name or condition not in CONDITIONS:
                raise ConfigError(f"inputs {word!r}: expected NAME= one of {', '.join(CONDITIONS)}")
        inputs = [self.image, *(word.partition("=")[0] for word in self.inputs.split())]
        for key, names in (("inputs", inputs), ("outputs", self.outputs.split())):
            if len(set(names)) < len(names):
                raise ConfigError(f"{key} {getattr(self, key)!r}: expected each name once")
        for key in ("mean", "std"):
            try:
                numbers = _numbers(getattr(self, key))
            except ValueError:
                numbers = np.zeros(0, np.float32)
            if (
                numbers.shape != (3,)
                or not np.isfinite(numbers).all()
                or (key == "std" and not (numbers > 0).all())
            ):
                raise ConfigError(
                    f"{key} {getattr(self, key)!r}: expected three numbers, of red, green and blue"
                )
        if not (self.crop_per_box > 0 and math.isfinite(self.crop_per_box)):
            raise ConfigError(f"crop_per_box {self.crop_per_box}: expected a number above 0")

    def __str__(self) -> str:
        return f"{self.weights.name}{f', {self.inputs}' if self.inputs else ''}{self._crop_shown}"

    @property
    def conditions(self) -> dict[str, str]:
        """Input of the graph -> name in CONDITIONS."""
        return {
            name: condition
            for name, _, condition in (word.partition("=") for word in self.inputs.split())
        }

    @property
    def columns(self) -> tuple[str, ...]:
        columns = (
            column for name in self.conditions.values() for column in CONDITIONS[name].columns
        )
        return tuple(dict.fromkeys(columns))

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Numbers per row, by running the graph once. Raises as `load`."""
        parts = _running(self, Machine("cpu"), str(self.identity())).parts
        return sum(math.prod(part["shape"]) for part in parts)

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> _GraphComputer:  # noqa: ARG002
        """Load the graph, check its inputs and outputs, and run it once.

        Raises MissingAssets for a missing file, RawDataError for an unsuitable graph, ConfigError
        if ONNX Runtime is missing or cannot use the device.
        """
        return _running(self, machine, str(self.identity()))

    def condition(self, name: str, labels: Labels) -> NDArray[np.float64]:
        """(n, ...) one of CONDITIONS of n rows."""
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
        shapes |= {
            name: CONDITIONS[condition].shape for name, condition in stream.conditions.items()
        }
        fixed = self._check(shapes)
        size = machine.batch_size or (GPU_BATCH if self._session.on_gpu else CPU_BATCH)
        self._at_once = fixed or size
        self.batch_size = -(-size // self._at_once) * self._at_once
        self.lanes = 1 if self._session.on_gpu else cores(machine.threads)
        self._outputs = stream.outputs.split() or self._session.outputs
        if unknown := [name for name in self._outputs if name not in self._session.outputs]:
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

    def __call__(
        self, crops: NDArray[np.uint8], labels: Labels | None = None
    ) -> NDArray[np.float32]:
        """(batch_size, height, width, 3) RGB, and columns (batch_size, ...) -> (batch_size,
        dim).
        """
        stream = self._stream
        n = self._at_once
        pixels = (
            (crops / np.float32(255) - _numbers(stream.mean)) / _numbers(stream.std)
        ).transpose(0, 3, 1, 2)
        inputs = {
            name: stream.condition(of, labels or {}) for name, of in stream.conditions.items()
        }
        inputs[stream.image] = np.ascontiguousarray(pixels)
        typed = {
            name: values.astype(DTYPES[self._session.inputs[name][1]])
            for name, values in inputs.items()
        }
        rows = []
        for first in range(0, len(crops), n):
            few = {name: values[first : first + n] for name, values in typed.items()}
            outputs = self._session.run(self._outputs, few)
            rows.append(
                np.concatenate(
                    [output.reshape(n, -1).astype(np.float32) for output in outputs], axis=1
                )
            )
        return np.concatenate(rows)

    def _check(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """The graph's fixed number of rows; 0: any. shapes: of a row of each input. Raises
        RawDataError.
        """
        session = self._session
        fixed = set[int]()
        matches = session.inputs.keys() == shapes.keys()
        for name, shape in shapes.items() if matches else ():
            (n, *found), kind = session.inputs[name] if session.inputs[name][0] else ([None], "")
            same = len(found) == len(shape) and all(
                a == b or not isinstance(a, int) for a, b in zip(found, shape, strict=True)
            )
            matches = matches and same and kind in DTYPES
            fixed |= {n} if isinstance(n, int) else set()
        if not matches or len(fixed) > 1:
            expected = ", ".join(f"{name} {['N', *shape]}" for name, shape in shapes.items())
            do = f"{DO} crop = size:256 region:256x192 sets the crop's height and width."
            raise session.graph.error(
                "inputs", f"{expected}, float32 or float16", session.inputs_shown, do
            )
        return max(fixed, default=0)

    def _find_parts(self, shapes: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
        """Name, offset and shape of each output in a row, by running the graph. Raises
        RawDataError.
        """
        n = self._at_once
        rng = np.random.default_rng(0)
        blank = {
            name: rng.uniform(0.5, 1, (n, *shape)).astype(DTYPES[self._session.inputs[name][1]])
            for name, shape in shapes.items()
        }
        parts = []
        offset = 0
        for name, output in zip(
            self._outputs, self._session.run(self._outputs, blank), strict=True
        ):
            if (
                not output.shape
                or output.shape[0] != n
                or output.dtype.kind not in "fiu"
                or not output.size
            ):
                found = f"{name} {output.shape} {output.dtype} for {n} rows"
                raise self._session.graph.error("outputs", "numbers (N, ...)", found)
            parts.append({"name": name, "offset": offset, "shape": list(output.shape[1:])})
            offset += math.prod(output.shape[1:])
        return parts


@functools.lru_cache(maxsize=MOST_SESSIONS)
def _running(stream: Onnx, machine: Machine, content: str) -> _GraphComputer:  # noqa: ARG001 - a changed file is another
    return _GraphComputer(stream, machine)


def _numbers(text: str) -> NDArray[np.float32]:
    return np.array(text.split(), np.float32)


def read_part(split: Split, windows: ArrayLike, stream: str, name: str) -> NDArray[np.float32]:
    """Read one output of an ONNX graph, by its name: (B, T, ...), its own shape behind windows and
    frames.

    windows: (B, 2), as for `Split.read`. Raises PipelineError if the stream has no output of this
    name.
    """
    parts = (split.stream_manifest(stream)["backbone"] or {}).get("parts", [])
    part = next((part for part in parts if part["name"] == name), None)
    if part is None:
        names = ", ".join(str(part["name"]) for part in parts) or "none"
        raise PipelineError(
            f"{split.name}: stream {stream!r} has no part {name!r}; it has: {names}"
        )
    rows = split.read(windows, stream=stream, fields=["features"])["features"]
    within: NDArray[np.float32] = rows[
        ..., part["offset"] : part["offset"] + math.prod(part["shape"])
    ]
    return within.reshape(*rows.shape[:2], *part["shape"])
