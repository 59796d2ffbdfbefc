"""ResNet-50 and where its weights come from.  crops -> [network] -> features

The network ends at the global average pool: 2048 numbers a crop. Checkpoints are read by torch's weights-only loader,
so they cannot run code.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torchvision.models import get_weight, resnet50
from torchvision.models.resnet import ResNet

from pipeline.errors import ConfigError, MissingAssets, RawDataError
from pipeline.features.weights import WeightsSpec

# Names in SPIN's checkpoint that belong to its regressor and body, not to the ResNet.
REGRESSOR: Final = ("fc1.", "fc2.", "decpose.", "decshape.", "deccam.", "init_pose", "init_shape", "init_cam", "smpl.")


def load(spec: WeightsSpec) -> tuple[ResNet, dict[str, Any]]:
    """The network in fp32, without its classifier, and its provenance: weights, sha256 of the tensors, stand-in or not.

    Raises MissingAssets when there is no such file, RawDataError when it holds other tensors than a ResNet-50's,
    ConfigError for a torchvision name that does not exist. torchvision's are downloaded once: MissingAssets offline.
    """
    network = _SOURCES[spec.kind](spec)
    provenance: dict[str, Any] = {
        "weights": spec.identity(),
        "sha256": _tensor_digest(network),
        "stand_in": spec.stand_in,
        "network": "torchvision ResNet-50, global average pool",
    }
    network.fc = nn.Identity()  # the classifier is not part of the feature
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
    try:
        return resnet50(weights=weights)
    except OSError as error:  # urllib's errors are too
        file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
        raise MissingAssets(
            f"weights {spec}: {weights.url} cannot be downloaded ({getattr(error, 'reason', error)}). Fetch that file "
            f"where there is a network, and put it at {file}; or name it where it is: file:FILE."
        ) from error


def _file(spec: WeightsSpec) -> ResNet:
    file = spec.file()
    return _fill(resnet50(weights=None), file, _read_state(file), ignored=())


def _spin(spec: WeightsSpec) -> ResNet:
    file = spec.file()
    checkpoint = _read_state(file)
    state = checkpoint.get("model")
    if not isinstance(state, dict):
        raise _not_a_checkpoint(
            file, "model", "SPIN's checkpoint, a dict with `model`", f"keys {sorted(checkpoint)[:5]}"
        )
    return _fill(resnet50(weights=None), file, state, ignored=REGRESSOR)


_SOURCES: Final[Mapping[str, Callable[[WeightsSpec], ResNet]]] = {
    "untrained": _untrained,
    "torchvision": _torchvision,
    "file": _file,
    "spin": _spin,
}


def _read_state(file: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(list(_NUMPY_NUMBERS)):
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _not_a_checkpoint(file, "file", "tensors and numbers only", _reason(error)) from error
    if not isinstance(state, dict):
        raise _not_a_checkpoint(file, "file", "a state dict", type(state).__name__)
    return state


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


def _fill(network: ResNet, file: Path, state: Mapping[str, Any], *, ignored: tuple[str, ...]) -> ResNet:
    """Every tensor but the classifier's must be there, in its shape; besides them only names that are `ignored`."""
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("fc.")}
    given = {name: value for name, value in state.items() if not name.startswith(("fc.", *ignored))}
    # Counters of training batches: unused in evaluation, absent from older checkpoints.
    missing = sorted(n for n in own.keys() - given.keys() if not n.endswith("num_batches_tracked"))
    extra = sorted(given.keys() - own.keys())
    if missing or extra:
        raise _not_a_checkpoint(file, "names", "ResNet-50's tensors", f"missing {missing[:3]}, unknown {extra[:3]}")
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor) or tensor.shape != own[name].shape:
            raise _not_a_checkpoint(
                file, name, str(tuple(own[name].shape)), str(getattr(tensor, "shape", type(tensor)))
            )
        if not torch.isfinite(tensor.float()).all():
            raise _not_a_checkpoint(file, name, "finite numbers", "nan or inf")
    network.load_state_dict(dict(given), strict=False)
    return network


def _not_a_checkpoint(file: Path, key: str, expected: str, found: str) -> RawDataError:
    do = "Check that the download is complete and is the checkpoint that --weights names."
    return RawDataError(file, key, expected=expected, found=found, do=do, reason="bad_checkpoint")


def _tensor_digest(network: ResNet) -> str:
    """sha256 over names and bytes of all tensors but the classifier's."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith("fc."):
            total.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return total.hexdigest()
