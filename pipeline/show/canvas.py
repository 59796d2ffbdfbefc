"""An image with texts, lines and boxes drawn over it.  [images]

Lengths are px of an image whose shorter side is SMALLEST; in larger images, they grow with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from pipeline.files.pixels.frames import Image
from pipeline.people.skeletons import Array
from pipeline.show.drawing import SIDE_COLOURS, Skeleton, rgb

SMALLEST: Final = 480  # px, shorter side up to which texts have their minimum size
FURTHEST: Final = 2.0**15  # px, largest coordinate that OpenCV draws
SUBPIXELS: Final = 3  # fractional bits of OpenCV's points
SMOOTH: Final = (cv2.LINE_AA, SUBPIXELS)  # of lines and shapes
FILLED: Final = -1
FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
FONT_SCALE: Final = 0.4
WHITE: Final = (255, 255, 255)
BLACK: Final = (0, 0, 0)
GREY: Final = 96
MARGIN: Final = 5  # of captions, from the image's edge; 4 beside them
BAND: Final = 16  # height of the band at the top
LEGEND: Final = 80  # width of the legend
LEGEND_WORD: Final = 42  # of its first word
WITHOUT_LEGEND: Final = 220  # left of the legend, for the caption


class Canvas:
    """Draws into an image, in place. Colours are RGB, 0 to 255."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._height, self._width = image.shape[:2]
        shorter: int = min(self._height, self._width)
        self._scale = max(1.0, shorter / SMALLEST)
        self._labels: list[Array] = []  # boxes (x, y, x, y) of the labels

    def draw_caption(self, text: str) -> None:
        """Draw a short text into the lower left corner."""
        bottom = self._height - self._px(MARGIN)
        self._draw_text(text, self._px(4), bottom)

    def draw_band(self, text: str) -> None:
        """Draw a text on a grey band at the top."""
        height = self._px(BAND)
        bottom = self._px(BAND - MARGIN)
        self._image[:height] = GREY
        self._draw_text(text, self._px(4), bottom)

    def draw_legend(self) -> None:
        """Draw a legend of the sides' colours in the lower right corner, if the image is wide
        enough.
        """
        left = self._width - self._px(LEGEND)
        bottom = self._height - self._px(MARGIN)
        if left < self._px(WITHOUT_LEGEND):
            return
        for side in ("right", "left"):
            self._draw_text(side, left, bottom, rgb(SIDE_COLOURS[side]))
            left += self._px(LEGEND_WORD)

    def draw_box(self, low: Array, high: Array, name: str, colour: Sequence[int]) -> None:
        """Draw a box with these corners (2,) px, and its name above it."""
        left, top = low.tolist()
        right, bottom = high.tolist()
        corner = _point(left, top)
        opposite = _point(right, bottom)
        cv2.rectangle(self._image, corner, opposite, colour, self._px(1), *SMOOTH)
        above = 3 * self._scale
        self._draw_label(name, left, top - above, colour)

    def draw_skeleton(self, skeleton: Skeleton) -> None:
        """Draw bones and joints in their sides' colours; right joints are squares, left ones
        circles.
        """
        thick = self._px(1)
        radius = self._px(1.5) << SUBPIXELS
        for line in skeleton.lines:
            start = _point(line.x1, line.y1)
            end = _point(line.x2, line.y2)
            colour = rgb(SIDE_COLOURS[line.side])
            cv2.line(self._image, start, end, colour, thick, *SMOOTH)
        for dot in skeleton.dots:
            x, y = _point(dot.x, dot.y)
            colour = rgb(SIDE_COLOURS[dot.side])
            if dot.side == "right":
                corner = (x - radius, y - radius)
                opposite = (x + radius, y + radius)
                cv2.rectangle(self._image, corner, opposite, colour, FILLED, *SMOOTH)
            else:
                cv2.circle(self._image, (x, y), radius, colour, FILLED, *SMOOTH)

    def _px(self, length: float) -> int:
        return round(length * self._scale)

    def _draw_label(self, text: str, left: float, bottom: float, colour: Sequence[int]) -> None:
        """Draw a label inside the image and between its captions.

        left, bottom: The preferred place. The label moves up or down by whole lines to avoid those
        drawn before.
        """
        font_scale = FONT_SCALE * self._scale
        (width, height), _ = cv2.getTextSize(text, FONT, font_scale, 1)
        line = height + self._px(4)
        first = self._px(2 * BAND)
        last = self._height - self._px(BAND)
        left = max(0, min(left, self._width - width))
        bottom = round(max(first, min(bottom, last)))

        boxes = []
        n_labels = len(self._labels)
        moves = range(-n_labels, n_labels + 1)
        for n_lines in sorted(moves, key=abs):  # 0 lines down, 1, -1, ...
            y = bottom + n_lines * line
            if n_lines == 0 or first <= y <= last:
                boxes.append(np.array([left, y - line, left + width, y]))
        chosen = boxes[0]  # if all overlap
        for box in boxes:
            if not any(_overlap(box, label) for label in self._labels):
                chosen = box
                break
        self._labels.append(chosen)
        self._draw_text(text, round(left), int(chosen[3]), colour)

    def _draw_text(self, text: str, left: int, bottom: int, colour: Sequence[int] = WHITE) -> None:
        """Draw a text with a black outline, readable on anything."""
        width = self._px(1)

        def draw(x: int, y: int, colour: Sequence[int]) -> None:
            scale = FONT_SCALE * self._scale
            cv2.putText(self._image, text, (x, y), FONT, scale, colour, width, cv2.LINE_AA)

        # Thick letters are no outline in OpenCV 5, where they are wider.
        lefts = (left - width, left + width)
        bottoms = (bottom - width, bottom + width)
        for x, y in itertools.product(lefts, bottoms):
            draw(x, y, BLACK)
        draw(left, bottom, colour)


def _point(x: float, y: float) -> tuple[int, int]:
    """A point in OpenCV's fixed-point format."""
    fixed = np.clip([x, y], -FURTHEST, FURTHEST) * 2**SUBPIXELS
    return round(fixed[0]), round(fixed[1])


def _overlap(box: Array, other: Array) -> bool:
    """Whether two boxes (x, y, x, y) overlap."""
    starts_before = (box[:2] < other[2:]).all()
    ends_after = (other[:2] < box[2:]).all()
    return bool(starts_before and ends_after)
