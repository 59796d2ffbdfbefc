"""ONNX graphs from untrusted files, run by ONNX Runtime on CPU or GPU.  [pixels -> raw keypoints,
features]

A graph is a network in an ONNX file, with its weights: `read` reads the file, or a zip with it, and
a `Session` loads the graph on a device and runs it. The detector rtmpose uses `GraphNetwork`, whose
input is images; the stream onnx uses `Session`. ONNX Runtime is imported only when a graph is
loaded.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.cli import pages
from pipeline.cli.console import err
from pipeline.errors import ConfigError, RawDataError, missing_package
from pipeline.files.formats.other_formats import other_format
from pipeline.files.raw.files import open_regular
from pipeline.people.skeletons import Array, Float32s

LARGEST: Final = 1 << 31  # bytes of a graph: protobuf's limit
# A graph in a zip may have SMALL bytes, or DENSEST times the zip's: weights hardly get smaller
SMALL: Final = 1 << 26
DENSEST: Final = 8
# In protobuf, the key by which a tensor names another file with its data: length and text
EXTERNAL_DATA: Final = b"\x08location"
AT_ONCE: Final = 16  # images per call of a graph
CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
GPUS: Final = Path("/proc/driver/nvidia/gpus")  # the driver has a folder for each GPU here
DO: Final = f"Name the end2end.onnx of OpenMMLab's release, or its zip ({pages.RTMPOSE})."


class Graph(NamedTuple):
    """The content of an ONNX file."""

    file: Path
    name: str  # path within its zip
    content: bytes
    do: str = DO  # advice at the end of error messages

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()

    def error(self, key: str, expected: str, found: str, do: str = "") -> RawDataError:
        """Make the error that this graph is unsuitable."""
        return RawDataError(self.file, key, expected, found, do or self.do, reason="bad_checkpoint")


def read(file: Path, do: str = DO) -> Graph:
    """Read an ONNX file, or a zip with one. Raises RawDataError for a zip without exactly one.

    do: advice at the end of the graph's error messages.
    """
    with open_regular(file) as stream:
        if not zipfile.is_zipfile(stream):
            stream.seek(0)
            return Graph(file, file.name, stream.read(), do)
        try:
            with zipfile.ZipFile(stream) as archive:
                graphs = [entry for entry in archive.infolist() if entry.filename.endswith(".onnx")]
                limit = min(LARGEST, max(SMALL, DENSEST * os.fstat(stream.fileno()).st_size))
                if len(graphs) == 1 and graphs[0].file_size < limit:
                    return Graph(file, graphs[0].filename, archive.read(graphs[0]), do)
            texts = [f"{graph.filename} ({graph.file_size:,} bytes)" for graph in graphs[:3]]
            actual = ", ".join(texts) or "none"
        except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, ValueError) as error:
            actual = f"a damaged zip: {error}"
    expected = f"one ONNX graph of less than 2 GiB, at most {DENSEST} times as large as the zip"
    raise RawDataError(file, "zip", expected, actual, do, reason="bad_checkpoint")


class Session:
    """A graph loaded on one device. Thread-safe; on a CPU, each call uses one core.

    Args:
        user: What needs the graph, for messages.

    Raises:
        RawDataError: ONNX Runtime cannot load the graph.
        ConfigError: ONNX Runtime is not installed, or cannot use the device.
    """

    def __init__(self, graph: Graph, device: str, user: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_package(user, "onnxruntime", "clips") from error
        _load_cuda(onnxruntime)
        providers = _providers(device, onnxruntime.get_available_providers())
        self.graph = graph
        self._session = _load(onnxruntime, graph, providers)
        # ONNX Runtime falls back to the CPU if CUDA does not work
        self.on_gpu = self._session.get_providers()[0] != CPU
        if not self.on_gpu:
            _check_cpu(device)
        # name -> shape, such as ["batch", 3, 256, 192], and type, such as "tensor(float)"
        self.inputs = {
            entry.name: (list(entry.shape), str(entry.type)) for entry in self._session.get_inputs()
        }
        self.outputs = [str(entry.name) for entry in self._session.get_outputs()]  # names

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, Array]) -> list[Array]:
        """Compute the named outputs (None: all). Raises RawDataError if ONNX Runtime fails."""
        try:
            computed: list[Array] = self._session.run(outputs, inputs)
        except Exception as error:
            raise self.graph.error(
                "graph", "one that ONNX Runtime computes", _first_line(error)
            ) from error
        return computed

    @property
    def inputs_shown(self) -> str:
        """Names, shapes and types of the inputs, for a message."""
        return ", ".join(f"{name} {shape} {kind}" for name, (shape, kind) in self.inputs.items())


class GraphNetwork(Session):
    """The graph of a detector: its one input is images, (N, 3, H, W) float32.

    Raises what `Session` raises, and RawDataError for a graph with other inputs.
    """

    def __init__(self, graph: Graph, device: str) -> None:
        super().__init__(graph, device, "The detector rtmpose")
        match [*self.inputs.items()]:
            # a number of images that is not fixed has a name or None
            case [(name, ([1 | str() | None as n, 3, int(height), int(width)], "tensor(float)"))]:
                self._input = name
                self.size = (width, height)  # of the images, px
                self._images_a_call = 1 if n == 1 else AT_ONCE
            case _:
                expected = "one input for images, (1 or any, 3, H, W) float32"
                raise graph.error("inputs", expected, self.inputs_shown)

    def __call__(self, pixels: Float32s) -> list[Array]:
        """Compute all outputs for N images, in as many calls as the graph needs."""
        n = self._images_a_call
        parts = [self.run(None, {self._input: pixels[i : i + n]}) for i in range(0, len(pixels), n)]
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def outputs_error(self, expected: str, outputs: Sequence[Array]) -> RawDataError:
        """The error that the outputs have other shapes than expected."""
        shapes = ", ".join(str(output.shape) for output in outputs)
        return self.graph.error("outputs", expected, shapes)


@functools.cache
def _load_cuda(onnxruntime: Any) -> None:
    """Load the CUDA libraries of NVIDIA's packages, which ONNX Runtime does not find by itself.

    Missing ones are printed to stderr.
    """
    if CUDA in onnxruntime.get_available_providers() and hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()


@functools.cache
def _warn_of_cpu() -> None:
    """Say once that ONNX Runtime computes on the CPU although there is a GPU, and what to do."""
    err.print(
        "onnxruntime computes on the CPU, although this machine has a GPU. For the GPU: pip "
        "uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]' "
        f"({pages.RTMPOSE}). --device cpu hides this line.",
        markup=False,
    )


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    """ONNX Runtime's execution providers for a device. Raises ConfigError if there is none."""
    if device == "cpu" or (device == "auto" and CUDA not in available):
        return [CPU]
    if CUDA not in available:
        raise ConfigError(
            f"device {device}: the installed onnxruntime supports CPUs only. Replace it with "
            "onnxruntime-gpu, or use --device cpu."
        )
    return [(CUDA, {"device_id": int(device.partition(":")[2] or 0)}), CPU]


