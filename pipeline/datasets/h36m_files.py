"""Where the files of Human3.6M lie, by names alone, and what is known to go wrong with them.  [raw] -> tracks

A sequence is called "<action>[ <n>].<camera>": "Walking 1.54138969". Its files have that name, with blanks in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pipeline.datasets.base import RawVideo
from pipeline.datasets.pixels import inputs
from pipeline.datasets.release import Mistake, Part

SUBJECTS: Final[Mapping[str, tuple[str, ...]]] = {"train": ("S1", "S5", "S6", "S7", "S8"), "val": ("S9", "S11")}
VIDEOS: Final = "Videos"
POSES_2D, POSES_3D = "MyPoseFeatures/D2_Positions", "MyPoseFeatures/D3_Positions_mono"
PICTURES: Final = ("images", "Images", "imageSequence")
METADATA: Final = "metadata.xml"
FITS, CAMERAS = "_smpl_param.json", "_camera.json"  # how the names of these files end
NUMBERS: Final = ",".join(subject.removeprefix("S") for split in SUBJECTS.values() for subject in split)
FIT_FOLDERS: Final = ("smpl_param", "annotations")

SHOWN: Final = "<action>.<camera>"  # "Walking 1.54138969"
_SEQUENCE: Final = re.compile(r"[^_.][^.]*\.[0-9]+")  # _ALL files are no sequences, ._ files are of a Macintosh


def raw_videos(raw: Path, subject: str) -> list[RawVideo]:
    """Every sequence of which a video, pictures or poses are there, so that what it lacks can be told.

    The first two files are the 2D and the 3D poses, there or not.
    """
    pictures = _picture_folders(raw / subject)
    stems = set(pictures)
    for folder, suffix in ((VIDEOS, ".mp4"), (POSES_2D, ".cdf"), (POSES_3D, ".cdf")):
        stems |= {name.removesuffix(suffix) for name in _names(raw / subject / folder) if name.endswith(suffix)}
    beside = _beside(raw, subject)
    listed = []
    for stem in filter(_SEQUENCE.fullmatch, stems):
        poses = tuple(Path(subject, folder, f"{stem}.cdf") for folder in (POSES_2D, POSES_3D))
        folders = [Path(subject, folder) for folder in pictures.get(stem, ())]
        videos, folders_there = inputs(raw, folders, [Path(subject, VIDEOS, f"{stem}.mp4")])
        listed.append(RawVideo(f"{subject}/{stem}", (*poses, *videos, *beside), folders_there))
    return listed


def _picture_folders(subject: Path) -> dict[str, list[str]]:
    """Sequence -> folders below the subject's. In their names a blank may be written as _, after S<k>_ even."""
    found: dict[str, list[str]] = {}
    there = set(_names(subject))  # as it is written: a disk may not tell images from Images
    for parent in (name for name in PICTURES if name in there):
        for name in sorted(_names(subject / parent)):
            bare = name.removeprefix(f"{subject.name}_")
            if _SEQUENCE.fullmatch(bare) and (subject / parent / name).is_dir():
                found.setdefault(bare.replace("_", " "), []).append(f"{parent}/{name}")
    return found


def _beside(raw: Path, subject: str) -> tuple[Path, ...]:
    """What is about all sequences of a subject: metadata.xml, SMPL fits and their cameras, as far as they are there."""
    files = [Path(METADATA)]
    for end in (FITS, CAMERAS):
        places = [Path(folder, f"Human36M_subject{subject.removeprefix('S')}{end}") for folder in FIT_FOLDERS]
        files += [file for file in places if (raw / file).is_file()][:1]
    return tuple(file for file in files if (raw / file).is_file())


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names only
    except OSError:  # not there, no folder, or not to be read: what is missing in it is told
        return []


def _of(patterns: Sequence[str], split: str) -> tuple[str, ...]:
    return tuple(f"{subject}/{pattern}" for subject in SUBJECTS[split] for pattern in patterns)


def _parts(split: str, known: int) -> Iterator[Part]:
    subjects = ",".join(SUBJECTS[split])
    pixels = (f"{VIDEOS}/[!_]*.mp4", *(f"{folder}/[!_]*.*/" for folder in PICTURES))
    shown = (f"{VIDEOS}/{SHOWN}.mp4", *(f"{folder}/{SHOWN}/<picture>" for folder in PICTURES))
    for what, patterns, forms, archive in (
        ("videos or pictures", pixels, shown, "Videos"),
        ("2D poses", (f"{POSES_2D}/[!_]*.cdf",), (f"{POSES_2D}/{SHOWN}.cdf",), "Poses_D2_Positions"),
        ("3D poses", (f"{POSES_3D}/[!_]*.cdf",), (f"{POSES_3D}/{SHOWN}.cdf",), "Poses_D3_Positions_mono"),
    ):
        yield Part(
            f"{split} {what}",
            _of(patterns, split),
            ", ".join(f"{archive}_{subject}.tgz" for subject in SUBJECTS[split]),
            (split,),
            known,
            shown=tuple(f"{{{subjects}}}/{form}" for form in forms),
        )


