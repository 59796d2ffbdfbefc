"""Our lab's recordings: a video each, and a table of 2D joints by a tracker.  [raw -> tracks] -> features -> windows

<split>/<recording>.mp4    one or more people
<split>/<recording>.csv    frame,person,<joint>_x,<joint>_y,<joint>_score,...    one line a person and frame
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import Totals, VideoAccount
from pipeline.boxes import tight_boxes
from pipeline.datasets import Dataset, RawVideo
from pipeline.datasets.base import Mistake, Origin, ReleasePart
from pipeline.errors import RawDataError
from pipeline.files.pixels.frames import Video
from pipeline.files.raw.files import open_regular
from pipeline.skeletons import JOINTS, convert, without_non_finite
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

SPLITS: Final = ("train", "val")
BOX_FACTOR: Final = 1.2  # the tracker's joints end at wrists and ankles: room for hands and feet
MAX_BYTES: Final = 1 << 26  # of a table; an hour of one person has about half of that
LAST_FRAME: Final = 1 << 31
EXPORT: Final = "Export the recording from the tracker again."


@dataclass(frozen=True)
class LabRecordings(Dataset):
    """One track a person, named by the tracker's number. `min_score`: the tracker's score from which a joint counts."""

    min_score: float = 0.3

    name: ClassVar[str] = "lab_recordings"
    splits: ClassVar[tuple[str, ...]] = SPLITS
    version: ClassVar[int] = 1
    page: ClassVar[str] = "https://example.org/lab-recordings"
    parts: ClassVar[tuple[ReleasePart, ...]] = tuple(
        ReleasePart(what, (f"{split}/<recording>{suffix}",), source=f"{split}.zip", splits=(split,))
        for split in SPLITS
        for what, suffix in (("videos", ".mp4"), ("tables of joints", ".csv"))
    )
    mistakes: ClassVar[tuple[Mistake, ...]] = (
        Mistake("{train,val}/*.xlsx", "is an Excel file, which is not read", "Export the tables as CSV."),
    )
    totals: ClassVar[Mapping[str, Totals]] = {"train": Totals(videos=4), "val": Totals(videos=1)}

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        return ("frame_index", "bbox", "kp_2d")

    def origin(self, video: str) -> Origin:
        return Origin(recording=video.partition("/")[2])  # train/<recording>; who it shows is not in its name

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        folder = raw / split
        if not folder.is_dir():
            expected, do = "<recording>.mp4 and <recording>.csv", f"Unpack {split}.zip there."
            raise RawDataError(folder, "folder", expected=expected, found="no such folder", do=do)
        stems = {file.stem for file in folder.iterdir() if file.suffix in (".mp4", ".csv")}
        return [
            RawVideo(f"{split}/{stem}", files=(Path(split, f"{stem}.csv"), Path(split, f"{stem}.mp4")))
            for stem in sorted(stems)
        ]

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:  # fmt: skip
        table, mp4 = video.files
        frame, person, joints, keypoints = read_table(raw / table)
        account.found = len(frame)
        source = Video(raw, mp4.as_posix())
        header = source.header()
        source.require_decodable()

        kp_2d, n_bad = without_non_finite(keypoints)
        if n_bad:
            account.notes.append(f"{n_bad} joints are not finite: not used")
        kp_2d[..., 2] = np.where(kp_2d[..., 2] < self.min_score, 0, np.minimum(kp_2d[..., 2], 1))
        kp_2d = convert(kp_2d, source=joints, target="spin49")
        tracks = []
        for who in np.unique(person):
            rows = _in_order(np.flatnonzero(person == who), frame, account)
            kept, bbox = _with_box(rows, kp_2d, account)
            if not len(kept):
                account.drop_track("no_frame_left", 0)
                continue
            account.keep_track(len(kept))
            tracks.append(
                Track(
                    dataset=self.name,
                    split=split,
                    name=f"{video.name}/{who}",
                    video=video.name,
                    fps=header.fps,
                    frame_index=frame[kept],
                    bbox=bbox,
                    kp_2d=kp_2d[kept].astype(np.float32),
                    frames=source,
                )
            )
        return tracks


def read_table(file: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...], NDArray[np.float64]]:
    """(N,) frame, (N,) person, the J joints' names from the header, and (N, J, 3) px px score. Raises RawDataError."""
    try:
        with open_regular(file) as stream:
            data = stream.read(MAX_BYTES + 1)
        header, *lines = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
        values = np.array(lines, np.float64).reshape(len(lines), -1) if lines else np.empty((0, len(header)))
    except FileNotFoundError as error:
        expected, found = "a table of joints", "a video alone"
        raise RawDataError(file, "file", expected=expected, found=found, do=EXPORT, reason="no_table") from error
    except (OSError, ValueError, csv.Error) as error:
        found = f"{type(error).__name__}: {error}"
        raise RawDataError(file, "file", expected="CSV, all numbers below a header", found=found, do=EXPORT) from error
    if len(data) > MAX_BYTES:
        raise RawDataError(file, "file", expected=f"up to {MAX_BYTES} bytes", found="more", do=EXPORT)
    joints = tuple(name.removesuffix("_x") for name in header[2::3])
    wanted = ["frame", "person", *(f"{joint}_{part}" for joint in joints for part in ("x", "y", "score"))]
    if header != wanted or not joints or set(joints) - set(JOINTS["coco"]) or len(set(joints)) < len(joints):
        expected = "frame,person, then x, y and score of COCO's joints, each once"
        raise RawDataError(file, "header", expected=expected, found=",".join(header)[:200], do=EXPORT)
    if values.shape[1] != len(wanted):
        expected, found = f"{len(wanted)} numbers", f"{values.shape[1]}"
        raise RawDataError(file, "lines", expected=expected, found=found, do=EXPORT)
    counts = values[:, :2]
    if not ((counts >= 0) & (counts < LAST_FRAME) & (counts % 1 == 0)).all():
        raise RawDataError(file, "frame,person", expected="whole numbers from 0", found="others", do=EXPORT)
    frame, person = counts.astype(np.int64).T
    return frame, person, joints, values[:, 2:].reshape(-1, len(joints), 3)


def _in_order(rows: NDArray[np.int64], frame: NDArray[np.int64], account: VideoAccount) -> NDArray[np.int64]:
    """One person's rows by frame; of a frame that is there twice, the first row."""
    _, first = np.unique(frame[rows], return_index=True)
    account.drop("duplicate_person", len(rows) - len(first))
    return rows[first]


def _with_box(
    rows: NDArray[np.int64], kp_2d: NDArray[np.float64], account: VideoAccount
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows with a visible person, and their boxes."""
    boxes, empty, degenerate = tight_boxes(kp_2d[rows], BOX_FACTOR)
    account.drop("no_visible_joint", int(empty.sum()))
    account.drop("degenerate_box", int(degenerate.sum()))
    kept = ~(empty | degenerate)
    return rows[kept], boxes[kept]
