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

Lower frame rates: sides are put right in every n-th of the same detections, linked at 60 frames a
second.

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
from pipeline.clips.tracks.sides import put_sides_right
from pipeline.files.packages import provide_wheel
from pipeline.people.skeletons import BLAZE_12, COCO_12, convert
from vibe_model.metrics import pa_mpjpe, procrustes_align

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table
from benchmarks.triangulation import (
    OTHER_SIDE,
    Camera,
    Seen,
    cameras_of,
    offsets,
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
FPS: Final = 60
STEPS: Final = (1, 2, 4, 6)  # every n-th frame
PARTS: Final = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")  # each left, then right
BONES: Final = {"thigh": (6, 8), "shank": (8, 10), "upper arm": (0, 2), "forearm": (2, 4)}  # left
SHOULDERS: Final = [0, 1]
HIPS: Final = [6, 7]


def main() -> None:
    """Run the commands, compare, print, and write the page."""
    options = parser(__doc__)
    options.add_argument("--at", type=Path, help="folder that keeps clips and cache, 200 MB")
    args = options.parse_args()
    about = (
        "Estimates from single clips beside what other cameras show: the same network, no markers."
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.at or Path(temporary)
        calibrations = prepare(folder)
        lines = [*_results(folder, calibrations)]
    report(about, "How right are joints and bodies of a clip?", lines, args)


def prepare(folder: Path) -> dict[str, list[Camera]]:
    """Unpack the recordings and run the usual commands. Returns the cameras of each recording."""
    calibrations = {}
    with provide_wheel(*PACKAGE, sha256=SHA256) as wheel, zipfile.ZipFile(wheel) as files:
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
    run("convert", SPLIT, "--raw", raw, "--cache", str(folder / "as_detected"),
        "--set", "videos.put_sides_right=false")  # fmt: skip
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


class _Compared(NamedTuple):
    """One camera's rows of people whom two or more other cameras see, in the order of frames."""

    rows: Ints  # (N,) of the split
    exchanged: Bools  # (N,) whether the camera's network exchanged left and right
    truth: Doubles  # (N, 12, 3) m, by the other cameras, in this camera's axes
    # (N, 3, 12, 2) px from the truth to what is seen a frame earlier, at the time, a frame later
    offsets: Doubles


def _results(folder: Path, calibrations: Mapping[str, list[Camera]]) -> Iterator[str]:
    """The tables."""
    split = cache.open(folder / "cache")[SPLIT]
    listed = json.loads((folder / "bodies/bodies.json").read_bytes())["tracks"]
    bodies = _joints_of_bodies(split, folder / "bodies", listed)
    estimates = Estimates(_joints_of(split), bodies)
    compared = _compare_all(split, calibrations)
    detected = cache.open(folder / "as_detected")[SPLIT]
    yield from _by_rate(detected, split, _compare_all(detected, calibrations))
    yield from _by_camera(compared, estimates)
    yield from _by_joint(compared, estimates)
    yield from _by_track(split, compared, estimates, listed)


def _joints_of(split: cache.Split) -> Doubles:
    """The 12 joints (rows, 12, 3) m of the stream."""
    stream = np.asarray(split.column(f"features/{STREAM}"), np.float64).reshape(-1, 33, 4)
    return stream[:, BLAZE_12, :3]


def _compare_all(
    split: cache.Split, calibrations: Mapping[str, list[Camera]]
) -> dict[str, _Compared]:
    """`compare` of all clips, by recording and camera."""
    compared = {}
    for recording, cameras in calibrations.items():
        for camera, rows in enumerate(compare(split, recording, cameras)):
            compared[f"{recording}/{CAMERAS[camera]}"] = rows
    return compared


def _by_rate(
    detected: cache.Split, split: cache.Split, compared: Mapping[str, _Compared]
) -> Iterator[str]:
    """Exchanged sides, and errors of the joints, if there is only every n-th frame.

    detected: the split with the sides as detected, by which `compared` is; with equal rows.
    """
    yield "## By frame rate"
    yield ""
    yield "Rows with exchanged sides; PA-MPJPE of the joints, mm."
    yield ""
    yield (
        "two/cam03 keeps its exchanged sides: within 0.1 s the shoulders pass each other, as those "
        "of somebody who turns. Faces do not tell: seen from behind, they have confidences above "
        "0.9. Where all of a face has, and the shoulders are wide, its sign is wrong in nearly all "
        "such rows of 6 of 12 tracks."
    )
    yield ""
    joints = _joints_of(split)
    keypoints = _coco_of(detected)
    at_full_rate = _is_other_way(_coco_of(split), keypoints)
    frames = np.asarray(detected.column("frame_index"))
    cells = {name: [f"{of.exchanged.mean():.0%}"] for name, of in compared.items()}
    for step in STEPS:
        is_used = frames % step == 0
        is_turned = np.zeros(len(frames), bool)
        for track in detected.tracks:
            rows = track.start + np.flatnonzero(is_used[track.start : track.stop])
            numbers = frames[rows]
            sides = put_sides_right(keypoints[rows], numbers, numbers / FPS, "coco", {})
            is_turned[rows] = _is_other_way(sides.keypoints, keypoints[rows])
        for name, of in compared.items():
            chosen = is_used[of.rows]
            rows = of.rows[chosen]
            exchanged = of.exchanged[chosen] ^ is_turned[rows]
            estimated = _put_right(joints[rows], is_turned[rows] ^ at_full_rate[rows])
            error = pa_mpjpe(estimated, of.truth[chosen]).mean()
            cells[name].append(f"{exchanged.mean():.0%}; {error:.0f}")
    header = ("clip", "as detected", *(f"{FPS // step} fps" for step in STEPS))
    yield from table(header, [(name, *texts) for name, texts in cells.items()])
    yield ""


def _coco_of(split: cache.Split) -> Doubles:
    """The keypoints (rows, 17, 3) in COCO's order."""
    kp_2d = np.asarray(split.column("kp_2d"), np.float64)
    return convert(kp_2d, source="spin49", target="coco")


def _is_other_way(keypoints: Doubles, others: Doubles) -> Bools:
    """(T,) whether most of the 12 joints of (T, 17, 3) differ: all sides are exchanged."""
    differs = (keypoints[:, COCO_12] != others[:, COCO_12]).any(axis=-1)
    is_whole: Bools = differs.mean(axis=1) > 0.5
    return is_whole


def compare(split: cache.Split, recording: str, cameras: Sequence[Camera]) -> list[_Compared]:
    """Each camera's rows beside what the others see."""
    names = [f"{recording}/{name}.mp4" for name in CAMERAS]
    all_names = [video.name for video in split.videos]
    videos = [all_names.index(name) for name in names]
    seen = [seen_by(split, video, camera) for video, camera in zip(videos, cameras, strict=True)]
    by_row = dict[int, Seen]()
    for of_camera in seen:
        for some in of_camera.values():
            by_row.update((person.row, person) for person in some)
    found: list[list[tuple[int, bool, Doubles, Doubles]]] = [[] for _ in cameras]
    earlier = list[Doubles]()
    for frame in sorted(set().union(*seen)):
        people = people_of(cameras, [by_frame.get(frame, []) for by_frame in seen], earlier)
        earlier = [person.joints for person in people]
        for person in people:
            for own in person.seen:
                truth = truth_for(cameras, person, own)
                if truth is None:
                    continue
                row = person.seen[own].row
                pixels = _shifted_offsets(split, by_row, row, cameras[own], truth)
                in_camera = to_camera(cameras[own], truth)
                found[own].append((row, person.exchanged[own], in_camera, pixels))
    return [_Compared(*map(np.array, zip(*rows, strict=True))) for rows in found]


def _shifted_offsets(
    split: cache.Split, by_row: Mapping[int, Seen], row: int, camera: Camera, truth: Doubles
) -> Doubles:
    """What the camera sees one frame before, at the same time, and one frame after, less the truth
    (3, 12, 2) px, by the nearer sides; nan where the track has no such row.
    """
    track = split.tracks[int(split.track_of(np.array([row]))[0])]
    found = np.full((3, 12, 2), np.nan)
    for place, shift in enumerate((-1, 0, 1)):
        if track.start <= row + shift < track.stop and row + shift in by_row:
            points = by_row[row + shift].points
            either = [offsets(camera, truth, points[order]) for order in (range(12), OTHER_SIDE)]
            found[place] = min(either, key=np.linalg.norm)
    return found


def _joints_of_bodies(
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


def _put_right(joints: Doubles, exchanged: Bools) -> Doubles:
    """Joints (N, 12, 3) whose left and right are exchanged where the network has exchanged them."""
    right = joints.copy()
    right[exchanged] = joints[exchanged][:, OTHER_SIDE]
    return right


def hip_mpjpe(joints: Doubles, truth: Doubles) -> float:
    """Mean distance, mm, of joints (N, 12, 3) m, both relative to the middle of the hips."""
    apart = joints - truth
    apart -= apart[:, HIPS].mean(axis=1, keepdims=True)
    return float(1000 * np.linalg.norm(apart, axis=-1).mean())


def _by_camera(compared: Mapping[str, _Compared], estimates: Estimates) -> Iterator[str]:
    """Errors of each clip's joints and bodies."""
    yield "## By camera"
    yield ""
    rows = []
    for name, of in compared.items():
        joints = estimates.joints[of.rows]
        right = _put_right(joints, of.exchanged)
        bodies = estimates.bodies[of.rows]
        right_bodies = _put_right(bodies, of.exchanged)
        distance = np.median(np.linalg.norm(of.offsets[:, 1], axis=-1))
        # about their mean: points that are marked too high in all frames say nothing of the time
        varying = of.offsets - np.nanmean(of.offsets[:, 1], axis=0)
        shifted = "; ".join(f"{px:.1f}" for px in np.sqrt(np.nanmean(varying**2, axis=(0, 2, 3))))
        rows.append(
            (
                name,
                len(of.rows),
                f"{of.exchanged.mean():.0%}",
                f"{distance:.0f}",
                shifted,
                f"{pa_mpjpe(joints, of.truth).mean():.0f}",
                f"{pa_mpjpe(right, of.truth).mean():.0f}",
                f"{hip_mpjpe(right, of.truth):.0f}",
                f"{pa_mpjpe(bodies, of.truth).mean():.0f}",
                f"{pa_mpjpe(right_bodies, of.truth).mean():.0f}",
                f"{hip_mpjpe(right_bodies, of.truth):.0f}",
            )
        )
    header = (
        "clip",
        "rows",
        "sides exchanged",
        "px from the truth",
        "their spread, px: frame before; same; next",
        "joints PA-MPJPE",
        "sides put right",
        "MPJPE",
        "bodies PA-MPJPE",
        "sides put right",
        "MPJPE",
    )
    yield from table(header, rows)
    yield ""


def _by_joint(compared: Mapping[str, _Compared], estimates: Estimates) -> Iterator[str]:
    """Errors of each joint after the alignment, sides put right."""
    yield "## By joint"
    yield ""
    yield "Mean distances in mm after the alignment, with the sides put right."
    yield ""
    rows = []
    for name, of in compared.items():
        right = _put_right(estimates.joints[of.rows], of.exchanged)
        distances = np.linalg.norm(procrustes_align(right, of.truth) - of.truth, axis=-1)
        by_part = 1000 * distances.reshape(-1, 6, 2).mean(axis=(0, 2))
        lengths = _lengths_of(right).mean(axis=0) / _lengths_of(of.truth).mean(axis=0)
        rows.append(
            (
                name,
                *(f"{distance:.0f}" for distance in by_part),
                *(f"{ratio:.2f}" for ratio in lengths),
            )
        )
    yield from table(("clip", *PARTS, *(f"{bone} / true" for bone in BONES)), rows)
    yield ""


def _lengths_of(joints: Doubles) -> Doubles:
    """Lengths (N, bones) m, means of both sides."""
    lengths = []
    for start, end in BONES.values():
        left = np.linalg.norm(joints[:, start] - joints[:, end], axis=-1)
        right = np.linalg.norm(joints[:, start + 1] - joints[:, end + 1], axis=-1)
        lengths.append((left + right) / 2)
    return np.stack(lengths, axis=1)


def stature(joints: Doubles) -> float:
    """Median length, m, from the ankles over knees and hips to the shoulders."""
    legs = _lengths_of(joints)[:, :2].sum(axis=1)
    trunk = joints[:, SHOULDERS].mean(axis=1) - joints[:, HIPS].mean(axis=1)
    return float(np.median(legs + np.linalg.norm(trunk, axis=-1)))


def _by_track(
    split: cache.Split,
    compared: Mapping[str, _Compared],
    estimates: Estimates,
    listed: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    """Grades and heights beside errors."""
    yield "## Grades and heights by track"
    yield ""
    yield (
        "True height: the body's, times the true length from ankles over knees and hips to the "
        "shoulders, divided by the body's."
    )
    yield ""
    entries = {entry["name"]: entry for entry in listed}
    rows = []
    for of in compared.values():
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
        "bodies PA-MPJPE",
        "height, m",
        "true height, m",
    )
    yield from table(header, rows)


if __name__ == "__main__":
    main()
