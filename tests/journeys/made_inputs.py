"""What several journeys begin with."""

import cv2
import numpy as np

from tests.pipeline.datasets.by_hand import encode

CHANGES = {
    "raw = demo/raw": "raw = raw",
    "cache = demo/cache": "cache = cache",
    "enabled = true": "enabled = false",
    "streams = resnet50": "streams = means",
}


def write_clip(file, n_frames, *, seed, person=True):
    """Somebody all in red, before a grey wall."""
    rng = np.random.default_rng(seed)
    wall = cv2.resize(rng.integers(30, 140, (18, 24), np.uint8), (96, 72))[..., None].repeat(3, 2)
    images = [wall.copy() for _ in range(n_frames)]
    for frame, image in enumerate(images if person else ()):
        left, top = int(12 + 30 * (1 + np.sin(frame / 9 + seed))), 10 + frame % 5
        cv2.rectangle(image, (left, top), (left + 14, top + 46), (40, 40, 230), -1)
    encode(file, images)
