"""Where weights come from, and the ResNet-50 that they are put into.  crops -> [network] -> features

The ResNet-50 ends at the global average pool: 2048 numbers a crop. All checkpoints are read here, by torch's
weights-only loader, so that they cannot run code.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn
from torchvision.models import get_weight, resnet50
from torchvision.models.resnet import ResNet

from pipeline.errors import ConfigError, MissingAssets, RawDataError
from pipeline.features.networks.base import Normalisation
from pipeline.features.weights import WeightsSpec

N = TypeVar("N", bound=nn.Module)

# Names in SPIN's checkpoint that belong to its regressor and body, not to the ResNet.
REGRESSOR: Final = ("fc1.", "fc2.", "decpose.", "decshape.", "deccam.", "init_pose", "init_shape", "init_cam", "smpl.")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network in fp32 for evaluation, without its classifier: (B, 3, height, width) -> (B, dim)."""

    network: nn.Module
    provenance: dict[str, Any]  # weights, sha256 of the tensors, stand-in or not, network, layer
    region: tuple[int, int]  # (height, width) px of its pictures
    normalisation: Normalisation
    dim: int


def load(spec: WeightsSpec) -> tuple[ResNet, dict[str, Any]]:
    """The network in fp32, without its classifier, and its provenance: weights, sha256 of the tensors, stand-in or not.

    Raises MissingAssets when there is no such file, RawDataError when it holds other tensors than a ResNet-50's,
    ConfigError for a torchvision name that does not exist. torchvision's are downloaded once: MissingAssets offline.
    """
    network = _SOURCES[spec.kind](spec)
    network.fc = nn.Identity()  # the classifier is not part of the feature
    provenance: dict[str, Any] = {
        "weights": spec.identity(),
        "sha256": tensor_digest(network),
        "stand_in": spec.stand_in,
        "network": "torchvision ResNet-50, global average pool",
    }
    return network.eval().requires_grad_(False), provenance


def _untrained(spec: WeightsSpec) -> ResNet:
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers are not changed
        torch.manual_seed(int(spec.argument))
        return resnet50(weights=None)


def _torchvision(spec: WeightsSpec) -> ResNet:
    try:
        weights = get_weight(f"ResNet50_Weights.{spec.argument}")
    except (KeyError, ValueError) as error:
        raise ConfigError(f"weights {spec}: torchvision has no ResNet50_Weights.{spec.argument}") from error
    return fetched(spec, weights.url, lambda: resnet50(weights=weights))


def fetched(spec: WeightsSpec, url: str, build: Callable[[], N]) -> N:
    """`build()`, which downloads `url` by torch's hub once. Raises MissingAssets where it cannot be downloaded."""
    try:
        return build()
    except OSError as error:  # urllib's errors are too
        file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        raise MissingAssets(
            f"weights {spec}: {url} cannot be downloaded ({getattr(error, 'reason', error)}). Fetch that file "
            f"where there is a network, and put it at {file}; or name it where it is: file:FILE."
        ) from error


def _file(spec: WeightsSpec) -> ResNet:
    file = spec.file()
    return _filled(file, read_state(file), ignored=())


def _spin(spec: WeightsSpec) -> ResNet:
    file = spec.file()
    checkpoint = read_state(file)
    state = checkpoint.get("model")
    if not isinstance(state, dict):
        raise not_a_checkpoint(
            file, "model", "SPIN's checkpoint, a dict with `model`", f"keys {sorted(checkpoint)[:5]}"
        )
    return _filled(file, state, ignored=REGRESSOR)


def _filled(file: Path, state: Mapping[str, Any], *, ignored: tuple[str, ...]) -> ResNet:
    network = resnet50(weights=None)
    network.fc = nn.Identity()
    fill(network, file, state, of="ResNet-50", ignored=("fc.", *ignored))
    return network


_SOURCES: Final[Mapping[str, Callable[[WeightsSpec], ResNet]]] = {
    "untrained": _untrained,
    "torchvision": _torchvision,
    "file": _file,
    "spin": _spin,
}


