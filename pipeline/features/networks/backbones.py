"""Build networks without their classifier: the ResNet-50, and those of libraries.  crops ->
[network] -> features

`load` returns a ResNet-50, and `LibraryNetwork.load` any network of a library, as a `Loaded`. Both
call these functions, from the first to the last:

    LibraryNetwork.build    any weights: pretrained, random (with a seed), or of a checkpoint,
                            whose tensors are put into a network with random weights (`fill`)
    LibraryNetwork._make    pretrained or random weights; turns a library's errors into ConfigError
    LibraryNetwork.ask      asks the library for the network, and removes its classifier: a function
                            of the stream (`streams.network`), for torchvision `from_torchvision`

They return a `HeadlessNetwork`: a network without its classifier, with facts for its provenance.
`fold_batch_norms` puts a ResNet's batch norms into its convolutions.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision import models
from torchvision.models.resnet import Bottleneck

from pipeline.cli.console import err, plain
from pipeline.errors import (
    ConfigError,
    MissingAssets,
    PipelineError,
    did_you_mean,
)
from pipeline.features.networks.base import IMAGENET_MEAN, IMAGENET_STD, Loaded, Normalisation
from pipeline.features.weights import NetworkWeights, WeightsSpec
from pipeline.files.formats.checkpoints import load_checkpoint, not_a_checkpoint
from pipeline.files.licences import DATA_TERMS
from pipeline.people.boxes import CROP_SIZE

# names (or their beginnings) of tensors in SPIN's checkpoint that are not of its ResNet-50
REGRESSOR: Final = (
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
# These networks of torchvision are not supported: they rescale pixels if a flag is set, which files
# of their weights do not record.
RESCALING: Final = ("googlenet", "inception_v3")


def load(spec: WeightsSpec, region: tuple[int, int]) -> Loaded:
    """Load a ResNet-50 in fp32, for crops of `region` (height, width) px. Its classifier is
    replaced by the identity.

    Raises MissingAssets for a missing file or download, RawDataError if the tensors are not those
    of a ResNet-50, ConfigError for an unknown name of torchvision's weights.
    """
    size = (CROP_SIZE, CROP_SIZE)
    ask = functools.partial(from_torchvision, "resnet50", size)
    backbone = LibraryNetwork("ResNet-50", "torchvision", size, ask).build(spec)
    provenance = _provenance(backbone, spec, "torchvision ResNet-50, global average pool")
    return Loaded(backbone.network, provenance, region, Normalisation(region[1]))


def _library_terms(weights: Any) -> dict[str, str]:
    """Licence and source of torchvision's weights. They state a licence if it is not torchvision's
    own, BSD-3-Clause.
    """
    licence = weights.meta.get("license") or f"BSD-3-Clause, {DATA_TERMS}"
    return {"licence": licence, "source": weights.url}


def _build_pretrained(
    spec: WeightsSpec, weights: Any, build: Callable[..., nn.Module]
) -> nn.Module:
    """Call torchvision's `build` with `weights`, a member of an enum such as ResNet50_Weights.

    It downloads them if they have not been downloaded yet; then print their size and licence first.
    Raises MissingAssets if the download fails.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not file.is_file():
        terms = f"{weights.meta['_file_size']:.0f} MB, licence {_library_terms(weights)['licence']}"
        err.print(plain(f"downloading weights {spec} ({terms})"))
    try:
        return build(weights=weights)
    except OSError as error:  # urllib's errors are OSErrors, too
        raise MissingAssets(
            f"weights {spec}: {weights.url} cannot be downloaded "
            f"({getattr(error, 'reason', error)}). Download it "
            f"elsewhere to {file}, or name its path: file:FILE."
        ) from error


def fill(
    network: nn.Module,
    file: Path,
    state: Mapping[str, Any],
    *,
    label: str,
    ignored: tuple[str, ...] = (),
) -> None:
    """Put a checkpoint's tensors into a network, converted to the network's dtypes. The network may
    be on the device `meta`, without memory.

    Args:
        file: the checkpoint's path, for messages.
        state: its tensors by name.
        label: name of the network, for messages.
        ignored: prefixes of names in the checkpoint that do not belong to the network.

    Raises RawDataError, with the tensor's name, for missing, unknown and invalid tensors.
    """
    expected = network.state_dict()
    tensors = {name: value for name, value in state.items() if not str(name).startswith(ignored)}

    missing = expected.keys() - tensors.keys()
    # num_batches_tracked: unused in evaluation, missing in older checkpoints
    missing = {name for name in missing if not name.endswith("num_batches_tracked")}
    extra = set(map(str, tensors.keys() - expected.keys()))
    differences = []
    if missing:
        differences.append(f"without {len(missing)} of them, such as {min(missing)!r}")
    if extra:
        differences.append(f"with {len(extra)} others, such as {min(extra)!r}")
    if differences:
        actual = f"a file {' and '.join(differences)}"
        raise not_a_checkpoint(file, "file", f"{label}'s tensors", actual)

    for name, tensor in tensors.items():
        shape = tuple(expected[name].shape)
        if not isinstance(tensor, Tensor):
            raise not_a_checkpoint(file, name, str(shape), type(tensor).__name__)
        if tensor.shape != shape:
            raise not_a_checkpoint(file, name, str(shape), str(tuple(tensor.shape)))
        if not torch.isfinite(tensor.float()).all():
            raise not_a_checkpoint(file, name, "finite numbers", "nan or inf")
        tensors[name] = tensor.to(expected[name].dtype)
    network.load_state_dict(tensors, strict=False, assign=True)


