"""How far from the truth are the joints and bodies that the default commands find in a clip?

    .venv/bin/python benchmarks/accuracy.py --out benchmarks/accuracy.md

The package pose2sim 0.10.49 (BSD-3-Clause, perfanalytics) has two recordings by four calibrated,
synchronised cameras: one person, and two people, 100 frames each. Its wheel is fetched with pip.
Each camera's clip is prepared by itself with the usual commands: `blaze_pose` in every frame,
`blaze_joints`, `bodies`. No clip knows of the others.

The truth is made of the same clips. In each frame, people of the cameras are paired by their limbs'
middles (of left and right), which an exchange of the sides does not move. The sides of each
camera are those with the least reprojection error of all cameras together; most cameras are right
about the sides. A camera is compared with joints that the *other* cameras give: the points that
are nearest to their rays, weighted by confidence, with the lenses' distortion undone. So the truth
rests on the same network's points in images, seen from other places: it knows nothing of an error
that all cameras share, such as a hip that is marked too high, and there are no markers.

PA-MPJPE and MPJPE (about the middle of the hips) are of 12 joints, from shoulders to ankles, in mm.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.__main__ import main as pipeline
from pipeline.files.packages import open_wheel
from pipeline.skeletons import BLAZE_12, COCO_12
from vibe_model.metrics import pa_mpjpe

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table
from benchmarks.triangulation import (
    Camera,
    cameras_of,
    people_of,
    seen_by,
    to_camera,
    truth_for,
)

Bools = NDArray[np.bool_]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

PACKAGE: Final = ("pose2sim", "0.10.49")
SHA256: Final = "403e0dc4065898ba6a595e72a8970950310979253d60e24c2e00b16b36bf21e1"
RECORDINGS: Final = {"one": "Demo_SinglePerson", "two": "Demo_MultiPerson"}
CAMERAS: Final = ("cam01", "cam02", "cam03", "cam04")
SPLIT: Final = "videos/train"
STREAM: Final = "blaze_joints"
LEGS: Final = [(6, 8), (8, 10), (7, 9), (9, 11)]  # thigh and shank, left and right
SHOULDERS: Final = [0, 1]
HIPS: Final = [6, 7]


def main() -> None:
    """Run the commands, compare, print, and write the page."""
    options = parser(__doc__, at="clips, cache and bodies, 200 MB")
    args = options.parse_args()
    about = (
        "Estimates from single clips beside what other cameras show: the same network, no markers."
    )
    with tempfile.TemporaryDirectory(dir=args.at) as temporary:
        folder = args.at or Path(temporary)
        calibrations = prepare(folder)
        lines = [*results(folder, calibrations)]
    report(about, "How right are joints and bodies of a clip?", lines, args)


def prepare(folder: Path) -> dict[str, list[Camera]]:
    """Unpack the recordings and run the usual commands. Returns the cameras of each recording."""
    calibrations = {}
    with open_wheel(*PACKAGE, sha256=SHA256) as wheel, zipfile.ZipFile(wheel) as files:
        for recording, demo in RECORDINGS.items():
            clips = folder / "clips" / recording
            clips.mkdir(parents=True, exist_ok=True)
            for camera in CAMERAS:
                content = files.read(f"Pose2Sim/{demo}/videos/{camera}.mp4")
                (clips / f"{camera}.mp4").write_bytes(content)
            calibration = files.read(f"Pose2Sim/{demo}/calibration/Calib.qca.txt")
            calibrations[recording] = cameras_of(calibration)
    raw = str(folder / "clips")
    root = str(folder / "cache")
    run("prepare", "videos", "--raw", raw, "--cache", root, "--detector", "blaze_pose",
        "--every", "1", "--stream", STREAM)  # fmt: skip
    run("bodies", SPLIT, "--cache", root, "--out", str(folder / "bodies"), "--no-overlay")
    return calibrations


def run(*words: str) -> None:
    """Run a command of the pipeline."""
    code = pipeline(list(words))
    if code:
        raise SystemExit(f"accuracy: `{' '.join(words)}` ended with {code}")


class Estimates(NamedTuple):
    """What the commands estimate for each row of the split, m, in the camera's axes."""

    joints: Doubles  # (rows, 12, 3) of the stream
    bodies: Doubles  # (rows, 12, 3) of the fitted bodies


class Compared(NamedTuple):
    """One camera's rows of people whom two or more other cameras see, in the order of frames."""

    rows: Ints  # (N,) of the split
    exchanged: Bools  # (N,) whether the camera's network exchanged left and right
    truth: Doubles  # (N, 12, 3) m, by the other cameras, in this camera's axes


