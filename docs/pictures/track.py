"""The README's first picture: a track in its frames, its crops, and the bodies of its labels, as a looping GIF.

From the cache that luigi.cfg names: .venv/bin/python docs/pictures/track.py [DATASET/SPLIT [NUMBER OF THE TRACK]]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

import cache
from pipeline.body import Body
from pipeline.conversion.retry import raw_folder
from pipeline.crops import crop_person
from pipeline.pixels import sources
from pipeline.settings import sections
from pipeline.settings.file import settings_file
from pipeline.show.drawing import flat
from pipeline.show.painted_bodies import COLOURS, Painter, SeenBody

FRAMES: Final = 16
PX: Final = 200  # the picture's height
NUMBER_OF_COLOURS: Final = 96
PX_A_METRE: Final = 95
TURN: Final = np.radians(55)  # of the bodies, about the vertical: their other side
SIDES: Final = {"right": (240, 140, 40), "left": (50, 120, 230), "middle": (245, 245, 245)}  # RGB
OUT: Final = Path(__file__).with_name("track.gif")

Picture = NDArray[np.uint8]


def of_frame(image: Picture, bbox: NDArray[Any], kp_2d: NDArray[Any]) -> Picture:
    """The whole picture with the person's box and skeleton, PX high."""
    drawn, width = image.copy(), max(1, round(image.shape[0] / 150))
    low, high = bbox[:2] - bbox[2:] / 2, bbox[:2] + bbox[2:] / 2
    cv2.rectangle(drawn, low.astype(int).tolist(), high.astype(int).tolist(), (255, 255, 255), width)
    for line in flat(kp_2d).lines:
        ends = [(round(line.x1), round(line.y1)), (round(line.x2), round(line.y2))]
        cv2.line(drawn, *ends, SIDES[line.side], 2 * width, cv2.LINE_AA)
    scale = PX / image.shape[0]
    return np.asarray(cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def of_body(painter: Painter, verts: NDArray[Any]) -> Picture:
    """A body (V, 3), m, camera axes, from beside."""
    middle = verts - (verts.min(axis=0) + verts.max(axis=0)) / 2
    cos, sin = np.cos(TURN), np.sin(TURN)
    turned = (middle @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])).astype(np.float32)
    seen = SeenBody(turned, turned[:, :2] * PX_A_METRE + PX / 2, turned[:, 2] + 5, COLOURS[0])
    return painter.paint(np.full((PX, PX, 3), 255, np.uint8), [seen], opacity=1)


def main(name: str = "3dpw/train", number: str = "0") -> None:
    """Write OUT."""
    paths = sections.load(settings_file()).paths
    split, track = cache.open(paths.cache)[name], int(number)
    start = int(split.tracks.start[track])
    found = {key: split.rows(key, start, start + FRAMES) for key in ("frame_index", "bbox", "kp_2d", "pose", "betas")}
    source = sources.parse(raw_folder(split, None), split.videos[int(split.tracks.video[track])].source)
    body = Body.load(paths.body)
    rotmat = Rotation.from_rotvec(np.reshape(found["pose"], (-1, 3))).as_matrix().reshape(FRAMES, -1, 3, 3)
    betas = torch.from_numpy(np.asarray(found["betas"], np.float32))
    with torch.no_grad():
        verts = body(betas=betas, rotmat=torch.from_numpy(rotmat).float()).verts.numpy()
    painter = Painter(body.faces.numpy())
    pictures = []
    for i, frame in enumerate(source.read(found["frame_index"].tolist())):
        assert frame.image is not None
        shown = of_frame(frame.image, found["bbox"][i], found["kp_2d"][i])
        tiles = [shown, crop_person(frame.image, found["bbox"][i], size=PX), of_body(painter, verts[i])]
        whole = Image.fromarray(np.concatenate(tiles, axis=1))
        palette = pictures[0] if pictures else whole.quantize(NUMBER_OF_COLOURS)  # one for all, or colours flicker
        pictures.append(whole.quantize(palette=palette, dither=Image.Dither.NONE))
    pictures[0].save(OUT, save_all=True, append_images=pictures[1:], duration=80, loop=0, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
