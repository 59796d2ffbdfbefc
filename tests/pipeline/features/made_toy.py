"""Two videos of a still scene and three persons, with streams of every kind."""

from __future__ import annotations

import shutil

import cv2
import numpy as np

import cache
from pipeline.processes.settings import Resources
from pipeline.steps.extraction.extract import extract_together
from pipeline.steps.extraction.plan import plan_extraction
from tests.made_splits import track_of
from tests.pipeline.features.made_pictures import write_split

SPLIT = "toy/train"


SIDE, N = 96, 10  # px, frames a video


RNG = np.random.default_rng(2)


SCENE = cv2.GaussianBlur(RNG.integers(0, 256, (SIDE + 60, SIDE + 60, 3), np.uint8), (0, 0), 2)


def picture(frame):
    """A still scene, seen by a camera that moves by 2 and 1 px a frame."""
    return SCENE[frame : frame + SIDE, 2 * frame : 2 * frame + SIDE]


def make_track(name, change=lambda name, columns: None):
    """One person's rows; `change` edits its columns, its crop scale and its step."""
    person = int(name[-1])
    frame = np.arange(N) if name[0] == "a" else np.delete(np.arange(N), 5)
    kp_2d = np.ones((len(frame), 49, 3), np.float32)
    kp_2d[..., :2] = np.random.default_rng(person + 5).uniform(20, 80, (len(frame), 49, 2))
    box = np.array([40 + 10 * person, 50, 50, 60], np.float32)
    about = {"frame_index": frame, "bbox": np.tile(box, (len(frame), 1)), "kp_2d": kp_2d}
    about |= {"crop_scale": 1.2, "step": 1}
    change(name, about)
    runs = {"crop_scale": float(about.pop("crop_scale")), "step": about.pop("step")}
    return track_of(name, about, fps=30.0, **runs)


class Toy:
    """Two videos: `a` of two persons, `b` of one, whose frame 5 is missing. `change` edits a
    track's columns.
    """

    def __init__(self, folder):
        self.raw, self.root = folder / "raw", folder / "cache"

    def film(self):
        for video in "ab":
            (self.raw / video).mkdir(parents=True)
            for frame in range(N):
                cv2.imwrite(str(self.raw / f"{video}/{frame:06d}.png"), picture(frame)[..., ::-1])

    def copy(self, folder):
        """Pictures and cache in another folder."""
        copied = Toy(folder)
        shutil.copytree(self.raw, copied.raw)
        shutil.copytree(self.root, copied.root)
        provenance = copied.root / SPLIT / "provenance.json"
        provenance.write_text(provenance.read_text().replace(str(self.raw), str(copied.raw)))
        return copied

    def convert(self, change=lambda name, columns: None):
        """All of it, as conversion does: in place of what is there."""
        persons = {"a": ("a/0", "a/1"), "b": ("b/0",)}
        tracks = {video: [make_track(name, change) for name in of] for video, of in persons.items()}
        write_split(self.root, SPLIT, self.raw, tracks, plan=str(id(change)))

    def extract(self, *specs, workers=2, batch_size=4):
        plans = [plan_extraction(self.root, SPLIT, spec) for spec in specs]
        done = extract_together(plans, Resources(workers=workers, batch_size=batch_size))
        return {extraction.work.spec.name: extraction for extraction in done}

    def rows(self, name):
        split = cache.open(self.root)[SPLIT]
        return {track.name: split.rows(name, track.start, track.stop) for track in split.tracks}