PARTS: Final = (  # 15 actions, each twice, by four cameras: 120 sequences a subject
    *_parts("train", 600),
    *_parts("val", 240),
    Part(
        METADATA,
        (METADATA,),
        "metadata.xml in the release's own code (Release-v1.1), to be had on the same page",
        known=1,
        without="camera intrinsics",
    ),
    Part(
        "SMPL fits",
        tuple(f"{folder}/Human36M_subject*{FITS}" for folder in FIT_FOLDERS),
        "SMPL parameters of Human3.6M and the cameras that go with them, of github.com/mks0601/I2L-MeshNet_RELEASE",
        known=7,
        without="pose and betas: has_smpl is 0 everywhere",
        shown=tuple(f"{folder}/Human36M_subject<{NUMBERS}>{FITS}" for folder in FIT_FOLDERS),
    ),
)


def mistakes(raw: Path) -> Iterator[Mistake]:
    """What is known to go wrong, from names and one pose file a subject."""
    subjects = [subject for split in SUBJECTS.values() for subject in split if (raw / subject).is_dir()]
    for subject in subjects:
        yield from _subject_mistakes(raw, subject)
        yield from _unknown_names(raw, subject)
    if not (raw / METADATA).is_file():
        for other in sorted(raw.glob(f"*/{METADATA}")):
            yield Mistake(f"{METADATA} lies in {other.parent.name}/", f"Copy it to {raw / METADATA}.")
        if any((raw / folder).is_dir() for folder in FIT_FOLDERS):
            yield Mistake(f"there are SMPL fits, but no {METADATA} to tell their sequences", f"Put it into {raw}.")
    for subject in subjects:
        kinds = [file.name for file in _beside(raw, subject)]
        if any(name.endswith(FITS) for name in kinds) and not any(name.endswith(CAMERAS) for name in kinds):
            number = subject.removeprefix("S")
            yield Mistake(
                f"{subject} has SMPL fits, but no Human36M_subject{number}{CAMERAS}",
                f"Put it into {' or '.join(f'{folder}/' for folder in FIT_FOLDERS)}, from where the fits are.",
            )


def _subject_mistakes(raw: Path, subject: str) -> Iterator[Mistake]:
    has = {
        folder: any(map(_is_sequence_file, _names(raw / subject / folder))) for folder in (VIDEOS, POSES_2D, POSES_3D)
    }
    pictures = _picture_folders(raw / subject)
    for folder, kind in ((POSES_2D, "D2_Positions"), (POSES_3D, "D3_Positions_mono")):
        if has[folder]:
            continue
        packed = [file.name for place in (raw, raw / subject) for file in sorted(place.glob(f"*{kind}_{subject}.t*gz"))]
        others = [name for name in sorted(_names(raw / subject / "MyPoseFeatures")) if name.startswith("D3_")]
        if packed:
            yield Mistake(f"{subject}/{folder} is not there, but {packed[0]} is", "Unpack it.")
        elif folder == POSES_3D and others:
            yield Mistake(
                f"{subject} has {', '.join(others)}, but not D3_Positions_mono",
                "Download D3_Positions_mono: the others are in the world's axes, or of a body of another size.",
            )
        elif has[VIDEOS] or pictures:
            yield Mistake(f"{subject} has pictures, but no {folder}", f"Unpack Poses_{kind}_{subject}.tgz.")
    if (has[POSES_2D] or has[POSES_3D]) and not has[VIDEOS] and not pictures:
        yield Mistake(f"{subject} has poses, but neither {VIDEOS} nor {PICTURES[0]}", f"Unpack Videos_{subject}.tgz.")


def _unknown_names(raw: Path, subject: str) -> Iterator[Mistake]:
    for folder in (VIDEOS, POSES_2D, POSES_3D):
        names = (name for name in sorted(_names(raw / subject / folder)) if name.endswith((".mp4", ".cdf")))
        unknown = [name for name in names if not name.startswith(("_", ".")) and not _is_sequence_file(name)]
        if unknown:
            told = f"{len(unknown)} in {subject}/{folder} name no camera and are not read, the first is {unknown[0]}"
            yield Mistake(told, "Call them as the release does: <action>[ <n>].<camera>.")


def _is_sequence_file(name: str) -> bool:
    stem, _, suffix = name.rpartition(".")
    return suffix in ("mp4", "cdf") and _SEQUENCE.fullmatch(stem) is not None
