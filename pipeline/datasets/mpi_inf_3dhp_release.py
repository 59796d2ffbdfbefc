"""What MPI-INF-3DHP's release consists of, and what is known to go wrong with it.  [raw] -> tracks -> features"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pipeline.datasets.mpi_inf_3dhp_labels import CAMERAS
from pipeline.datasets.pixels import has_pictures, inputs, other_rate, picture_pattern
from pipeline.datasets.release import Mistake, Part, Totals, counted
from pipeline.raw.listing import is_folder, listed

TEST_SETS: Final = ("mpi_inf_3dhp_test_set", "mpi_inf_3dhp_test_set/mpi_inf_3dhp_test_set")  # as get_testset.sh unpacks
SEQUENCES: Final[Mapping[str, tuple[int, int]]] = {  # fps, frames: the release's util/mpii_get_sequence_info.m
    "S1/Seq1": (25, 6416), "S1/Seq2": (50, 12430), "S2/Seq1": (25, 6502), "S2/Seq2": (25, 6081),
    "S3/Seq1": (50, 12488), "S3/Seq2": (50, 12283), "S4/Seq1": (25, 6171), "S4/Seq2": (25, 6675),
    "S5/Seq1": (50, 12820), "S5/Seq2": (50, 12312), "S6/Seq1": (25, 6188), "S6/Seq2": (25, 6145),
    "S7/Seq1": (25, 6239), "S7/Seq2": (25, 6320), "S8/Seq1": (25, 6468), "S8/Seq2": (25, 6054),
}  # fmt: skip
TEST_FRAMES: Final = 6151 + 6080 + 5838 + 6007 + 320 + 492  # annotated, of TS1 to TS6
SEQUENCE: Final = "S<1..8>/Seq<1,2>"  # as people read it
CAMERA: Final = f"<{','.join(map(str, CAMERAS))}>"
EXTRACT: Final = "Extract the videos' frames as they are: all of them, at their own size."
PARTS: Final = (
    Part(
        "label files",
        ("S*/Seq*/annot.mat",),
        "get_dataset.sh",
        ("train",),
        known=len(SEQUENCES),
        shown=(f"{SEQUENCE}/annot.mat",),
    ),
    Part(
        "pictures or videos",
        tuple(
            f"S*/Seq*/{place}"
            for place in ("imageFrames/video_[0124-8]/", "video_[0124-8]/", "imageSequence/video_[0124-8].*")
        ),
        "get_dataset.sh (vnect_cameras.zip)",
        ("train",),
        known=len(SEQUENCES) * len(CAMERAS),
        shown=(
            f"{SEQUENCE}/imageFrames/video_{CAMERA}/frame_<000000>.jpg",
            f"{SEQUENCE}/video_{CAMERA}/<000000>.jpg",
            f"{SEQUENCE}/imageSequence/video_{CAMERA}.{{avi,mp4}}",
        ),
    ),
    Part(
        "camera calibrations",
        ("S*/Seq*/camera.calibration",),
        "get_dataset.sh",
        ("train",),
        known=len(SEQUENCES),
        without="camera intrinsics",
        shown=(f"{SEQUENCE}/camera.calibration",),
    ),
    *(
        Part(
            what,
            tuple(f"{test}/TS*/{name}" for test in TEST_SETS),
            "get_testset.sh",
            ("test",),
            known=6,
            shown=tuple(f"{test}/TS<1..6>/{shown}" for test in TEST_SETS),
        )
        for what, name, shown in (
            ("test labels", "annot_data.mat", "annot_data.mat"),
            ("test pictures", "imageSequence/", "imageSequence/img_<000001>.jpg"),
        )
    ),
)
TOTALS: Final[Mapping[str, Totals]] = {
    "train": Totals(len(SEQUENCES) * len(CAMERAS), len(CAMERAS) * sum(n for _, n in SEQUENCES.values())),
    "test": Totals(6, TEST_FRAMES),
}


def folders_below(raw: Path, *patterns: str) -> list[str]:
    """Paths below `raw` of the folders whose names match, level by level; nothing where there are none."""
    found = [""]
    for pattern in patterns:
        inner = [(outer, entry) for outer in found for entry in listed(raw / outer, {})]
        found = sorted(
            f"{outer}/{entry.name}".lstrip("/")
            for outer, entry in inner
            if re.fullmatch(pattern, entry.name) and is_folder(entry)
        )
    return found


def places(sequence: str, camera: int) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Where pictures may lie, and videos, the usual place first."""
    name = f"video_{camera}"
    folders = (Path(sequence, "imageFrames", name), Path(sequence, name))
    return folders, tuple(Path(sequence, "imageSequence", f"{name}{extension}") for extension in (".avi", ".mp4"))


