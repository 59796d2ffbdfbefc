"""The stream that WHAM, GVHMR and TRAM are trained on: HMR2.0's token.  crops -> [hmr2] -> features"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from cache import CropPolicy
from pipeline.errors import ConfigError, MissingAssets
from pipeline.features.streams.base import crop_identity
from pipeline.features.streams.network import NetworkStream, Precision, check_precision
from pipeline.features.weights import NetworkWeights

if TYPE_CHECKING:
    from pipeline.features.networks.base import Loaded

# WHAM's crop has 1.2 times the longer side of the joints' extent. A track's has 1.43 times (its box 1.1, its crop scale
# 1.3), in most datasets: 0.84 of that is 1.2. Where a dataset's own factors are others, so is the crop, by up to a
# tenth. 4D-Humans takes a detector's box as it is, and GVHMR 1.2 times one made 192 : 256.
CROP: Final = CropPolicy(size=256, region=(256, 192), scale=0.84)
WHERE: Final = "hmr2_data.tar.gz of github.com/shubham-goel/4D-Humans, or WHAM's hmr2a.ckpt"


@dataclass(frozen=True, kw_only=True)
class Hmr2(NetworkStream):
    """1024 numbers a crop: the token of HMR2.0's decoder, which its heads read pose and shape from.

    `checkpoint` is 4D-Humans' or WHAM's own file. HMR2.0a is what WHAM was trained on; b gives other numbers.
    `precision` as in `resnet50`, but that fast is refused where it is too far from exact.
    """

    checkpoint: Path = Path()
    precision: Precision = "exact"
    crop: CropPolicy = CROP

    kind: ClassVar[str] = "hmr2"
    dim: ClassVar[int] = 1024

    def __post_init__(self) -> None:
        if self.checkpoint == Path():
            raise ConfigError(f"checkpoint is not set: name HMR2.0's .ckpt ({WHERE}), as --set checkpoint=FILE")
        check_precision(self.precision)
        if (self.crop.size, self.crop.region) != (CROP.size, CROP.region):
            raise ConfigError("crop: HMR2.0 sees the middle of a crop of 256 px: begin with size:256 region:256x192")

    def __str__(self) -> str:
        return f"{self.checkpoint.name}, {self.precision}, crop {self.crop}"

    def identity(self) -> dict[str, Any]:
        if not self.checkpoint.is_file():
            raise MissingAssets(f"checkpoint: there is no file {self.checkpoint}. HMR2.0's .ckpt: {WHERE}")
        own = {"kind": self.kind, "version": self.version, "precision": self.precision}
        return {**own, "weights": NetworkWeights("file", str(self.checkpoint)).identity(), **crop_identity(self.crop)}

    @property
    def weights_file(self) -> Path | None:
        return self.checkpoint

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> Self | None:
        file = identity["weights"].get("argument")  # usually only the digest is known
        crop = CropPolicy.from_dict(identity.get("crop", {}))
        return cls(checkpoint=Path(file), precision=identity["precision"], crop=crop) if file else None

    def loaded(self) -> Loaded:
        """Raises what `networks.hmr2.load` raises."""
        from pipeline.features.networks import hmr2

        return hmr2.load(self.checkpoint)
