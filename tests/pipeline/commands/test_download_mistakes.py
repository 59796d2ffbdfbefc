"""Mistakes with downloads: what `doctor`, `convert` and `prepare` say of each, and their exit
codes.

Each mistake is planted in a copy of demo data without its mark. A message must name the place and
the cause; the exit code is 0 if all else could be used, 1 if a part is missing or nothing could be
used, 2 if nothing was tried.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import pytest

from tests.pipeline.datasets.made_h36m_json import write_scene

GZIP = b"\x1f\x8b\x08" + bytes(50)

PENN, POSE, MPI, H36M, PW = "penn_action", "posetrack", "mpi_inf_3dhp", "h36m", "3dpw"

CONVERT_PENN = "convert penn_action/train"
JSON = "json"  # Human3.6M in 3DMPPE's layout

Plant = Callable[[Path], Any]  # changes the folder raw/<dataset>


class Mistake(NamedTuple):
    """`command` is run with --raw and, to convert, --cache. RAW stands for the raw folder in
    `words`.
    """

    command: str
    dataset: str  # of the demo data in the raw folder, or "dataset -> folder"; "": none
    plant: Plant
    code: int
    words: tuple[str, ...]


def nothing(_):
    """The mistake is in the command, or in the folder's name."""


def touch(*names):
    def plant(folder):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()

    return plant