def read_state(file: Path, *, settings: bool = False) -> dict[str, Any]:
    """A checkpoint's content. `settings`: it may hold objects beside the tensors, which are left out.

    Raises RawDataError for a file that holds something else. No class or function that it names is imported or called.
    """
    try:
        if file.suffix == ".safetensors":
            return _safetensors(file)
        allowed = [*_NUMPY_NUMBERS]
        if settings and zipfile.is_zipfile(file):  # as PyTorch Lightning keeps them: each name stands for an empty dict
            names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
            allowed += [(_Settings, name) for name in names if (_Number, name) not in allowed]
        with torch.serialization.safe_globals(allowed):
            state = torch.load(file, map_location="cpu", weights_only=True)
    except ConfigError:
        raise
    except Exception as error:
        raise not_a_checkpoint(file, "file", "tensors and numbers only", _reason(error)) from error
    if not isinstance(state, dict):
        raise not_a_checkpoint(file, "file", "a state dict", type(state).__name__)
    return state


def _safetensors(file: Path) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ConfigError(f"{file}: this format needs the library safetensors: pip install safetensors") from error
    tensors: dict[str, Any] = load_file(file)
    return tensors


class _Settings:
    """Any object that is no tensor while a checkpoint is read: its content is not used."""

    def __new__(cls, *_parts: object) -> Any:
        return OrderedDict()  # the only class of which torch's weights-only loader fills in both items and attributes


class _Number:
    """A NumPy number or its type while a checkpoint is read: its value is not used."""

    def __init__(self, *_parts: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# What is allowed beyond torch's own: the names that vibe_model/checkpoints.py allows, too. The two must agree.
_NUMPY_NUMBERS: Final[tuple[Any, ...]] = (
    (_Number, "numpy.dtype"),
    (_Number, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_Number, "numpy._core.multiarray.scalar"),  # NumPy 2
)


def _reason(error: Exception) -> str:
    """Why torch refused a file, in a line, without its advice on how to load it unsafely."""
    reason = (error.__context__ or error) if isinstance(error, pickle.UnpicklingError) else error
    line = str(reason).strip().partition("\n")[0].partition(" Please use ")[0]
    return line[:200].rstrip(".") or type(error).__name__


def fill(network: nn.Module, file: Path, state: Mapping[str, Any], *, of: str, ignored: tuple[str, ...] = ()) -> None:
    """Put a checkpoint's tensors, in fp32, into a network, which may be on the device `meta`.

    Every tensor must be there, in its shape; besides them only names that begin as `ignored` ones. Raises RawDataError,
    which names the tensor.
    """
    own = network.state_dict()
    given = {name: value for name, value in state.items() if not str(name).startswith(ignored)}
    # Counters of training batches: unused in evaluation, absent from older checkpoints.
    missing = sorted(n for n in own.keys() - given.keys() if not n.endswith("num_batches_tracked"))
    extra = sorted(map(str, given.keys() - own.keys()))
    if missing or extra:
        raise not_a_checkpoint(file, "names", f"{of}'s tensors", f"missing {missing[:3]}, unknown {extra[:3]}")
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor) or tensor.shape != own[name].shape:
            raise not_a_checkpoint(file, name, str(tuple(own[name].shape)), _shape(tensor))
        if not torch.isfinite(tensor.float()).all():
            raise not_a_checkpoint(file, name, "finite numbers", "nan or inf")
    given = {name: tensor.to(own[name].dtype) for name, tensor in given.items()}
    network.load_state_dict(given, strict=False, assign=True)


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def not_a_checkpoint(file: Path, key: str, expected: str, found: str) -> RawDataError:
    """A checkpoint that is not the network's."""
    do = "Check that the download is complete and is the checkpoint that was named."
    return RawDataError(file, key, expected=expected, found=found, do=do, reason="bad_checkpoint")


def tensor_digest(network: nn.Module) -> str:
    """sha256 over names and bytes of all tensors, hex."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()
