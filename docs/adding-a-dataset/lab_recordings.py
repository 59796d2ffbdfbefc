"""A lab's recordings: videos, with tables of 2D joints from a tracker.  [raw -> tracks] -> features
-> windows

<split>/<recording>.mp4
<split>/<recording>.csv   frame,person,<joint>_x,<joint>_y,<joint>_score,...,lheel,ltoes,rheel,rtoes
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.api import (
    JOINTS,
    Dataset,
    ExtraColumn,
    LabelRules,
    Mistake,
    Origin,
    RawDataError,
    RawVideo,
    Release,
    ReleasePart,
    Totals,
    Track,
    Video,
    VideoAccount,
    finite_joints,
    labelled_track,
    open_regular,
)

SPLITS: Final = ("train", "val")
BOX_FACTOR: Final = 1.2  # room for hands and feet: the joints end at wrists and ankles
MAX_BYTES: Final = 1 << 26  # per table; an hour of one person takes about half
EXPORT: Final = "Export the recording from the tracker again."
FEET: Final = ("lheel", "ltoes", "rheel", "rtoes")  # 1: the sensor touches the floor
CONTACT: Final = ExtraColumn(
    name="foot_contact",
    about=f"on the floor: {', '.join(FEET)}",
    shape=(4,),
    dtype="uint8",
    mirror=((0, 2), (1, 3)),
)


@dataclass(frozen=True)
class LabRecordings(Dataset):
    """One track per person, named by the tracker's number. `min_score`: lowest tracker score of a
    joint that counts.
    """

    min_score: float = 0.3

    name = "lab_recordings"
    splits = SPLITS
    version = 1
    release = Release(
        page="https://example.org/lab-recordings",
        parts=tuple(
            ReleasePart(what, (f"{split}/<recording>{suffix}",), f"{split}.zip", (split,))
            for split in SPLITS
            for what, suffix in (("videos", ".mp4"), ("tables of joints", ".csv"))
        ),
        mistakes=(
            Mistake(
                "{train,val}/*.xlsx",
                "is an Excel file, which is not read",
                "Export the tables as CSV.",
            ),
        ),
        totals={"train": Totals(videos=4), "val": Totals(videos=1)},
    )
    labels = LabelRules(extra=(CONTACT,))

    def origin(self, video: str) -> Origin:
        # train/<recording>; the name does not tell the person
        return Origin(recording=video.partition("/")[2])

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        if not (folder := raw / split).is_dir():
            do = f"Unpack {split}.zip there."
            raise RawDataError(
                folder, "folder", expected="<recording>.mp4 and .csv", found="no such folder", do=do
            )
        stems = {file.stem for file in folder.iterdir() if file.suffix in (".mp4", ".csv")}
        videos = []
        for stem in sorted(stems):
            name = f"{split}/{stem}"
            videos.append(RawVideo(name, files=(Path(f"{name}.csv"), Path(f"{name}.mp4"))))
        return videos

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Any
    ) -> Sequence[Track]:
        joints, table = read_table(raw / video.files[0])
        frame, person, contact = (
            table[:, columns].astype(np.int64) for columns in (0, 1, slice(-4, None))
        )
        account.found = len(table)
        source = Video(raw, video.files[1].as_posix())
        header = source.header()
        source.require_decodable()
        kp_2d = finite_joints(table[:, 2:-4].reshape(-1, len(joints), 3), account)
        kp_2d[..., 2] = np.where(kp_2d[..., 2] < self.min_score, 0, np.minimum(kp_2d[..., 2], 1))
        tracks: list[Track] = []
        for who in np.unique(person):
            rows = np.flatnonzero(person == who)
            rows = rows[np.argsort(frame[rows], kind="stable")]
            twice = np.diff(frame[rows], prepend=-1) == 0  # of duplicate rows, the first counts
            tracks += labelled_track(
                self,
                split,
                video,
                account,
                source,
                who,
                reasons={"duplicate_person": twice},
                skeleton=joints,
                kp_2d=kp_2d[rows],
                frame_index=frame[rows],
                box_factor=BOX_FACTOR,
                fps=header.fps,
                extra={"foot_contact": contact[rows].astype(np.uint8)},
            )
        return tracks


def read_table(file: Path) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Read the names of J joints and (N, 2 + 3 J + 4) frame, person, px px score, 4 contacts.
    Raises RawDataError.
    """
    try:
        with open_regular(file) as stream:
            data = stream.read(MAX_BYTES + 1)
        header, *lines = csv.reader(io.StringIO(data[:MAX_BYTES].decode(), newline=""), strict=True)
        table = np.array(lines, np.float64).reshape(len(lines), len(header))
    except FileNotFoundError as error:
        expected, found = "a table of joints", "only a video"
        raise RawDataError(
            file, "file", expected=expected, found=found, do=EXPORT, reason="no_table"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        found = f"{type(error).__name__}: {error}"
        raise RawDataError(
            file, "file", expected="CSV, all numbers below a header", found=found, do=EXPORT
        ) from error
    joints = tuple(name.removesuffix("_x") for name in header[2:-4:3])
    columns = [
        "frame",
        "person",
        *(f"{joint}_{part}" for joint in joints for part in ("x", "y", "score")),
        *FEET,
    ]
    if (
        header != columns
        or not joints
        or set(joints) - set(JOINTS["coco"])
        or len(set(joints)) < len(joints)
    ):
        expected = (
            "frame,person, then x, y and score of COCO's joints, each once, then the four contacts"
        )
        raise RawDataError(
            file, "header", expected=expected, found=",".join(header)[:200], do=EXPORT
        )
    numbers, top = table[:, [0, 1, -4, -3, -2, -1]], [2**31, 2**31, 1, 1, 1, 1]
    if len(data) > MAX_BYTES or not ((numbers >= 0) & (numbers <= top) & (numbers % 1 == 0)).all():
        expected = f"up to {MAX_BYTES} bytes of whole numbers from 0, contacts of 0 or 1"
        raise RawDataError(
            file, "frame,person,contacts", expected=expected, found="others", do=EXPORT
        )
    return joints, table