def _load(onnxruntime: Any, graph: Graph, providers: list[Any]) -> Any:
    """Make ONNX Runtime's session. Raises RawDataError for a graph that is invalid, or names files.

    Other files are not searched for by their names: the graph comes from an untrusted source.
    """
    if EXTERNAL_DATA in graph.content:
        raise graph.error("weights", "weights within the graph", "names of other files")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: failures are raised
    options.intra_op_num_threads = 1
    # if the key was overlooked, ONNX Runtime searches for the other files in an empty folder
    with tempfile.TemporaryDirectory() as empty:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", empty
        )
        try:
            return onnxruntime.InferenceSession(graph.content, options, providers)
        except Exception as error:  # ONNX Runtime's errors have no common class
            expected = "one that ONNX Runtime loads"
            actual = other_format(graph.content[:100]) or _first_line(error)
            raise graph.error("graph", expected, actual) from error


def _check_cpu(device: str) -> None:
    """Raise ConfigError if a GPU was asked for but the CPU computes; warn if there is a GPU."""
    if device.startswith("cuda"):
        raise ConfigError(
            f"device {device}: onnxruntime-gpu cannot use it (CUDA or cuDNN is missing). "
            "Use --device cpu."
        )
    if device == "auto" and any(GPUS.glob("*")):
        _warn_of_cpu()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