def drop(glob):
    """Remove files and folders."""

    def plant(folder):
        for path in sorted(folder.glob(glob)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return plant


def halve(glob, start=0.5):
    """Remove half of the images in the first folder, from a part of them on."""

    def plant(folder):
        images = sorted(min(folder.glob(glob)).iterdir())
        first = int(start * len(images))
        for image in images[first : first + (len(images) + 1) // 2]:
            image.unlink()

    return plant


def nest(name):
    """Put a folder into one of the same name."""

    def plant(folder):
        (folder / name).rename(folder / "moved")
        (folder / name).mkdir()
        (folder / "moved").rename(folder / name / name)

    return plant


def rename(glob, new):
    def plant(folder):
        for path in sorted(folder.glob(glob)):
            path.rename(path.with_name(new(path)))

    return plant


def put(glob, content=None, *, every=False):
    """Replace the content of the first file (`every`: of all); None: its first half stays."""

    def plant(folder):
        files = sorted(folder.glob(glob))
        for file in files if every else files[:1]:
            before = file.read_bytes()
            file.write_bytes(before[: len(before) // 2] if content is None else content)

    return plant


def shrink(glob):
    def plant(folder):
        for file in folder.glob(glob):
            cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), None, fx=0.5, fy=0.5))

    return plant


def link(name, target):
    def plant(folder):
        shutil.rmtree(folder / name, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)

    return plant


def mistake(command, plant, code, *words, data=None):
    """data: where it is not the dataset that the command names."""
    named = command.split()[1].partition("/")[0]
    return Mistake(command, named if data is None else data, plant, code, words)


def moved(name, *folders, data=""):
    """The download under other names, and a level deeper."""
    for folder in folders:
        where = f"not in RAW/{name} but in RAW/{folder}."
        advice = f"Move the contents of RAW/{folder} to RAW/{name}."
        if "/" not in folder:
            advice = f"rename it: mv RAW/{folder} RAW/{name}."
        data_there = f"{data or name} -> {folder}"
        yield mistake(f"doctor {name}", nothing, 1, where, advice, data=data_there)


def one_off(name, what, folder, *others):
    """A part of the download in a folder of another name, or one level higher."""
    for other in others:

        def plant(raw, other=other):
            (raw / folder).rename(raw / "moved")
            if not (raw / other).exists():
                (raw / "moved").rename(raw / other)
                return
            for path in (raw / "moved").iterdir():
                path.rename(raw / other / path.name)

        words = f"{what}: not in RAW/{name}/{folder} but in RAW/{name}/{other}."
        yield mistake(f"doctor {name}", plant, 1, words)


def packed(name, file, *words):
    is_packed = f"{file} is still packed"
    return mistake(f"doctor {name}", touch(f"{name}/{file}"), 1, is_packed, *words, data="")


def half(name, glob, start=0.5):
    words = (f"! RAW/{name}/", " images. Unpack the images again")
    return mistake(f"doctor {name}", halve(glob, start), 1, *words)


MISTAKES = [
    *moved(POSE, "PoseTrack21", "PoseTrack2018", "posetrack18", "posetrack/PoseTrack21"),
    *moved(H36M, "Human36M", "human3.6m", "Human3.6M", "H36M", "h36m/Human36M"),
    *moved(PENN, "Penn_Action", "penn_action/Penn_Action"),
    mistake(
        "doctor h36m",
        nest("images"),
        1,
        "RAW/h36m/images/images is a folder in one of the same name",
        data=JSON,
    ),
    mistake(
        "doctor penn_action --raw RAW/penn_action", nothing, 1, "Name the folder above: --raw RAW."
    ),
    mistake(
        "convert penn_action/train --raw RAW", nothing, 2, "Did you mean --raw RAW/penn_action?"
    ),
    mistake(
        "doctor penn_action",
        touch("penn_action"),
        1,
        "RAW/penn_action is a file. Unpack it",
        data="",
    ),
    mistake(
        CONVERT_PENN,
        touch("penn_action"),
        2,
        "--raw RAW/penn_action: is a file. Unpack it",
        data="",
    ),
    mistake(
        "doctor penn_action",
        link("penn_action", "/gone/disk"),
        1,
        "is a link to /gone/disk, which does not exist",
        data="",
    ),
    mistake(
        "doctor penn_action",
        link("penn_action", "penn_action"),
        1,
        "is a link to penn_action, which leads in a circle",
        data="",
    ),
    mistake(
        CONVERT_PENN,
        link("penn_action", "penn_action"),
        2,
        "is a link to penn_action, which leads in a circle",
        data="",
    ),
    mistake(CONVERT_PENN, link("penn_action", "/gone/disk"), 2, "is a link to /gone/disk", data=""),
    mistake(
        "doctor penn_action",
        link("frames", "/gone/disk"),
        1,
        "penn_action/frames is a link to /gone/disk",
    ),
    mistake(
        "doctor h36m",
        touch("h36m/S1/MyPoseFeatures/D3_Positions/a"),
        1,
        "is in the world's axes and not",
        data="",
    ),
    packed(
        POSE,
        "posetrack18_images.tar.aa",
        "Join its pieces first: cat RAW/posetrack/posetrack18_images.tar.*",
    ),
    packed(H36M, "images.tar.gzaa", "Join its pieces first: cat RAW/h36m/images.tar.gz*"),
    packed(MPI, "S1/Seq1/imageSequence/vnect_cameras.zip", "Unpack it in its own folder"),
    half(POSE, "images/train/*"),
    mistake(
        "doctor h36m",
        halve("images/*"),
        1,
        "! RAW/h36m/images/s_01",
        "8 of 16 images. Unpack the images",
        data=JSON,
    ),
    half(MPI, "S*/Seq*/imageFrames/*", 0),
    half(PENN, "frames/*"),
    mistake("doctor penn_action", drop("frames/0001/*"), 1, "frames/0001 has 0 of 8 images"),
    mistake(
        "doctor posetrack",
        drop("posetrack_data"),
        1,
        "missing: training annotations, validation ann",
    ),
    mistake(
        "doctor penn_action",
        drop("labels/*"),
        1,
        "missing: label files",
        "get     Penn_Action.tar.gz",
    ),
    mistake(CONVERT_PENN, drop("labels"), 2, "labels: expected a folder with <0001>.mat label"),
    mistake(
        "convert posetrack/train", drop("images"), 2, "images/train: expected a folder with <seq>/"
    ),
    mistake(
        "convert 3dpw/train", drop("imageFiles"), 1, "no_picture", "expected 10 images, found none"
    ),
    mistake(
        "convert kinetics/train",
        drop("keypoints"),
        1,
        "no keypoints in RAW/kinetics/keypoints: run",
    ),
    mistake(
        "doctor penn_action",
        rename("labels/*", lambda f: f.stem + ".MAT"),
        1,
        "0001.MAT differs in cap",
    ),
    mistake(
        "doctor penn_action",
        rename("frames/*/*", lambda f: f.stem + ".JPG"),
        1,
        "001.JPG differs in cap",
    ),
    mistake(
        "doctor posetrack",
        rename("images/train", lambda _: "Train"),
        1,
        "images/Train/",
        "in capitals",
    ),
    mistake(
        "convert posetrack/train",
        rename("images/*/*/*", lambda f: f"x{f.name}"),
        1,
        "such as x000000.jpg",
    ),
    mistake(
        "convert posetrack/train",
        rename("images/*/*/*", lambda f: f"{f.stem}.png"),
        1,
        "as 000000.png",
    ),
    mistake(CONVERT_PENN, rename("frames/*", lambda f: f.name[1:]), 1, "no_picture", "no_label"),
    mistake(
        "convert h36m/train",
        rename("S*/*/D3*", lambda _: "D3_Positions"),
        1,
        "found 2D alone. Unpack",
    ),
    mistake(CONVERT_PENN, shrink("frames/*/*"), 1, "other_picture_size", "240 x 135"),
    mistake(
        "convert 3dpw/train",
        shrink("imageFiles/*/*"),
        1,
        "other_picture_size",
        "without resizing images",
    ),
    mistake(CONVERT_PENN, put("frames/0001/*", b"", every=True), 0, "no_picture", "(0 bytes)"),
    mistake(CONVERT_PENN, touch("labels/0001.mat:Zone.Identifier"), 0, "3 kept of 3"),
    mistake(CONVERT_PENN, touch("__MACOSX/._a", "labels/._0001.mat"), 0, "3 kept of 3"),
    mistake("convert insta_variety/train", put("train/*", GZIP), 0, "compressed with gzip"),
    *one_off(
        PW, "sequences of train", "sequenceFiles/train", "sequenceFiles/training", "sequenceFiles"
    ),
    *one_off(POSE, "training pictures", "images/train", "images/training", "images"),
    *one_off("kinetics", "clips of train with keypoints", "keypoints/train", "keypoints"),
    *one_off("kinetics", "clips of train", "train", "clips"),
    *one_off(MPI, "test labels, test pictures", "mpi_inf_3dhp_test_set", "test_set"),
    mistake(
        "doctor 3dpw",
        touch(*(f"sequenceFiles/train/{number}.pkl" for number in range(30))),
        1,
        "sequences of train: the release has 24, found 31. Are two releases or splits mixed",
    ),
    mistake(
        "doctor videos --raw RAW/clips",
        touch("clips/a.mp4", "keypoints/a.json"),
        0,
        "RAW/keypoints is beside RAW/clips. Move it there",
        data="",
    ),
]


def write(embedded, mistake, raw):
    """The demo data of a mistake in `raw`, with the mistake."""
    name, _, folder = mistake.dataset.partition(" -> ")
    if not name:
        mistake.plant(raw)
        return
    place = raw / (folder or name.replace(JSON, H36M))
    if name == JSON:
        for take in embedded.takes("h36m")[:2]:
            write_scene(take, place, is_place=False, fits="smpl_param")
    else:
        embedded.copy(name, place)
        (place / "STAND_IN.json").unlink()
    mistake.plant(place)


@pytest.mark.parametrize(
    "mistake", MISTAKES, ids=[f"{i}-{m.command.split()[1]}" for i, m in enumerate(MISTAKES)]
)
def test_a_mistake_with_a_download_is_named_with_its_place_cause_and_cure(
    mistake, embedded, tmp_path, run, capsys
):
    raw = tmp_path / "raw"
    raw.mkdir()
    write(embedded, mistake, raw)
    verb, name, *given = mistake.command.replace("RAW", str(raw)).split()
    words = [verb, name, *given]
    if not given:
        words += ["--raw", str(raw if verb == "doctor" else raw / name.partition("/")[0])]
    if verb != "doctor":
        words += ["--cache", str(tmp_path / "cache")]
    if verb == "convert":
        words += ["--workers", "1"]
    code = run(*words)
    printed = capsys.readouterr()
    shown = " ".join((printed.out + printed.err).split()).replace(str(raw), "RAW")
    assert [word for word in mistake.words if " ".join(word.split()) not in shown] == [], shown
    assert code == mistake.code, shown
    assert "Traceback" not in shown
