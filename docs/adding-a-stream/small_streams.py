"""Streams of crops, of pairs of frames, and of labels.  crops, labels -> [streams]

Importing this module imports no torch, because plans are made without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.api import (
    KEYPOINTS_13,
    ConfigError,
    Image,
    LabelStream,
    Machine,
    NumberStream,
    PairStream,
    Reads,
    Stream,
    keypoints_13,
)

WEIGHTS: Final = ("IMAGENET1K_V1", "untrained")


@dataclass(frozen=True, kw_only=True)
class ResNet18(NumberStream):
    """512 numbers per crop. `weights`: a name of torchvision's, or untrained: random ones, for
    trial runs.
    """

    weights: str = "IMAGENET1K_V1"

    kind: ClassVar[str] = "resnet18"
    version: ClassVar[int] = 1
    dim: ClassVar[int] = 512

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ConfigError(
                f"weights {self.weights!r}: expected one of {', '.join(WEIGHTS)}", "weights"
            )

    @property
    def stand_in(self) -> bool:
        return self.weights == "untrained"

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Network:  # noqa: ARG002
        return Network(self.weights, machine)


class Network:
    """torchvision's ResNet-18 up to its global average pool, in float32."""

    lanes = 1

    def __init__(self, weights: str, machine: Machine) -> None:
        import torch
        from torchvision.models import get_weight, resnet18

        from pipeline.api import Normalisation, chosen_device

        self.batch_size = machine.batch_size or 32
        network_name = "torchvision ResNet-18, global average pool"
        self.provenance = {
            "weights": weights,
            "stand_in": weights == "untrained",
            "network": network_name,
        }
        self._device = chosen_device(machine.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the seed of random weights
            network = resnet18(
                weights=None
                if weights == "untrained"
                else get_weight(f"ResNet18_Weights.{weights}")
            )
        network.add_module("fc", torch.nn.Identity())  # the feature is the input of the classifier
        self._network = torch.nn.Sequential(Normalisation(), network).eval().to(self._device)

    def adopt(self, memory: NDArray[np.uint8]) -> None:
        """Do nothing: crops are copied."""

    def release(self) -> None:
        """Do nothing."""

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(batch_size, 224, 224, 3) RGB -> (batch_size, 512)."""
        import torch

        with torch.inference_mode():
            features: NDArray[np.float32] = (
                self._network(torch.from_numpy(crops).to(self._device)).cpu().numpy()
            )
        return features


@dataclass(frozen=True, kw_only=True)
class Sharpness(Stream):
    """How sharp a crop is: the variance of its grey levels' Laplacian."""

    kind: ClassVar[str] = "sharpness"
    dim: ClassVar[int] = 1
    dtype: ClassVar[str] = "float32"

    @property
    def reads(self) -> Reads:
        return Reads(crops=1)

    def computed(
        self,
        crops: Sequence[Image],
        labels: Mapping[str, NDArray[Any]],  # noqa: ARG002
    ) -> NDArray[np.float32]:
        edges = cv2.Laplacian(cv2.cvtColor(crops[0], cv2.COLOR_RGB2GRAY), cv2.CV_32F)
        return np.array([edges.var()], np.float32)


@dataclass(frozen=True, kw_only=True)
class Change(PairStream):
    """Mean change in grey levels of each of 4 x 4 parts of the crop; unknown if the crop is outside
    the image.
    """

    kind: ClassVar[str] = "change"
    dim: ClassVar[int] = 16

    def pair(self, previous: Image, current: Image) -> NDArray[np.float32] | None:
        if not current.any():
            return None
        changes = np.abs(current.astype(np.float32) - previous).mean(axis=2)
        return np.asarray(
            cv2.resize(changes, (4, 4), interpolation=cv2.INTER_AREA), np.float32
        ).ravel()


@dataclass(frozen=True, kw_only=True)
class Pose2D(LabelStream):
    """x and y of 13 keypoints relative to the middle of the hips; the torso has size 0.5. 0 if
    missing.
    """

    kind: ClassVar[str] = "pose_2d"
    dim: ClassVar[int] = 26
    columns: ClassVar[tuple[str, ...]] = ("kp_2d",)

    def __call__(
        self, labels: Mapping[str, NDArray[Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(n, 49, 3) px -> (n, 26), (n,): (x - centre) / size / 2, size: the largest distance in
        the torso.
        """
        points = keypoints_13(labels["kp_2d"].astype(np.float64))  # (n, 13, 3)
        xy, visible = points[..., :2], points[..., 2] > 0
        torso = [KEYPOINTS_13.index(name) for name in ("lshoulder", "rshoulder", "lhip", "rhip")]
        centre = xy[:, torso[2:]].mean(axis=1, keepdims=True)
        size = np.max(
            [np.linalg.norm(xy[:, a] - xy[:, b], axis=1) for a in torso for b in torso], axis=0
        )
        known = visible[:, torso].all(axis=1) & (size > 0)
        scaled = (xy - centre) / np.where(known, 2 * size, 1)[:, None, None]
        shown = np.where((known[:, None] & visible)[..., None], scaled, 0)
        return shown.reshape(len(xy), -1).astype(np.float32), np.asarray(known)


@dataclass(frozen=True, kw_only=True)
class BoxSpeed(LabelStream):
    """Motion of the box's centre since the previous row, right and down, in box heights."""

    kind: ClassVar[str] = "box_speed"
    dim: ClassVar[int] = 2
    columns: ClassVar[tuple[str, ...]] = ("bbox",)
    history: ClassVar[int] = 1

    def __call__(
        self, labels: Mapping[str, NDArray[Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """bbox (n, 2, 4) cxcywh px, previous row first; in_run (n, 2) -> (n, 2), (n,) whether it is
        known.
        """
        before, box = labels["bbox"][:, 0], labels["bbox"][:, 1]
        known: NDArray[np.bool_] = np.all(labels["in_run"], axis=1)
        moved = (box[:, :2] - before[:, :2]) / box[:, 3:]
        return np.where(known[:, None], moved, 0).astype(np.float32), known
