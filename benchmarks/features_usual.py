"""The usual way from persons in pictures to features, which benchmarks/features.py compares with.

Person by person: each one's picture is read, or the video once more for each person, cropped, normalised in NumPy, and
200 of them go through torchvision's ResNet-50 in fp32. One thread reads; torch computes in as many as it likes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cache import Split
from pipeline import crops
from pipeline.features.networks.resnet import IMAGENET_MEAN, IMAGENET_STD
from pipeline.pixels import sources
from pipeline.pixels.frames import FrameSource, Image, Pictures

BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class Person:
    """One track, as a plain script would have it in its lists."""

    source: FrameSource
    frames: list[int]
    boxes: NDArray[np.float32]  # (T, 4) cxcywh px
    scale: float


def persons(split: Split, raw: Path) -> Iterator[Person]:
    """All tracks of a split."""
    for track, video in zip(split.tracks, split.tracks.video.tolist(), strict=True):
        source = sources.parse(raw, split.videos[video].source)
        frames = split.rows("frame_index", track.start, track.stop).tolist()
        yield Person(source, frames, split.rows("bbox", track.start, track.stop), track.crop_scale)


def extract(people: list[Person], network: nn.Module, device: str, n_crops: int) -> tuple[float, NDArray[np.float32]]:
    """The first `n_crops` features, and the seconds that they took."""
    _features(network, device, [np.zeros((3, crops.CROP_SIZE, crops.CROP_SIZE), np.float32)])  # what is done only once
    began = time.perf_counter()
    found, batch = [], []
    for crop in _first(_crops(people), n_crops):
        batch.append(crop)
        if len(batch) == BATCH:
            found.append(_features(network, device, batch))
            batch = []
    if batch:
        found.append(_features(network, device, batch))
    return time.perf_counter() - began, np.concatenate(found)


def _first(items: Iterator[NDArray[np.float32]], n: int) -> Iterator[NDArray[np.float32]]:
    for _, item in zip(range(n), items, strict=False):
        yield item


def _crops(people: list[Person]) -> Iterator[NDArray[np.float32]]:
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    for person in people:
        for bgr, box in zip(_pictures(person), person.boxes, strict=True):
            affine = crops.crop_affine(box, person.scale)
            cropped = cv2.warpAffine(bgr, affine, (crops.CROP_SIZE, crops.CROP_SIZE), flags=cv2.INTER_LINEAR)
            rgb = cropped[..., ::-1].astype(np.float32) / np.float32(255)
            normalised: NDArray[np.float32] = (rgb - mean) / std
            yield normalised.transpose(2, 0, 1)


def _pictures(person: Person) -> Iterator[Image]:
    """BGR, as OpenCV reads them."""
    if isinstance(person.source, Pictures):
        for frame in person.frames:
            yield np.asarray(cv2.imread(str(person.source.path(frame))), np.uint8)
        return
    capture = cv2.VideoCapture(str(person.source.place))
    wanted = set(person.frames)
    for frame in range(person.frames[-1] + 1):
        _, bgr = capture.read()
        if frame in wanted:
            yield np.asarray(bgr, np.uint8)
    capture.release()


@torch.no_grad()
def _features(network: nn.Module, device: str, batch: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    features: NDArray[np.float32] = network(torch.from_numpy(np.stack(batch)).to(device)).cpu().numpy()
    return features
