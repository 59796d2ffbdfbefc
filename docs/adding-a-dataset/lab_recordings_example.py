"""Render raw files to try `lab_recordings`.  python lab_recordings_example.py FOLDER

Four recordings for training (one with two people, one damaged), and one for validation.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.api import JOINTS, convert
from pipeline.extras.demo.files import mp4_writer
from pipeline.extras.demo.scene import Shot, film, stage
from pipeline.extras.demo.writing import new_folder

RECORDINGS: Final = {"train": ("alone", "broken", "pair", "turned"), "val": ("alone",)}
N_FRAMES: Final = 12
FPS: Final = 25.0
FEET: Final = {
    "lheel": "OP LHeel",
    "ltoes": "OP LBigToe",
    "rheel": "OP RHeel",
    "rtoes": "OP RBigToe",
}
ON_FLOOR_M: Final = 0.08  # height of a joint inside a foot on the ground
HEADER: Final = [
    *("frame", "person"),
    *(f"{joint}_{part}" for joint in JOINTS["coco"] for part in ("x", "y", "score")),
    *FEET,
]


def main(folder: Path) -> None:
    """Write `folder`, complete or not at all, and mark it as demo data."""
    with new_folder(
        folder, {"stand_in": True, "what": "Rendered people in the layout of a lab."}
    ) as partial:
        for split, names in RECORDINGS.items():
            (partial / split).mkdir()
            for number, name in enumerate(names):
                n_people = 2 if name == "pair" else 1
                shot = Shot(
                    "lab_recordings", split, name, number, 0, N_FRAMES, FPS, n_people=n_people
                )
                record(shot, partial / split / name)
        broken = partial / "train" / "broken.mp4"  # a truncated upload
        broken.write_bytes(broken.read_bytes()[:1000])


def record(shot: Shot, file: Path) -> None:
    """Write `file`.mp4 and `file`.csv."""
    take = stage(shot)
    with (
        mp4_writer(file.with_suffix(".mp4"), shot.fps, shot.width, shot.height) as writer,
        file.with_suffix(".csv").open("w", newline="") as stream,
    ):
        table = csv.writer(stream)
        table.writerow(HEADER)
        for frame, filmed in enumerate(film(take)):
            writer.write(np.ascontiguousarray(filmed.image[..., ::-1]))
            for person, (actor, seen) in enumerate(zip(take.actors, filmed.visible, strict=True)):
                joints = np.column_stack([actor.kp_2d[frame], np.where(seen, 0.9, 0.1)])
                coco = convert(joints, source="spin49", target="coco")
                feet = actor.spin49[
                    frame, [JOINTS["spin49"].index(name) for name in FEET.values()], 1
                ]
                contacts = (feet < ON_FLOOR_M).astype(int).tolist()
                table.writerow([frame, person, *coco.ravel().round(3).tolist(), *contacts])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
