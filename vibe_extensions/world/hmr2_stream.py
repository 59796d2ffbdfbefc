"""HMR2.0's token, the features of WHAM, GVHMR and TRAM.  crops -> [hmr2] -> features"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from cache import CropPolicy
from pipeline.errors import ConfigError
from pipeline.features.streams.network import NetworkStream, Precision

if TYPE_CHECKING:
    from pipeline.features.networks.base import Loaded

# WHAM's crop is 1.2 times the joints' extent. In most datasets a track's crop is 1.43 times (box 1.1, crop scale 1.3),
# of which 0.84 is 1.2; in others the crop differs by up to a tenth.
CROP: Final = CropPolicy(size=256, region=(256, 192), scale=0.84)


@dataclass(frozen=True, kw_only=True)
class Hmr2(NetworkStream):
    """1024 numbers per crop: the token of HMR2.0's decoder, from which its heads regress pose and shape.

    WHAM was trained with HMR2.0a; HMR2.0b gives other numbers. `precision` as in `resnet50`.
    """

    checkpoint: Path = Path()  # HMR2.0's .ckpt, of 4D-Humans or WHAM
    precision: Precision = "exact"
    crop: CropPolicy = CROP

    kind: ClassVar[str] = "hmr2"
    dim: ClassVar[int] = 1024
    where: ClassVar[str] = "HMR2.0's .ckpt: hmr2_data.tar.gz of github.com/shubham-goel/4D-Humans, or WHAM's hmr2a.ckpt"

    def __post_init__(self) -> None:
        if self.checkpoint == Path():
            raise ConfigError(f"checkpoint is not set. Set --set checkpoint=FILE: {self.where}")
        super().__post_init__()
        if (self.crop.size, self.crop.region) != (CROP.size, CROP.region):
            raise ConfigError("crop: HMR2.0 uses the centre of a 256 px crop. Set it to size:256 region:256x192 ...")

    def __str__(self) -> str:
        return f"{self.checkpoint.name}, {self.precision}, crop {self.crop}"

    def load_network(self) -> Loaded:
        """Load the network. Raises what `hmr2_network.load` raises."""
        from vibe_extensions.world import hmr2_network as hmr2

        return hmr2.load(self.checkpoint)
