"""The stream that WHAM, GVHMR and TRAM are trained on: HMR2.0's token.  crops -> [hmr2] -> features"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from cache import CropPolicy
from pipeline.errors import ConfigError
from pipeline.features.streams.network import NetworkStream, Precision

if TYPE_CHECKING:
    from pipeline.features.networks.base import Loaded

# WHAM's crop has 1.2 times the longer side of the joints' extent. A track's has 1.43 times (its box 1.1, its crop scale
# 1.3), in most datasets: 0.84 of that is 1.2. Where a dataset's own factors are others, so is the crop, by up to a
# tenth. 4D-Humans takes a detector's box as it is, and GVHMR 1.2 times one made 192 : 256.
CROP: Final = CropPolicy(size=256, region=(256, 192), scale=0.84)


@dataclass(frozen=True, kw_only=True)
class Hmr2(NetworkStream):
    """1024 numbers a crop: the token of HMR2.0's decoder, which its heads read pose and shape from.

    `checkpoint` is 4D-Humans' or WHAM's own file. HMR2.0a is what WHAM was trained on; b gives other numbers.
    `precision` as in `resnet50`, but that fast is refused where it is too far from exact.
    """

    checkpoint: Path = Path()  # HMR2.0's .ckpt, of 4D-Humans or WHAM
    precision: Precision = "exact"
    crop: CropPolicy = CROP

    kind: ClassVar[str] = "hmr2"
    dim: ClassVar[int] = 1024
    where: ClassVar[str] = "HMR2.0's .ckpt: hmr2_data.tar.gz of github.com/shubham-goel/4D-Humans, or WHAM's hmr2a.ckpt"

    def __post_init__(self) -> None:
        if self.checkpoint == Path():
            raise ConfigError(f"checkpoint is not set: name {self.where}, as --set checkpoint=FILE")
        super().__post_init__()
        if (self.crop.size, self.crop.region) != (CROP.size, CROP.region):
            raise ConfigError("crop: HMR2.0 sees the middle of a crop of 256 px: begin with size:256 region:256x192")

    def __str__(self) -> str:
        return f"{self.checkpoint.name}, {self.precision}, crop {self.crop}"

    def loaded(self) -> Loaded:
        """Raises what `networks.hmr2.load` raises."""
        from vibe_extensions.world import hmr2_network as hmr2

        return hmr2.load(self.checkpoint)
