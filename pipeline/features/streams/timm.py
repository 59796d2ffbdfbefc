"""Streams of networks of timm.  crops -> [features]"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipeline.errors import ConfigError, MissingAssets, did_you_mean, missing_package
from pipeline.features.streams.network import LibraryStream

if TYPE_CHECKING:
    from pipeline.features.networks.backbones import HeadlessNetwork
    from pipeline.features.weights import WeightsSpec

HUB: Final = "https://huggingface.co"  # where timm's weights are


@dataclass(frozen=True, kw_only=True)
class Timm(LibraryStream):
    """A network of timm, with its own pooling."""

    kind: ClassVar[str] = "timm"
    package: ClassVar[str] = "timm"
    example: ClassVar[str] = "vit_small_patch14_dinov2"

    def ask(self, pretrained: WeightsSpec | None) -> HeadlessNetwork:
        """Ask timm for the network without its classifier (`num_classes=0`)."""
        from pipeline.features.networks.backbones import HeadlessNetwork

        try:
            import timm
        except ImportError as error:
            raise missing_package(f"timm {self.network}", "timm", "timm") from error
        name = self.network
        if pretrained and pretrained.argument:
            name = f"{name}.{pretrained.argument}"
        config = timm.get_pretrained_cfg(name)
        if config is None:
            close = did_you_mean(self.network, timm.list_models())
            raise ConfigError(f"timm {version('timm')} has no network {name!r}{close}", "network")

        # a network of one input size, such as a ViT, is made for the size of the crops
        options = dict[str, Any]()
        if config.fixed_input_size and tuple(config.input_size[1:]) != self.crop.shape:
            options["img_size"] = self.crop.shape
        source = f"{HUB}/{config.hf_hub_id}"
        try:
            network = timm.create_model(
                name, pretrained=pretrained is not None, num_classes=0, **options
            )
        except OSError as error:  # errors of the Hugging Face hub are OSErrors, too
            url = f"{source}/resolve/main/{config.hf_hub_filename or 'model.safetensors'}"
            raise MissingAssets(
                f"weights {pretrained} of timm {self.network}: {url} cannot be downloaded. "
                "Download it elsewhere, and name its path: file:FILE."
            ) from error

        classifier = config.classifier or ()  # one name, or several
        if isinstance(classifier, str):
            classifier = (classifier,)
        layer = "pooled, num_classes=0"
        backbone = HeadlessNetwork(network, layer, tuple(classifier), config.mean, config.std)
        if pretrained is None:
            return backbone
        model = f"{self.network.partition('.')[0]}.{config.tag}"
        terms = {"licence": config.license or "not recorded by timm", "source": source}
        return replace(backbone, pretrained=model, terms=terms)