def tensor_digest(network: nn.Module) -> str:
    """SHA-256, in hex, of the names and bytes of all tensors of a network."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


class _GlobalMean(nn.Module):
    """Average over all positions, in float32: (B, 2048, 7, 7) -> (B, 2048)."""

    def forward(self, features: Tensor) -> Tensor:
        if features.is_mkldnn:
            features = features.to_dense()
        return features.float().mean((2, 3))


def fold_batch_norms(loaded: Loaded) -> Loaded:
    """Return a copy of a ResNet whose batch norms are folded into the convolutions. This is
    computed in float64, to lose no precision; the copy is in float32.
    """
    network: Any = copy.deepcopy(loaded.network).double()
    network.conv1 = fuse_conv_bn_eval(network.conv1, network.bn1)
    network.bn1 = nn.Identity()
    for block in network.modules():
        if isinstance(block, Bottleneck):
            for k in (1, 2, 3):
                fused = fuse_conv_bn_eval(getattr(block, f"conv{k}"), getattr(block, f"bn{k}"))
                setattr(block, f"conv{k}", fused)
                setattr(block, f"bn{k}", nn.Identity())
            if block.downsample is not None:
                block.downsample = nn.Sequential(fuse_conv_bn_eval(*block.downsample))
    network.avgpool = _GlobalMean()
    network.fc = nn.Identity()
    return replace(loaded, network=network.float(), is_folded=True)


@dataclass(frozen=True, slots=True)
class HeadlessNetwork:
    """A network of a library, without its classifier."""

    network: nn.Module
    layer: str  # which layer gives the features, for provenance
    classifier: tuple[str, ...]  # names of the removed modules
    mean: Sequence[float] = IMAGENET_MEAN  # normalisation of RGB in [0, 1]
    std: Sequence[float] = IMAGENET_STD
    pretrained: str = ""  # the library's name of the pretrained weights that it has; "": none
    # licence and source of the pretrained weights; {}: none
    terms: Mapping[str, str] = field(default_factory=dict)


def _provenance(backbone: HeadlessNetwork, weights: WeightsSpec, network: str) -> dict[str, Any]:
    """The provenance of a network with these weights, as JSON. `network`: its description."""
    provenance: dict[str, Any] = {"weights": weights.identity()}
    if backbone.pretrained and weights.kind == "pretrained":
        provenance["pretrained"] = backbone.pretrained
    provenance |= backbone.terms or weights.terms()
    provenance["sha256"] = tensor_digest(backbone.network)
    provenance["stand_in"] = weights.stand_in
    provenance["network"] = network
    return provenance


@dataclass(frozen=True)
class LibraryNetwork:
    """A network of a library, for crops of `region` (height, width) px."""

    label: str  # for provenance and messages
    package: str  # of the library
    region: tuple[int, int]
    # Builds the network without its classifier, with weights to download; None: with random ones.
    ask: Callable[[WeightsSpec | None], HeadlessNetwork]

    def dim(self) -> int:
        """Number of features per crop, found without weights and without computing. Raises
        ConfigError as `load` does, except for errors of the weights.
        """
        # Tensors on the device "meta" have shapes, but neither memory nor values.
        try:
            with torch.device("meta"):
                network = self._make(None).network
        except NotImplementedError:  # it reads values of tensors while it is built
            network = self._make(None).network.to("meta")
        height, width = self.region
        try:
            with torch.inference_mode():
                shape = network.eval()(torch.empty(1, 3, height, width, device="meta")).shape
        except Exception as error:  # each network raises something else
            raise ConfigError(
                f"{self.label} takes no crops of {height} x {width} px: {error}", "network"
            ) from error
        if len(shape) != 2:
            raise ConfigError(
                f"{self.label} gives {tuple(shape[1:])} numbers per crop, not a vector. Name "
                "another network.",
                "network",
            )
        return int(shape[1])

    def load(self, weights: NetworkWeights) -> Loaded:
        """Load the network in fp32.

        Raises ConfigError for an unknown network or weights, for unsupported crops, and if timm is
        not installed; MissingAssets for a missing file or download; RawDataError for a checkpoint
        of another network.
        """
        backbone = self.build(weights)
        provenance = {
            **_provenance(backbone, weights, self.label),
            "layer": backbone.layer,
            "normalisation": {"mean": list(backbone.mean), "std": list(backbone.std)},
            "library": f"{self.package} {version(self.package)}",
        }
        normalisation = Normalisation(self.region[1], backbone.mean, backbone.std)
        return Loaded(backbone.network, provenance, self.region, normalisation)

    def build(self, weights: WeightsSpec) -> HeadlessNetwork:
        """Build the network with its weights, for evaluation. Raises as `load` does."""
        is_pretrained = weights.kind in ("pretrained", "torchvision")
        seed = 0
        if weights.stand_in:
            seed = int(weights.argument)
        with torch.random.fork_rng(devices=[]):  # keep the caller's random state
            torch.manual_seed(seed)
            backbone = self._make(weights if is_pretrained else None)
        if weights.names_file:
            _fill_from_file(backbone, weights, self.label)
        backbone.network.eval().requires_grad_(False)
        return backbone

    def _make(self, pretrained: WeightsSpec | None) -> HeadlessNetwork:
        """Let the library make the network, with pretrained weights; None: with random ones.

        Its errors become ConfigErrors, except NotImplementedError, which `dim` handles.
        """
        try:
            return self.ask(pretrained)
        except (PipelineError, NotImplementedError):
            raise
        except Exception as error:  # each network raises something else
            with_weights = f" with weights {pretrained}" if pretrained else ""
            raise ConfigError(
                f"{self.label} cannot be made{with_weights}: {error}", "network"
            ) from error


def from_torchvision(
    name: str, region: tuple[int, int], pretrained: WeightsSpec | None
) -> HeadlessNetwork:
    """Ask torchvision for a network. Its features are the input of its last linear layer, the
    classifier.
    """
    networks = models.list_models(module=models, exclude=RESCALING)
    if name not in networks:
        hint = did_you_mean(name, networks) or f"; known: {', '.join(networks)}"
        raise ConfigError(
            f"torchvision has no network {name!r} that gives a vector of features{hint}", "network"
        )
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = region[0]
    build = functools.partial(models.get_model, name, **options)
    if pretrained is None:
        return _remove_classifier(name, build())

    weights = _torchvision_weights(name, pretrained)
    network = _build_pretrained(pretrained, weights, build)
    preprocessing = vars(weights.transforms())
    return replace(
        _remove_classifier(name, network),
        mean=preprocessing.get("mean", IMAGENET_MEAN),
        std=preprocessing.get("std", IMAGENET_STD),
        pretrained=weights.name,
        terms=_library_terms(weights),
    )


def _torchvision_weights(name: str, pretrained: WeightsSpec) -> Any:
    """The member of torchvision's enum of a network's weights, such as
    ResNet50_Weights.IMAGENET1K_V2. Raises ConfigError for an unknown name.
    """
    members = models.get_model_weights(name)
    argument = pretrained.argument or "DEFAULT"
    names = [*members.__members__, "DEFAULT"]
    if argument not in names:
        close = did_you_mean(argument, names)
        raise ConfigError(
            f"weights {pretrained}: torchvision {name} has no weights {argument!r}{close or ';'} "
            f"it has {', '.join(names)}"
        )
    return members[argument]


def _remove_classifier(name: str, network: nn.Module) -> HeadlessNetwork:
    """Replace a network's last linear layer by the identity. Raises ConfigError without one."""
    linear = [layer for layer, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError(
            f"torchvision {name} has no linear layer, whose input would be the features. Name "
            "another network.",
            "network",
        )
    network.set_submodule(linear[-1], nn.Identity())
    return HeadlessNetwork(network, f"input of {linear[-1]}", (linear[-1],))


def _fill_from_file(backbone: HeadlessNetwork, weights: WeightsSpec, label: str) -> None:
    """Put the tensors of SPIN's checkpoint, or of a state dict, into a network."""
    file = weights.file()
    state = load_checkpoint(file)
    ignored = tuple(f"{module}." for module in backbone.classifier)
    if weights.kind == "spin":
        ignored += REGRESSOR
        tensors = state.get("model")
    else:
        tensors = state.get("state_dict", state)
    if not isinstance(tensors, dict):
        expected = "SPIN's checkpoint, a dict with `model`"
        raise not_a_checkpoint(file, "model", expected, f"keys {sorted(state)[:5]}")
    fill(backbone.network, file, tensors, label=label, ignored=ignored)
