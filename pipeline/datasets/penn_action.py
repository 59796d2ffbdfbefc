"""Penn Action: 2,326 videos of one person each, 13 joints labelled by hand.  [raw -> tracks] -> features -> windows

Zhang, Zhu, Derpanis: From Actemes to Action, ICCV 2013.

    labels/<0001..2326>.mat            x, y, visibility (frames, 13); train 1 or -1; dimensions: height, width, frames
    frames/<0001..2326>/<000001..>.jpg
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.boxes import tight_boxes
from pipeline.datasets.base import Dataset, RawVideo
from pipeline.datasets.release import Mistake, Part, Totals, counted
from pipeline.errors import RawDataError
from pipeline.formats.arrays import load_mat, numbers
from pipeline.pixels.frames import Pictures
from pipeline.raw import listing
from pipeline.skeletons import JOINTS, convert, without_non_finite
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

N_JOINTS: Final = len(JOINTS["penn_action"])
SPLIT_OF: Final = {1: "train", -1: "test"}  # the stored `train`
ARCHIVE: Final = "Penn_Action.tar.gz"
UNPACK: Final = f"Unpack {ARCHIVE} again."


@dataclass(frozen=True)
class PennAction(Dataset):
    """One track a video. Coordinates are MATLAB's, 1-based, kept as stored; the release names no frame rate."""

    name: ClassVar[str] = "penn_action"
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    version: ClassVar[int] = 1
    page: ClassVar[str] = "http://dreamdragon.github.io/PennAction/"
    parts: ClassVar[tuple[Part, ...]] = (
        Part("label files", ("labels/*.mat",), ARCHIVE, known=2326, shown=("labels/<0001>.mat",)),
        Part(
            "videos with pictures",
            ("frames/*/000001.jpg",),
            ARCHIVE,
            known=2326,
            shown=("frames/<0001>/<000001>.jpg",),
        ),
    )
    totals: ClassVar[Mapping[str, Totals]] = {  # counted over the official label files
        "train": Totals(videos=1258),
        "test": Totals(videos=1068),
        "all": Totals(videos=2326, frames=163_841),
    }

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        return ("frame_index", "bbox", "kp_2d")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:  # noqa: ARG002 - the label says which split
        labels, frames = raw / "labels", raw / "frames"
        for folder, what in ((labels, "<0001>.mat label files"), (frames, "<0001>/<000001>.jpg pictures")):
            if not folder.is_dir():
                do = "Point the raw folder at the unpacked Penn_Action.tar.gz."
                raise RawDataError(folder, "folder", expected=f"a folder with {what}", found="none", do=do)
        names = {file.stem for file in labels.glob("*.mat")} | {entry.name for entry in frames.iterdir()}
        return [
            RawVideo(name, files=(Path(f"labels/{name}.mat"),), folders=(Path(f"frames/{name}"),))
            for name in sorted(names)
            if name.isdecimal()  # what else lies there (.DS_Store) is no video
        ]

    def mistakes(self, raw: Path) -> Iterator[Mistake]:
        labels = {name[:-4] for name in listing.names_in(raw / "labels") if name.endswith(".mat")}
        frames = listing.names_in(raw / "frames")
        if empty := sorted(name for name in frames if listing.is_empty(raw / "frames" / name)):
            what = (
                f"{len(empty):,} of {counted(len(frames), 'folder', 'folders')} in frames/ are empty, first {empty[0]}"
            )
            yield Mistake(what, f"Their pictures were not unpacked. {UNPACK}")
        if frames and (alone := sorted(labels - frames)):
            files = counted(len(alone), "label file has", "label files have")
            yield Mistake(f"{files} no folder in frames/, first {alone[0]}.mat", UNPACK)
        if labels and (alone := sorted(frames - labels)):
            folders = counted(len(alone), "folder in frames/ has", "folders in frames/ have")
            yield Mistake(f"{folders} no label file, first {alone[0]}", UNPACK)

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None  # noqa: ARG002
    ) -> Sequence[Track]:  # fmt: skip
        file = raw / video.files[0]
        if not file.is_file():
            raise RawDataError(file, "file", expected="labels", found="pictures alone", do=UNPACK, reason="no_label")
        label = load_mat(file, ("x", "y", "visibility", "train"), optional=("nframes", "dimensions"))
        if _split(file, label["train"]) != split:
            account.other_split = True
            return []
        stored = _keypoints(file, label)
        account.found = len(stored)
        kp_2d, n_bad = without_non_finite(stored)
        if n_bad:
            account.notes.append(f"{n_bad} joints are not finite: not used")
        _note_contradictions(file, label, kp_2d, account)

        pictures = Pictures(raw, f"frames/{video.name}/{{:06d}}.jpg", first=1)
        kept = _with_picture(file, len(kp_2d), pictures, account)
        boxes, empty, degenerate = tight_boxes(kp_2d)
        account.drop("no_visible_joint", int((kept & empty).sum()))
        account.drop("degenerate_box", int((kept & degenerate).sum()))
        kept &= ~empty & ~degenerate
        if not kept.any():
            account.drop_track("no_frame_left", 0)
            return []
        account.keep_track(int(kept.sum()))
        return [
            Track(
                dataset=self.name,
                split=split,
                name=f"{video.name}/0",
                video=video.name,
                fps=math.nan,
                frame_index=np.flatnonzero(kept).astype(np.int64),
                bbox=boxes[kept],
                kp_2d=convert(kp_2d[kept], source="penn_action", target="spin49").astype(np.float32),
                frames=pictures,
            )
        ]


