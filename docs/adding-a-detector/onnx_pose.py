"""A pose network in ONNX, computed by OpenCV: nothing has to be installed for it.  pixels -> [people] -> tracks"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import cv2
import numpy as np

from pipeline.api import Detect, Detector, Image, MissingAssets, People, whole_file_digest


@dataclass(frozen=True)
class OnnxPose(Detector):
    """`weights`: a file with YOLOv8-pose's output (1, 56, N): cx cy w h px, score, 17 x (x px, y px, score)."""

    weights: str = ""
    min_score: float = 0.5  # of a person
    side: int = 640  # of the network's square input, px

    name: ClassVar[str] = "onnx_pose"
    version: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        if not Path(self.weights).is_file():
            raise MissingAssets(f"weights {self.weights!r}: expected an ONNX file, found none: --weights FILE")
        return super().identity() | {"weights": whole_file_digest(Path(self.weights))}

    def below(self, folder: Path) -> Self:
        return replace(self, weights=str(folder / self.weights))

    def load(self, device: str) -> Detect:  # noqa: ARG002 - OpenCV's own builds have no GPU
        network = cv2.dnn.readNetFromONNX(self.weights)
        return lambda images: [self.people(network, image) for image in images]

    def people(self, network: cv2.dnn.Net, image: Image) -> People:
        """Of one picture (H, W, 3): scaled to the network's side, grey below it or on its right."""
        scale = self.side / max(image.shape[:2])
        square = np.full((self.side, self.side, 3), 114, np.uint8)
        small = cv2.resize(image, None, fx=scale, fy=scale)
        square[: small.shape[0], : small.shape[1]] = small
        network.setInput(cv2.dnn.blobFromImage(square, 1 / 255))
        rows = np.asarray(network.forward())[0].T
        boxes = np.hstack([rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]])
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), rows[:, 4].tolist(), self.min_score, 0.6)
        rows = rows[np.array(kept, np.int64).reshape(-1)]
        corners = np.hstack([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2]) / scale
        keypoints = rows[:, 5:].reshape(-1, 17, 3) / [scale, scale, 1]
        return People(corners.astype(np.float32), rows[:, 4].astype(np.float32), keypoints.astype(np.float32))
