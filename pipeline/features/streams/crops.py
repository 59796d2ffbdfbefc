"""Crops kept as JPEG: other streams are extracted from them without the raw pictures.  tracks -> [crops] -> features"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.crops import CROP_SIZE
from pipeline.errors import ConfigError
from pipeline.features.streams.base import ByteStream
from pipeline.files.pixels.decode import PictureError, decode, picture_size
from pipeline.files.pixels.frames import Image


@dataclass(frozen=True, kw_only=True)
class Crops(ByteStream):
    """A crop as a JPEG of `quality` 1 to 100.

    Colours are kept at full resolution (4:4:4): a network sees the crop at this size, and half of it would be lost.
    Noise is larger as a JPEG of the highest qualities than as pixels: such a crop takes the next lower
    quality at which it fits.
    """

    quality: int = 95

    kind: ClassVar[str] = "crops"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality {self.quality}: expected 1 to 100")

    def __str__(self) -> str:
        return f"JPEG of quality {self.quality}{self._crop_shown}"

    def encode(self, crop: Image) -> bytes:
        if (shape := (self.crop.size, self.crop.size, 3)) != crop.shape or crop.dtype != np.uint8:
            raise ValueError(f"expected a {shape} uint8 crop, found {crop.shape} {crop.dtype}")
        bgr = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), np.uint8)
        for quality in range(self.quality, 0, -1):
            options = [cv2.IMWRITE_JPEG_QUALITY, quality]
            options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
            encoded, data = cv2.imencode(".jpg", bgr, options)
            if encoded and len(data) <= crop.size:  # more would be more than the pixels themselves
                return data.tobytes()
        raise ValueError("OpenCV cannot write JPEG here")

    def numbers(self, data: bytes) -> NDArray[Any]:
        """The pixels."""
        return self.decode(data, self.crop.size).reshape(-1)

    @staticmethod
    def decode(data: bytes, size: int = CROP_SIZE) -> Image:
        """What `encode` returned -> (size, size, 3) uint8 RGB. Raises PictureError for other or damaged bytes."""
        if picture_size(data) != (size, size):
            width, height = picture_size(data)
            raise PictureError("picture_size", f"is {width} x {height} px; a crop is {size} x {size} px")
        return decode(data)