def _split(file: Path, train: NDArray[np.generic]) -> str:
    value = numbers(file, "train", train.reshape(-1), (1,))[0]
    if value not in SPLIT_OF:
        raise RawDataError(file, "train", expected="1 or -1", found=str(value), do=UNPACK)
    return SPLIT_OF[int(value)]


def _keypoints(file: Path, label: dict[str, NDArray[np.generic]]) -> NDArray[np.float64]:
    """(frames, 13, 3) x px, y px, 1 where visible. An invisible joint mostly carries coordinates all the same."""
    x = numbers(file, "x", label["x"], (None, N_JOINTS))
    y = numbers(file, "y", label["y"], (len(x), N_JOINTS))
    visible = numbers(file, "visibility", label["visibility"], (len(x), N_JOINTS)) > 0
    return np.stack([x, y, visible], axis=-1)


def _with_picture(file: Path, n_labels: int, pictures: Pictures, account: VideoAccount) -> NDArray[np.bool_]:
    """(frames,) whether a frame's picture is there; what differs between labels and pictures is noted and counted."""
    there = pictures.indices()
    if not len(there):
        expected = f"{n_labels} pictures in frames/{file.stem}"
        raise RawDataError(file, "pictures", expected=expected, found="none", do=UNPACK, reason="no_picture")
    has_picture = np.isin(np.arange(n_labels), there)
    if extra := int((there >= n_labels).sum()):
        account.notes.append(
            f"{n_labels} frames are labelled, {len(there)} pictures are there: the last {extra} not used"
        )
    if absent := int((~has_picture).sum()):
        first = pictures.path(int(np.argmin(has_picture))).name
        account.notes.append(f"{absent} of {n_labels} labelled frames have no picture, the first is {first}")
        account.drop("no_picture", absent)
    return has_picture


def _note_contradictions(
    file: Path, label: dict[str, NDArray[np.generic]], kp_2d: NDArray[np.floating], account: VideoAccount
) -> None:
    """What the label says beside the joints decides nothing, but what is wrong with it is told."""
    if (says := _said(file, label, "nframes", 1, account)) is not None and says[0] != len(kp_2d):
        account.notes.append(f"nframes says {says[0]:.10g}, {len(kp_2d)} frames are labelled")
    # four videos have coordinates at another scale than these
    if (says := _said(file, label, "dimensions", 3, account)) is not None:
        height, width, _ = says
        x, y, visible = kp_2d[..., 0], kp_2d[..., 1], kp_2d[..., 2] > 0
        outside = visible & ((x < 0) | (y < 0) | (x > width + 1) | (y > height + 1))
        if outside.any():
            account.notes.append(
                f"{int(outside.sum())} visible joints lie outside the {width:.0f} x {height:.0f} picture"
            )


def _said(
    file: Path, label: dict[str, NDArray[np.generic]], key: str, n: int, account: VideoAccount
) -> NDArray[np.float64] | None:
    """The `n` numbers under a key that decides nothing; None when it is not there, or holds something else: noted."""
    if key not in label:
        return None
    try:
        says = numbers(file, key, label[key].reshape(-1), (n,))
    except RawDataError as error:
        account.notes.append(f"not used: {error}")
        return None
    if not np.isfinite(says).all():
        account.notes.append(f"not used: {key} holds {says.tolist()}")
        return None
    return says
