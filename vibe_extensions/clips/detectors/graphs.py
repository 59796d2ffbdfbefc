"""ONNX graphs of untrusted files, computed by ONNX Runtime on CPU or GPU.  [pixels -> raw keypoints] -> tracks

Nothing here imports ONNX Runtime before there is a graph to load.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, RawDataError
from pipeline.files.raw.files import open_regular

LARGEST: Final = 1 << 31  # bytes of a graph: protobuf's own limit
AT_ONCE: Final = 16  # pictures
CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
DO: Final = "Name the end2end.onnx of OpenMMLab's release, or its zip (docs/detecting.md)."


class Graph(NamedTuple):
    """The content of an ONNX file."""

    file: Path
    name: str  # with the folders in its zip
    content: bytes

    @property
    def digest(self) -> str:
        """sha256."""
        return hashlib.sha256(self.content).hexdigest()

    def refused(self, key: str, expected: str, found: str, do: str = DO) -> RawDataError:
        """The error of a graph that is not what is needed."""
        return RawDataError(self.file, key, expected=expected, found=found, do=do, reason="bad_checkpoint")


def read(file: Path) -> Graph:
    """Of an ONNX file, or of a zip with one."""
    with open_regular(file) as stream:
        if not zipfile.is_zipfile(stream):
            stream.seek(0)
            return Graph(file, file.name, stream.read())
        try:
            with zipfile.ZipFile(stream) as archive:
                inside = [entry for entry in archive.infolist() if entry.filename.endswith(".onnx")]
                if len(inside) == 1 and inside[0].file_size < LARGEST:
                    return Graph(file, inside[0].filename, archive.read(inside[0]))
                found = ", ".join(f"{entry.filename} ({entry.file_size:,} bytes)" for entry in inside[:3]) or "none"
        except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, ValueError) as error:
            found = f"a damaged zip: {error}"
    raise Graph(file, "", b"").refused("zip", "one ONNX graph of less than 2 GiB", found)


class GraphNetwork:
    """A graph on one device, for pictures (N, 3, H, W) float32. Any thread may call it, each computes on one core.

    Raises RawDataError for a graph that is refused, ConfigError for a device that is not there and where ONNX Runtime
    is not installed.
    """

    def __init__(self, graph: Graph, device: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            how = "pip install 'vibe-pipeline[clips]', in a clone .venv/bin/pip install -e '.[clips]'"
            raise ConfigError(f"the detector rtmpose needs the package onnxruntime: {how}") from error
        self.graph = graph
        providers = _providers(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised
        options.intra_op_num_threads = 1
        if b"\x08location" in graph.content:  # the key under which a tensor names another file as its home
            raise graph.refused("weights", "in the graph itself", "names of other files")
        try:
            self._session: Any = onnxruntime.InferenceSession(graph.content, options, providers)
        except Exception as error:  # ONNX Runtime's are of many classes
            raise graph.refused("graph", "one that ONNX Runtime loads", _line(error)) from error
        self.on_gpu = self._session.get_providers()[0] != CPU
        if device.startswith("cuda") and not self.on_gpu:
            raise ConfigError(
                f"device {device}: onnxruntime-gpu cannot use it (its CUDA or cuDNN is missing). Take cpu."
            )
        inputs = [(entry.name, entry.shape, entry.type) for entry in self._session.get_inputs()]
        match inputs:
            case [(name, [n, 3, int(height), int(width)], "tensor(float)")] if n == 1 or not isinstance(n, int):
                self._input, self.size, self._single = name, (width, height), n == 1
            case _:
                found = ", ".join(f"{name} {shape} {kind}" for name, shape, kind in inputs)
                raise graph.refused("inputs", "one of pictures, (1 or any, 3, H, W) float32", found)

    def __call__(self, pixels: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Each output, of N pictures."""
        n = 1 if self._single else AT_ONCE
        try:
            parts = [self._session.run(None, {self._input: pixels[i : i + n]}) for i in range(0, len(pixels), n)]
        except Exception as error:
            raise self.graph.refused("graph", "one that ONNX Runtime computes", _line(error)) from error
        return parts[0] if len(parts) == 1 else [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    """ONNX Runtime's names for a device. Raises ConfigError where it has none."""
    if device == "cpu" or (device == "auto" and CUDA not in available):
        return [CPU]
    if CUDA not in available:
        raise ConfigError(
            f"device {device}: this onnxruntime computes on CPUs alone. Install onnxruntime-gpu in its place, or take "
            "cpu."
        )
    return [(CUDA, {"device_id": int(device.partition(":")[2] or 0)}), CPU]


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def shapes(outputs: Sequence[NDArray[Any]]) -> str:
    """For a message."""
    return ", ".join(str(output.shape) for output in outputs)
