"""A stream of bytes, one of pairs of frames, and one of labels: a small class each.  crops, labels -> [streams]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.features.streams import ByteStream, LabelComputer, LabelStream, Machine, PairStream

Crop = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Thumbnail(ByteStream):
    """The crop at `side` x `side` px, as PNG."""

    side: int = 32

    kind: ClassVar[str] = "thumbnail"

    def __post_init__(self) -> None:
        if not 1 <= self.side <= 64:
            raise ConfigError(f"side {self.side}: expected 1 to 64 px")

    def encode(self, crop: Crop) -> bytes:
        small = cv2.resize(crop, (self.side, self.side), interpolation=cv2.INTER_AREA)
        return cv2.imencode(".png", small[..., ::-1])[1].tobytes()


@dataclass(frozen=True, kw_only=True)
class Change(PairStream):
    """By how many grey levels each of 4 x 4 parts of the crop changed; not known of a crop beside the picture."""

    kind: ClassVar[str] = "change"
    dim: ClassVar[int] = 16

    def pair(self, previous: Crop, current: Crop) -> NDArray[np.float32] | None:
        if not current.any():
            return None
        changes = np.abs(current.astype(np.float32) - previous).mean(axis=2)
        return np.asarray(cv2.resize(changes, (4, 4), interpolation=cv2.INTER_AREA), np.float32).ravel()


@dataclass(frozen=True, kw_only=True)
class InBox(LabelStream):
    """x and y of the 49 keypoints, -1 to 1 over the row's box; 0 where missing. Not known where all are."""

    kind: ClassVar[str] = "in_box"
    dim: ClassVar[int] = 98
    columns: ClassVar[tuple[str, ...]] = ("kp_2d", "bbox")

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> LabelComputer:  # noqa: ARG002 - no weights
        return Placement()


class Placement:
    """What computes it."""

    provenance: ClassVar[Mapping[str, Any]] = {"stand_in": False}

    def __call__(self, labels: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(n, 49, 3) and (n, 4) cxcywh, px -> (n, 98), (n,)."""
        kp_2d, bbox = labels["kp_2d"], labels["bbox"][:, None]
        visible = kp_2d[..., 2] > 0
        placed = np.where(visible[..., None], 2 * (kp_2d[..., :2] - bbox[..., :2]) / bbox[..., 2:], 0)
        return placed.reshape(len(kp_2d), -1).astype(np.float32), np.asarray(visible.any(axis=1))
