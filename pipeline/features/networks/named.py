"""Networks of torchvision and timm by name, up to the classifier.  crops -> [network] -> features"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

import torch
from torch import nn
from torchvision import models

from pipeline.errors import ConfigError, MissingAssets, PipelineError, did_you_mean
from pipeline.features.networks.backbones import fetch, fill, library_terms, tensor_digest
from pipeline.features.networks.base import IMAGENET_MEAN, IMAGENET_STD, Loaded, Normalisation
from pipeline.features.weights import NetworkWeights
from pipeline.files.formats.checkpoints import load_checkpoint

RESCALING: Final = ("googlenet", "inception_v3")  # of torchvision: a flag, missing in their weights, rescales pixels
HUB: Final = "https://huggingface.co"  # of timm's weights


@dataclass(frozen=True, slots=True)
class Built:
    """A network of a library, without its classifier."""

    network: nn.Module
    layer: str  # of the features
    classifier: tuple[str, ...]  # removed modules
    mean: Sequence[float] = IMAGENET_MEAN  # of RGB in [0, 1]
    std: Sequence[float] = IMAGENET_STD
    pretrained: str = ""  # the library's name of its weights
    terms: Mapping[str, str] = field(default_factory=dict)  # their `WeightsSpec.terms`


@dataclass(frozen=True, slots=True)
class Named:
    """A network of a library, for crops of `region` (height, width) px."""

    library: str  # torchvision or timm
    name: str
    region: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.library} {self.name}"

    def dim(self) -> int:
        """Numbers per crop, without weights or computation. Raises as `load`, except for the weights."""
        try:
            with torch.device("meta"):
                network = self._built(None).network
        except NotImplementedError:  # it computes its layers' widths by tensors
            network = self._built(None).network.to("meta")
        height, width = self.region
        try:
            with torch.inference_mode():
                shape = network.eval()(torch.empty(1, 3, height, width, device="meta")).shape
        except Exception as error:  # as each network puts it
            raise ConfigError(f"{self} takes no crops of {height} x {width} px: {error}") from error
        if len(shape) != 2:
            raise ConfigError(f"{self} gives {tuple(shape[1:])} numbers per crop, not a vector. Name another network.")
        return int(shape[1])

    def load(self, weights: NetworkWeights) -> Loaded:
        """Load the network in fp32.

        Raises ConfigError for an unknown network or weights, for unsupported crops, and if timm is not installed;
        MissingAssets for a missing file or download; RawDataError for a checkpoint of another network.
        """
        dim, file = self.dim(), weights.file() if weights.kind == "file" else None
        state = None if file is None else load_checkpoint(file)
        with torch.random.fork_rng(devices=[]):  # keep the caller's random state
            torch.manual_seed(int(weights.argument) if weights.stand_in else 0)
            built = self._built(weights if weights.kind == "pretrained" else None)
        if file is not None and state is not None:
            ignored = tuple(f"{module}." for module in built.classifier)
            fill(built.network, file, state.get("state_dict", state), of=str(self), ignored=ignored)
        provenance: dict[str, Any] = {
            "weights": weights.identity(),
            **({"pretrained": built.pretrained} if built.pretrained else {}),
            **(built.terms or weights.terms()),
            "sha256": tensor_digest(built.network),
            "stand_in": weights.stand_in,
            "network": str(self),
            "layer": built.layer,
            "normalisation": {"mean": list(built.mean), "std": list(built.std)},
            "library": f"{self.library} {version(self.library)}",
        }
        normalisation = Normalisation(self.region[1], built.mean, built.std)
        return Loaded(built.network.eval().requires_grad_(False), provenance, self.region, normalisation, dim)

    def _built(self, pretrained: NetworkWeights | None) -> Built:
        try:
            return _timm(self, pretrained) if self.library == "timm" else _torchvision(self, pretrained)
        except (PipelineError, NotImplementedError):
            raise
        except Exception as error:  # as each network puts it
            with_weights = f" with weights {pretrained}" if pretrained else ""
            raise ConfigError(f"{self} cannot be made{with_weights}: {error}") from error


def _torchvision(named: Named, pretrained: NetworkWeights | None) -> Built:
    """Up to the input of the last linear layer, which is the classifier."""
    networks = [name for name in models.list_models(module=models) if name not in RESCALING]
    if named.name not in networks:
        close = did_you_mean(named.name, networks)
        listing = f" known: {', '.join(networks)}" if close == ";" else ""
        raise ConfigError(f"torchvision has no network {named.name!r} that gives a vector of features{close}{listing}")
    size = {"image_size": named.region[0]} if named.name.startswith("vit_") else {}
    weights = None
    if pretrained is not None:
        of_network = models.get_model_weights(named.name)
        names = [*of_network.__members__, "DEFAULT"]
        if (pretrained.argument or "DEFAULT") not in names:
            raise ConfigError(f"{named} has no weights {pretrained.argument!r}; it has {', '.join(names)}")
        weights = of_network[pretrained.argument or "DEFAULT"]

    def build() -> nn.Module:
        made: nn.Module = models.get_model(named.name, weights=weights, **size)
        return made

    network = build() if pretrained is None or weights is None else fetch(pretrained, weights, build)
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError(f"{named} has no linear layer, whose input would be the features. Name another network.")
    network.set_submodule(linear[-1], nn.Identity())
    about: Mapping[str, Any] = vars(weights.transforms()) if weights is not None else {}
    mean, std = about.get("mean", IMAGENET_MEAN), about.get("std", IMAGENET_STD)
    terms = {} if weights is None else library_terms(weights)
    return Built(network, f"input of {linear[-1]}", (linear[-1],), mean, std, weights.name if weights else "", terms)


def _timm(named: Named, pretrained: NetworkWeights | None) -> Built:
    """Pooled, without the classifier (`num_classes=0`)."""
    try:
        import timm
    except ImportError as error:
        how = "pip install 'vibe-pipeline[timm]', in a clone .venv/bin/pip install -e '.[timm]'"
        raise ConfigError(f"{named} needs the library timm: {how}") from error
    name = f"{named.name}.{pretrained.argument}" if pretrained and pretrained.argument else named.name
    about = timm.get_pretrained_cfg(name)
    if about is None:
        close = did_you_mean(named.name, timm.list_models()).rstrip(";")
        raise ConfigError(f"timm {version('timm')} has no network {name!r}{close}")
    size, source = dict[str, Any](), f"{HUB}/{about.hf_hub_id}"
    if about.fixed_input_size and tuple(about.input_size[1:]) != named.region:
        size["img_size"] = named.region
    try:
        network = timm.create_model(name, pretrained=pretrained is not None, num_classes=0, **size)
    except OSError as error:  # the hub's errors are too
        url = f"{source}/resolve/main/{about.hf_hub_filename or 'model.safetensors'}"
        raise MissingAssets(
            f"weights {pretrained} of {named}: {url} cannot be downloaded. Download it elsewhere, and name its path: "
            "file:FILE."
        ) from error
    classifier = (about.classifier,) if isinstance(about.classifier, str) else tuple(about.classifier or ())
    model = f"{named.name.partition('.')[0]}.{about.tag}" if pretrained else ""
    terms = {"licence": about.license or "not recorded by timm", "source": source} if pretrained else {}
    return Built(network, "pooled, num_classes=0", classifier, about.mean, about.std, model, terms)