def results(folder: Path, calibrations: Mapping[str, list[Camera]]) -> Iterator[str]:
    """The tables."""
    split = cache.open(folder / "cache")[SPLIT]
    listed = json.loads((folder / "bodies/bodies.json").read_bytes())["tracks"]
    bodies = joints_of_bodies(split, folder / "bodies", listed)
    stream = np.asarray(split.column(f"features/{STREAM}"), np.float64).reshape(-1, 33, 4)
    estimates = Estimates(stream[:, BLAZE_12, :3], bodies)
    compared = []
    for recording, cameras in calibrations.items():
        compared += compare(split, recording, cameras)
    yield from by_track(split, compared, estimates, listed)


def compare(split: cache.Split, recording: str, cameras: Sequence[Camera]) -> list[Compared]:
    """Each camera's rows beside what the others see."""
    names = [f"{recording}/{name}.mp4" for name in CAMERAS]
    all_names = [video.name for video in split.videos]
    videos = [all_names.index(name) for name in names]
    seen = [seen_by(split, video, camera) for video, camera in zip(videos, cameras, strict=True)]
    found: list[list[tuple[int, bool, Doubles]]] = [[] for _ in cameras]
    earlier = list[Doubles]()
    for frame in sorted(set().union(*seen)):
        people = people_of(cameras, [by_frame.get(frame, []) for by_frame in seen], earlier)
        earlier = [person.joints for person in people]
        for person in people:
            for own in person.seen:
                truth = truth_for(cameras, person, own)
                if truth is None:
                    continue
                in_camera = to_camera(cameras[own], truth)
                found[own].append((person.seen[own].row, person.exchanged[own], in_camera))
    return [Compared(*map(np.array, zip(*rows, strict=True))) for rows in found]


def joints_of_bodies(
    split: cache.Split, folder: Path, listed: Sequence[Mapping[str, Any]]
) -> Doubles:
    """The 12 joints (rows, 12, 3) m of the fitted bodies, which bodies.json lists; nan without a
    body.
    """
    joints = np.full((int(split.manifest["rows"]), 12, 3), np.nan)
    tracks = {track.name: track for track in split.tracks}
    for entry in listed:
        track = tracks[entry["name"]]
        body = np.load(folder / entry["file"], allow_pickle=False)
        frames = split.rows("frame_index", track.start, track.stop)
        rows = track.start + np.searchsorted(frames, body["frame_index"])
        joints[rows] = body["keypoints"][:, COCO_12]
    return joints


def hip_mpjpe(joints: Doubles, truth: Doubles) -> float:
    """Mean distance, mm, of joints (N, 12, 3) m, both relative to the middle of the hips."""
    apart = joints - truth
    apart -= apart[:, HIPS].mean(axis=1, keepdims=True)
    return float(1000 * np.linalg.norm(apart, axis=-1).mean())


def stature(joints: Doubles) -> float:
    """Median length, m, from the ankles over knees and hips to the shoulders."""
    upper, lower = np.transpose(LEGS)
    legs = np.linalg.norm(joints[:, upper] - joints[:, lower], axis=-1).sum(axis=1) / 2
    trunk = joints[:, SHOULDERS].mean(axis=1) - joints[:, HIPS].mean(axis=1)
    return float(np.median(legs + np.linalg.norm(trunk, axis=-1)))


def by_track(
    split: cache.Split,
    compared: Sequence[Compared],
    estimates: Estimates,
    listed: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    """Grades and heights beside errors."""
    yield (
        "True height: the body's, times the true length from ankles over knees and hips to the "
        "shoulders, divided by the body's."
    )
    yield ""
    entries = {entry["name"]: entry for entry in listed}
    rows = []
    for of in compared:
        tracks = split.track_of(of.rows)
        for number in np.unique(tracks):
            chosen = tracks == number
            truth = of.truth[chosen]
            joints = estimates.joints[of.rows[chosen]]
            bodies = estimates.bodies[of.rows[chosen]]
            name = split.tracks[int(number)].name
            entry = entries[name]
            height = entry["height_m"]
            true_height = height and f"{height * stature(truth) / stature(bodies):.2f}"
            rows.append(
                (
                    name,
                    int(chosen.sum()),
                    entry["grade"],
                    "; ".join(entry["grade_reasons"]),
                    f"{of.exchanged[chosen].mean():.0%}",
                    f"{pa_mpjpe(joints, truth).mean():.0f}",
                    f"{hip_mpjpe(joints, truth):.0f}",
                    f"{pa_mpjpe(bodies, truth).mean():.0f}",
                    height,
                    true_height,
                )
            )
    header = (
        "track",
        "rows",
        "grade",
        "reasons",
        "sides exchanged",
        "joints PA-MPJPE",
        "MPJPE",
        "bodies PA-MPJPE",
        "height, m",
        "true height, m",
    )
    yield from table(header, rows)


if __name__ == "__main__":
    main()
