"""One person's body as a tool, such as WHAM or PHALP, estimated it.  [files of tools] -> bodies

The readers of the tools' files (`pipeline.exchange.bodies.tools`) make one `BodyEstimate` for each
person; `importing` compares it with the clip (`has_size`), undoes the tool's reduction of the clip
(`convert_to_clip`), and matches it with the tracks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from pipeline.skeletons import Doubles, Ints

N_POSE: Final = 72
N_BODY: Final = 66  # numbers of SMPL-X's pelvis to wrists
N_BETAS: Final = 10
_MOST_FPS: Final = 60.0  # PromptHMR leaves out frames until the rate is at most this
ALIKE: Final = 0.02  # largest difference between the scales of width and height of resized images
_OF_FRAMES: Final = (  # fields with one row for each frame
    "frames",
    "pose",
    "betas",
    "trans",
    "boxes",
    "crop_camera",
    "extrinsics",
    "world_root",
    "world_place",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BodyEstimate:
    """One person in N frames of a clip, as a tool estimated it."""

    tool: str
    person: str
    # (N,) from 0, ascending, in the pictures that the tool saw
    frames: Ints
    # (N, 72) of SMPL; of SMPL-X (N, 66) without hands, or (N, 165); axis-angle in rad, in the
    # camera
    pose: Doubles
    betas: Doubles  # (N, 10)
    # (N, 3) m in the camera; None: only `crop_camera`
    trans: Doubles | None = None
    # (3, 3) px; None: the tool assumes the image's diagonal as focal length, and the image's centre
    intrinsics: Doubles | None = None
    size: tuple[int, int] | None = None  # width, height px of the pictures that the tool saw
    # the tool may have resized the images and left out frames; `convert_to_clip` undoes both
    is_reduced: bool = False
    boxes: Doubles | None = None  # (N, 4) cx cy w h px
    # (N, 3) s tx ty of a weak-perspective camera in the crop
    crop_camera: Doubles | None = None
    # (N, 4, 4) m, from a world of all people, whose y is up, to the camera
    extrinsics: Doubles | None = None
    # The same person in a world of its own, whose y is up: (N, 3) rad global orientation, and
    # (N, 3) m the translation, or the middle of the hips.
    world_root: Doubles | None = None
    world_place: Doubles | None = None
    is_place_of_hips: bool = False
    dropped: Mapping[str, int] = field(default_factory=dict)  # reason -> frames

    @property
    def name(self) -> str:
        """The person, as notes name it."""
        return f"{self.tool}'s person {self.person}"

    @property
    def is_smplx(self) -> bool:
        return bool(self.pose.shape[1] != N_POSE)

    def pixel_intrinsics(self, size: tuple[int, int]) -> Doubles:
        """The intrinsics (3, 3) px, stated or assumed, for images of this width and height."""
        if self.intrinsics is not None:
            return self.intrinsics
        return pinhole(float(np.hypot(*size)), size)

    def position(self, size: tuple[int, int], margin: float) -> Doubles:
        """The translation (N, 3) m in the camera: `trans`, or else computed from `crop_camera`.

        The latter is a weak-perspective camera (s, tx, ty) in crops that are `margin` times as
        large as boxes: at the body's depth, the crop's side is 2 / s m. So depth = focal * (2 / s)
        / crop side in px.
        """
        if self.trans is not None:
            return self.trans
        assert self.crop_camera is not None and self.boxes is not None
        scale, x, y = self.crop_camera.T
        box_x, box_y, width, _ = self.boxes.T
        intrinsics = self.pixel_intrinsics(size)
        focal = intrinsics[0, 0]
        depth = 2 * focal / (scale * width * margin)  # m
        m_per_px = depth / focal
        x = x + (box_x - intrinsics[0, 2]) * m_per_px
        y = y + (box_y - intrinsics[1, 2]) * m_per_px
        return np.column_stack([x, y, depth])

    def has_size(self, size: tuple[int, int]) -> bool:
        """Whether the tool saw images of this width and height; True if its size is unknown.

        Images that the tool may have resized need only the same aspect ratio.
        """
        if self.size is None:
            return True
        if not self.is_reduced:
            return self.size == size
        scale_x, scale_y = np.divide(size, self.size)
        return bool(abs(scale_x / scale_y - 1) < ALIKE)

    def convert_to_clip(self, size: tuple[int, int], fps: float) -> BodyEstimate:
        """Convert frame numbers and intrinsics to those of the clip, if the tool reduced the clip.

        A tool that reduces clips (PromptHMR) states a size and intrinsics. size: width and height
        px of the clip. fps: rate of the clip; NaN: unknown, then no frames were left out.
        """
        if not self.is_reduced:
            return self
        assert self.size is not None and self.intrinsics is not None
        scale_x, scale_y = np.divide(size, self.size)
        intrinsics = np.diag([scale_x, scale_y, 1]) @ self.intrinsics
        # The tool keeps the last frame of each `step` frames: 1, 3, 5, ... if step is 2.
        step = math.ceil(max(1.0, fps) / _MOST_FPS)  # max(1.0, NaN) is 1.0
        frames = self.frames * step + (step - 1)
        return replace(self, frames=frames, intrinsics=intrinsics, size=size)

    def only(self, rows: Ints, reason: str) -> BodyEstimate:
        """Keep only these rows; the others are counted as dropped for `reason`."""
        n_left_out = len(self.frames) - len(rows)
        if not n_left_out:
            return self
        chosen = {}
        for name in _OF_FRAMES:
            values = getattr(self, name)
            if values is not None:
                chosen[name] = values[rows]
        dropped = {**self.dropped, reason: self.dropped.get(reason, 0) + n_left_out}
        return replace(self, **chosen, dropped=dropped)


def pinhole(focal: float, size: tuple[int, int]) -> Doubles:
    """The intrinsics (3, 3) px of a camera whose principal point is the middle of the image."""
    width, height = size
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
