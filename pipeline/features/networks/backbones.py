"""The ResNet-50 up to its global average pool, 2048 numbers a crop.  crops -> [network] -> features"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.models.resnet import Bottleneck, ResNet

from pipeline.cli.console import err, plain
from pipeline.errors import ConfigError, MissingAssets, did_you_mean
from pipeline.features.weights import DATA_TERMS, WeightsSpec
from pipeline.files.formats.checkpoints import load_checkpoint, not_a_checkpoint

N = TypeVar("N", bound=nn.Module)

# Tensors of SPIN's regressor and body
REGRESSOR: Final = ("fc1.", "fc2.", "decpose.", "decshape.", "deccam.", "init_pose", "init_shape", "init_cam", "smpl.")


def load(spec: WeightsSpec) -> tuple[ResNet, dict[str, Any]]:
    """Load the network in fp32 without its classifier, and its provenance.

    Raises MissingAssets for a missing file or download, RawDataError for other tensors than a ResNet-50's, ConfigError
    for an unknown torchvision name.
    """
    network = _network_of(spec)
    network.fc = nn.Identity()
    provenance: dict[str, Any] = {
        "weights": spec.identity(),
        **(library_terms(_published(spec)) if spec.kind == "torchvision" else spec.terms()),
        "sha256": tensor_digest(network),
        "stand_in": spec.stand_in,
        "network": "torchvision ResNet-50, global average pool",
    }
    return network.eval().requires_grad_(False), provenance


def _network_of(spec: WeightsSpec) -> ResNet:
    if spec.kind == "untrained":
        with torch.random.fork_rng(devices=[]):  # keep the caller's random state
            torch.manual_seed(int(spec.argument))
            return resnet50(weights=None)
    if spec.kind == "torchvision":
        weights = _published(spec)
        return fetch(spec, weights, lambda: resnet50(weights=weights))
    file = spec.file()
    checkpoint = load_checkpoint(file)
    state = checkpoint.get("model") if spec.kind == "spin" else checkpoint
    if not isinstance(state, dict):
        found = f"keys {sorted(checkpoint)[:5]}"
        raise not_a_checkpoint(file, "model", "SPIN's checkpoint, a dict with `model`", found)
    network = resnet50(weights=None)
    network.fc = nn.Identity()
    fill(network, file, state, of="ResNet-50", ignored=("fc.", *REGRESSOR) if spec.kind == "spin" else ("fc.",))
    return network


def library_terms(weights: Any) -> dict[str, str]:
    """`WeightsSpec.terms` of torchvision's weights, which state a licence unless it is torchvision's own."""
    licence = weights.meta.get("license") or f"BSD-3-Clause, {DATA_TERMS}"
    return {"licence": licence, "source": weights.url}


def _published(spec: WeightsSpec) -> Any:
    try:
        return ResNet50_Weights[spec.argument]
    except KeyError as error:
        close = did_you_mean(spec.argument, ResNet50_Weights.__members__).rstrip(";")
        raise ConfigError(f"weights {spec}: torchvision's ResNet-50 has no weights of this name{close}") from error


def fetch(spec: WeightsSpec, weights: Any, build: Callable[[], N]) -> N:
    """Call `build`, which downloads torchvision's `weights` once. Prints their size and licence before it.

    Raises MissingAssets if the download fails.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not file.is_file():
        terms = f"{weights.meta['_file_size']:.0f} MB, licence {library_terms(weights)['licence']}"
        err.print(plain(f"downloading weights {spec} ({terms})"))
    try:
        return build()
    except OSError as error:  # urllib's errors are too
        raise MissingAssets(
            f"weights {spec}: {weights.url} cannot be downloaded ({getattr(error, 'reason', error)}). Download it "
            f"elsewhere to {file}, or name its path: file:FILE."
        ) from error


def fill(network: nn.Module, file: Path, state: Mapping[str, Any], *, of: str, ignored: tuple[str, ...] = ()) -> None:
    """Put a checkpoint's tensors in fp32 into a network, which may be on the device `meta`.

    ignored: prefixes of other names. Raises RawDataError, with the name, for missing, unknown and invalid tensors.
    """
    own = network.state_dict()
    given = {name: value for name, value in state.items() if not str(name).startswith(ignored)}
    # num_batches_tracked: unused in evaluation, missing in older checkpoints
    missing = sorted(n for n in own.keys() - given.keys() if not n.endswith("num_batches_tracked"))
    extra = sorted(map(str, given.keys() - own.keys()))
    if missing or extra:
        differing = (("without {} of them", missing), ("with {} others", extra))
        found = " and ".join(f"{text.format(len(names))}, such as {names[0]!r}" for text, names in differing if names)
        raise not_a_checkpoint(file, "file", f"{of}'s tensors", f"a file {found}")
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor) or tensor.shape != own[name].shape:
            found = str(tuple(tensor.shape)) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise not_a_checkpoint(file, name, str(tuple(own[name].shape)), found)
        if not torch.isfinite(tensor.float()).all():
            raise not_a_checkpoint(file, name, "finite numbers", "nan or inf")
    given = {name: tensor.to(own[name].dtype) for name, tensor in given.items()}
    network.load_state_dict(given, strict=False, assign=True)


def tensor_digest(network: nn.Module) -> str:
    """SHA-256 of the names and bytes of all tensors, hex."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


class GlobalMean(nn.Module):
    """(B, 2048, 7, 7) -> (B, 2048) float32, summed in float32."""

    def forward(self, features: Tensor) -> Tensor:
        return features.float().mean((2, 3))


def fold_batch_norms(network: ResNet) -> ResNet:
    """Copy a network with batch norms folded into convolutions, in float64 to stay exact."""
    network = copy.deepcopy(network).double()
    network.conv1, network.bn1 = fuse_conv_bn_eval(network.conv1, network.bn1), nn.Identity()
    for block in network.modules():
        if isinstance(block, Bottleneck):
            for k in (1, 2, 3):
                fused = fuse_conv_bn_eval(getattr(block, f"conv{k}"), getattr(block, f"bn{k}"))
                setattr(block, f"conv{k}", fused)
                setattr(block, f"bn{k}", nn.Identity())
            if block.downsample is not None:
                block.downsample = nn.Sequential(fuse_conv_bn_eval(block.downsample[0], block.downsample[1]))
    network.avgpool, network.fc = GlobalMean(), nn.Identity()
    return network.float()