def mistakes(raw: Path) -> Iterator[Mistake]:
    """What shows in the names below `raw`."""
    yield from _train_mistakes(raw)
    if misplaced := folders_below(raw, r"TS[0-9]+"):
        yield Mistake(
            f"{', '.join(misplaced)} {'lies' if len(misplaced) == 1 else 'lie'} in {raw.name}/ itself",
            f"Move them into {TEST_SETS[0]}/.",
        )


def _train_mistakes(raw: Path) -> Iterator[Mistake]:
    sequences = folders_below(raw, r"S[0-9]+", r"Seq[0-9]+")
    yield from _without_labels(raw, sequences)
    for sequence in sequences:
        if not (raw / sequence / "annot.mat").is_file():
            continue
        found = _pixels(raw, sequence)
        if not any(files or any(has_pictures(raw / folder) for folder in folders) for files, folders in found):
            yield _without_frames(raw, sequence)
            continue
        frames = SEQUENCES.get(sequence, (0, 0))[1]
        for folder in (folder for _, folders in found for folder in folders):
            pictures = picture_pattern(raw, folder)
            n_pictures = 0 if pictures is None else int(pictures.indices().max(initial=-1)) + 1
            if other_rate(n_pictures, frames):
                what = f"{folder} has pictures up to number {n_pictures}, and its video {frames} frames"
                yield Mistake(what, EXTRACT)


def _pixels(raw: Path, sequence: str) -> list[tuple[tuple[Path, ...], tuple[Path, ...]]]:
    """Videos and folders of pictures, by camera."""
    return [inputs(raw, *places(sequence, camera)) for camera in CAMERAS]


def _without_labels(raw: Path, sequences: Sequence[str]) -> Iterator[Mistake]:
    """Of a whole download that is a missing part; of one sequence among others, it shows here alone."""
    bare = [name for name in sequences if not (raw / name / "annot.mat").is_file()]
    if alone := [name for name in bare if any(files or folders for files, folders in _pixels(raw, name))]:
        what = counted(len(alone), "sequence has", "sequences have")
        yield Mistake(f"{what} pictures but no annot.mat, first {alone[0]}", "Download its annot.mat: get_dataset.sh.")


def _without_frames(raw: Path, sequence: str) -> Mistake:
    """Why a sequence has labels and no pixels."""
    folder = raw / sequence
    archives = sorted(path.relative_to(raw).as_posix() for path in folder.glob("imageSequence/*.zip"))
    if archives:
        return Mistake(f"{sequence} has neither pictures nor videos, but {archives[0]}", "Unpack it where it lies.")
    others = sorted(path.name for path in folder.glob("imageSequence/video_*") if path.suffix in (".avi", ".mp4"))
    if others:
        used = ", ".join(map(str, CAMERAS))
        return Mistake(
            f"{sequence} has only {', '.join(others)}", f"Download vnect_cameras.zip: cameras {used} are used."
        )
    masks = [name for name in ("FGmasks", "ChairMasks") if (folder / name).is_dir()]
    beside = f", only {' and '.join(masks)}" if masks else ""
    return Mistake(f"{sequence} has annot.mat, but neither pictures nor videos{beside}", "Download imageSequence too.")
