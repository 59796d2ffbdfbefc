"""ResNet-50 and where its weights come from.  crops -> [network] -> features

The network ends at the global average pool: 2048 numbers a crop. Checkpoints are read by torch's weights-only loader,
so they cannot run code.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import get_weight, resnet50
from torchvision.models.resnet import Bottleneck, ResNet

from pipeline.errors import ConfigError, RawDataError
from pipeline.weights import WeightsSpec

DIM: Final = 2048
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
CALIBRATION_CROPS: Final = 96  # rendered crops from which an untrained network's output is standardised
# Names in SPIN's checkpoint that belong to its regressor and body, not to the ResNet.
NOT_OF_THE_RESNET: Final = (
    "fc1.",
    "fc2.",
    "decpose.",
    "decshape.",
    "deccam.",
    "init_pose",
    "init_shape",
    "init_cam",
    "smpl.",
)

Standardisation = Mapping[str, list[float]]  # "mean" and "std", DIM numbers each


class Backbone(nn.Module):
    """uint8 crops (B, 224, 224, 3) RGB -> features (B, 2048) float32.

    `precision`: "exact" is plain fp32, on CUDA without TF32 and by deterministic algorithms. "fast" folds the batch
    norms, goes channels-last, and runs bf16 on CUDA.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, network: ResNet, *, precision: str, standardisation: Standardisation | None) -> None:
        super().__init__()
        if precision not in ("exact", "fast"):
            raise ConfigError(f"precision {precision!r}: expected exact or fast")
        network.fc = nn.Identity()  # the classifier is not part of the feature
        self.fast = precision == "fast"
        self.network = network.eval().requires_grad_(False)
        if self.fast:
            _fold_batch_norms(self.network)
            self.network.to(memory_format=torch.channels_last)
        scale = standardisation or {"mean": [0.0] * DIM, "std": [1.0] * DIM}
        self.register_buffer("pixel_mean", 255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", 255 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.register_buffer("feature_mean", torch.tensor(scale["mean"]))
        self.register_buffer("feature_std", torch.tensor(scale["std"]))

    @torch.inference_mode()
    def forward(self, crops: Tensor) -> Tensor:
        pixels = crops.permute(0, 3, 1, 2).float()  # (B, 224, 224, 3) -> (B, 3, 224, 224)
        pixels = (pixels - self.pixel_mean) / self.pixel_std
        if self.fast:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with self._arithmetic(on_cuda=crops.is_cuda):
            features: Tensor = self.network(pixels)  # (B, 2048)
        return (features.float() - self.feature_mean) / self.feature_std

    def _arithmetic(self, *, on_cuda: bool) -> AbstractContextManager[None]:
        """What the convolutions compute in. Without a word, cuDNN's round fp32 to TF32's 10 bits."""
        if self.fast:
            return torch.autocast("cuda", torch.bfloat16, enabled=on_cuda)
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def load(
    spec: WeightsSpec,
    *,
    precision: str,
    calibration: Callable[[int], NDArray[np.uint8]],
    recorded: Standardisation | None = None,
) -> tuple[Backbone, dict[str, Any]]:
    """The network and its provenance: weights, sha256 of the tensors, and for untrained weights the standardisation.

    An untrained network's features have a mean near 9 and vary by 0.25 over poses, so its output is standardised by
    statistics over `calibration(n)` crops (n, 224, 224, 3), or by `recorded` ones of an earlier extraction. Real
    weights are never touched.

    Raises MissingAssets when there is no such file, RawDataError when it holds other tensors than a ResNet-50's,
    ConfigError for a torchvision name that does not exist.
    """
    network = _SOURCES[spec.kind](spec)
    provenance: dict[str, Any] = {
        "weights": spec.identity(),
        "sha256": _tensor_digest(network),
        "stand_in": spec.stand_in,
        "network": "torchvision ResNet-50, global average pool",
    }
    standardisation = recorded
    if spec.stand_in:
        if standardisation is None:
            standardisation = _statistics(network, calibration(CALIBRATION_CROPS))
        provenance["standardisation"] = dict(standardisation)
    return Backbone(network, precision=precision, standardisation=standardisation), provenance


def _untrained(spec: WeightsSpec) -> ResNet:
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay the caller's
        torch.manual_seed(int(spec.argument))
        return resnet50(weights=None)


def _torchvision(spec: WeightsSpec) -> ResNet:
    try:
        weights = get_weight(f"ResNet50_Weights.{spec.argument}")
    except (KeyError, ValueError) as error:
        raise ConfigError(f"weights {spec}: torchvision has no ResNet50_Weights.{spec.argument}") from error
    return resnet50(weights=weights)


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
    return _fill(resnet50(weights=None), file, state, ignored=NOT_OF_THE_RESNET)


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
    """Stands in for a NumPy number, and for its type, while a checkpoint is read. Nothing here needs its value."""

    def __init__(self, *_parts: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# What is let in beyond torch's own: the names that vibe_model/checkpoints.py lets in too. The two must agree.
_NUMPY_NUMBERS: Final[tuple[Any, ...]] = (
    (_Number, "numpy.dtype"),
    (_Number, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_Number, "numpy._core.multiarray.scalar"),  # NumPy 2
)


def _reason(error: Exception) -> str:
    """Why torch refused a file, in a line: without its advice, around the reason, on how to load it unsafely."""
    told = (error.__context__ or error) if isinstance(error, pickle.UnpicklingError) else error
    line = str(told).strip().partition("\n")[0].partition(" Please use ")[0]
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
    do = "Check that the download is complete and is the checkpoint that --weights says."
    return RawDataError(file, key, expected=expected, found=found, do=do, reason="bad_checkpoint")


def _tensor_digest(network: ResNet) -> str:
    """sha256 over names and bytes of all tensors but the classifier's."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith("fc."):
            total.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


def _statistics(network: ResNet, crops: NDArray[np.uint8]) -> Standardisation:
    """Mean and standard deviation of each feature over crops (n, 224, 224, 3), rounded: they read back exactly."""
    backbone = Backbone(network, precision="exact", standardisation=None)
    features = torch.cat([backbone(part) for part in torch.split(torch.from_numpy(crops), 32)]).double()  # (n, 2048)
    mean, std = features.mean(dim=0), features.std(dim=0).clamp(min=1e-4)
    return {"mean": [float(f"{x:.6g}") for x in mean.tolist()], "std": [float(f"{x:.6g}") for x in std.tolist()]}


def _fold_batch_norms(network: ResNet) -> None:
    """Each convolution takes over the scale and shift of the batch norm behind it: the same function, less work."""
    network.conv1, network.bn1 = fuse_conv_bn_eval(network.conv1, network.bn1), nn.Identity()
    for block in network.modules():
        if isinstance(block, Bottleneck):
            for k in (1, 2, 3):
                fused = fuse_conv_bn_eval(getattr(block, f"conv{k}"), getattr(block, f"bn{k}"))
                setattr(block, f"conv{k}", fused)
                setattr(block, f"bn{k}", nn.Identity())
            if block.downsample is not None:
                block.downsample = nn.Sequential(fuse_conv_bn_eval(block.downsample[0], block.downsample[1]))
