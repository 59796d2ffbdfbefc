"""A small lab for benchmarks/soak.py: raw videos that are added, corrected and removed; what a cache must have of them.

Three datasets: Penn Action in its official layout; `soak_people`, several persons a video with SMPL parameters; and
`soak_motion`, without pictures. The last two, and three streams that need no network, are a plug-in. Pictures are grey,
each of one value, so that a row's features show its frame and its box, and can be computed here without the pipeline.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.datasets import Dataset, RawVideo
from pipeline.features.streams import LabelStream, Machine, NumberStream, PairStream
from pipeline.files.formats.arrays import load_npz
from pipeline.files.pixels.frames import Image, Pictures
from pipeline.skeletons import JOINTS
from pipeline.synthetic.files import jpeg, write_mat
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

Array = NDArray[Any]

WIDTH, HEIGHT, CROP = 64, 48, 224  # px of pictures and crops
PENN, PEOPLE, MOTION = "penn_action", "soak_people", "soak_motion"
SPLITS: Final = (f"{PENN}/train", f"{PENN}/test", f"{PEOPLE}/train", f"{MOTION}/train")
STREAMS: Final = {"tone": "soak_tone", "step": "soak_step", "joints": "soak_joints", "crops": "crops"}  # name -> kind
PLUG_IN: Final = """[vibe_pipeline.datasets]
soak_people = benchmarks.soak_lab:SoakPeople
soak_motion = benchmarks.soak_lab:SoakMotion
[vibe_pipeline.streams]
soak_tone = benchmarks.soak_lab:Tone
soak_step = benchmarks.soak_lab:Step
soak_joints = benchmarks.soak_lab:Joints
"""


def install(folder: Path) -> None:
    """The plug-in's metadata, for processes that have `folder` on their path."""
    info = folder / "soak-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: soak\nVersion: 1\n")
    (info / "entry_points.txt").write_text(PLUG_IN)


# ------------------------------------------------------------------------------------------------- readers and streams


@dataclass(frozen=True)
class SoakPeople(Dataset):
    """labels/<split>/<video>.npz: the columns of each person; frames/<split>/<video>/<000001>.jpg."""

    name: ClassVar[str] = PEOPLE
    splits: ClassVar[tuple[str, ...]] = ("train",)
    version: ClassVar[int] = 1
    page: ClassVar[str] = ""
    kept: ClassVar[tuple[str, ...]] = ("frame_index", "bbox", "kp_2d", "pose", "betas", "has_smpl")

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:  # noqa: ARG002 - all are filled
        return self.kept

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        names = sorted(file.stem for file in (raw / "labels" / split).glob("*.npz"))
        folders = [(Path("frames", split, name),) if self.has_pixels else () for name in names]
        files = [(Path("labels", split, f"{name}.npz"),) for name in names]
        return [RawVideo(*video) for video in zip(names, files, folders, strict=True)]

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, _body: Body | None
    ) -> Sequence[Track]:
        n_people = int(load_npz(raw / video.files[0], ["n_people"])["n_people"])
        keys = [f"{name}_{person}" for person in range(n_people) for name in self.kept]
        found = load_npz(raw / video.files[0], keys)
        frames = Pictures(raw, f"{video.folders[0]}/{{:06d}}.jpg", first=1) if video.folders else None
        tracks = []
        for person in range(n_people):
            columns: dict[str, Any] = {name: found[f"{name}_{person}"] for name in self.kept}
            account.found += len(columns["frame_index"])
            account.keep_track(len(columns["frame_index"]))
            tracks.append(self.track(split, video, person, fps=25.0, frames=frames, **columns))
        return tracks


@dataclass(frozen=True)
class SoakMotion(SoakPeople):
    """The same without pictures."""

    name: ClassVar[str] = MOTION
    has_pixels: ClassVar[bool] = False
    kept: ClassVar[tuple[str, ...]] = ("frame_index", "pose", "betas", "has_smpl")


def edges(crop: Image) -> list[int]:
    """The grey value in a crop's middle, and where the picture begins and ends: left, right, top, bottom px."""
    value = int(crop[CROP // 2, CROP // 2, 0])
    lines = (crop[CROP // 2, :, 0] > value / 2, crop[:, CROP // 2, 0] > value / 2)
    return [value, *(int(end) for line in lines for end in (line.argmax(), len(line) - line[::-1].argmax()))]


@dataclass(frozen=True, kw_only=True)
class Tone(NumberStream):
    """`edges` of a crop, in place of a network."""

    kind: ClassVar[str] = "soak_tone"
    dim: ClassVar[int] = 5

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Any:  # noqa: ARG002
        return _Edges()


class _Edges:
    batch_size, lanes = 4, 2
    provenance: ClassVar[Mapping[str, Any]] = {"stand_in": False}

    def adopt(self, memory: NDArray[np.uint8]) -> None: ...

    def release(self) -> None: ...

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array([edges(crop) for crop in crops], np.float32)


@dataclass(frozen=True, kw_only=True)
class Step(PairStream):
    """The grey values of a row's crop and of the one before."""

    kind: ClassVar[str] = "soak_step"
    dim: ClassVar[int] = 2

    def pair(self, previous: Image, current: Image) -> NDArray[np.float32]:
        return np.array([previous[CROP // 2, CROP // 2, 0], current[CROP // 2, CROP // 2, 0]], np.float32)


@dataclass(frozen=True, kw_only=True)
class Joints(LabelStream):
    """The mean of a row's joints; not known of rows whose first joint is at an odd x."""

    kind: ClassVar[str] = "soak_joints"
    dim: ClassVar[int] = 2
    columns: ClassVar[tuple[str, ...]] = ("kp_2d",)

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Any:  # noqa: ARG002
        return _Means()


class _Means:
    provenance: ClassVar[Mapping[str, Any]] = {"stand_in": False}

    def __call__(self, labels: Mapping[str, Array]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        xy = labels["kp_2d"][..., :2].astype(np.float64)
        known = xy[:, FIRST, 0] % 2 == 0
        return np.where(known[:, None], xy.mean(axis=1), 0).astype(np.float32), known


FIRST: Final = JOINTS["spin49"].index(JOINTS[PENN][0])


# ------------------------------------------------------------------------------------------------------ what there is


@dataclass(frozen=True, eq=False)
class Person:
    """T rows: their frames, and 13 joints of Penn Action in whole px; the first two span the box."""

    frame: NDArray[np.int64]  # (T,)
    joints: NDArray[np.float64]  # (T, 13, 2)
    pose: NDArray[np.float32]  # (T, 72)
    betas: NDArray[np.float32]  # (T, 10)

    def columns(self, names: Sequence[str], rows: Any) -> dict[str, Array]:
        """What a cache must have of these rows."""
        low, high = self.joints.min(axis=1), self.joints.max(axis=1)
        side = (high - low).max(axis=1, keepdims=True)
        kp_2d = np.zeros((len(self.frame), 49, 3), np.float32)
        for number, joint in enumerate(JOINTS[PENN]):
            kp_2d[:, JOINTS["spin49"].index(joint)] = [(*point, 1) for point in self.joints[:, number].tolist()]
        found: dict[str, Array] = {
            "frame_index": self.frame,
            "bbox": np.concatenate([(low + high) / 2, side, side], axis=1).astype(np.float32),
            "kp_2d": kp_2d,
            "pose": self.pose,
            "betas": self.betas,
            "has_smpl": np.ones(len(self.frame), np.uint8),
        }
        return {name: found[name][rows] for name in names}


@dataclass(frozen=True, eq=False)
class Video:
    """One raw video. Two are the same only if they are one object with one version."""

    version: int
    split: str
    people: tuple[Person, ...]
    pictures: Mapping[int, tuple[int, int]] = field(default_factory=dict)  # frame -> (value, 0: broken; bytes added)
    spoiled: bool = False  # the label file cannot be read

    def rows(self, dataset: str, person: Person) -> Array:
        """The numbers of a person's rows that are kept: of Penn Action, those with a picture."""
        there = [dataset != PENN or int(frame) in self.pictures for frame in person.frame]
        return np.flatnonzero(there)


class Lab:
    """The raw folders, and what is in them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.versions = folder, itertools.count(1)
        self.videos: dict[str, dict[str, Video]] = {name: {} for name in (PENN, PEOPLE, MOTION)}

    def of(self, split: str) -> dict[str, Video]:
        """All videos that a conversion of the split lists."""
        return dict(self.videos[split.partition("/")[0]])

    def edit(self, dataset: str, rng: np.random.Generator) -> str:
        """Add, remove, correct, spoil or restore a video. Returns what was done."""
        videos = self.videos[dataset]
        name = str(rng.choice(sorted(videos))) if videos else ""
        verbs = ["add"] if len(videos) < 3 else ["add", "remove", "joints", "boxes", "spoil", "pictures", "touch"]
        verbs = [verb for verb in verbs if len(videos) < 9 or verb != "add"]
        verb = str(rng.choice(verbs))
        if verb == "add":
            free = [f"{number:04d}" for number in range(1, 20) if f"{number:04d}" not in videos]
            name = str(rng.choice(free))
            self._write(dataset, name, self._new(dataset, rng))
            return f"{name} added"
        if verb == "remove":
            del videos[name]
            for path in (self._label(dataset, name), self._frames(dataset, name)):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            return f"{name} removed"
        if verb == "touch":
            os.utime(self._label(dataset, name))
            return f"{name} touched"
        video = videos[name]
        if verb in ("joints", "boxes"):
            first = 0 if verb == "boxes" else 2
            people = list(video.people)
            who = int(rng.integers(len(people)))
            joints = people[who].joints.copy()
            at = int(rng.integers(len(joints)))
            joints[at, first:] = _joints(rng, 1)[0, first:]
            people[who] = replace(people[who], joints=joints)
            split = video.split
            if dataset == PENN and rng.random() < 0.2:
                split, verb = ("test" if split == "train" else "train"), f"{verb} and split"
            video = replace(video, people=tuple(people), spoiled=False, split=split)
        elif verb == "spoil":
            # Its version stays: restored before a conversion has seen it, it has not changed.
            self._write(dataset, name, replace(video, spoiled=not video.spoiled))
            return f"{name}: {'restored' if video.spoiled else 'spoiled'}"
        elif dataset != MOTION:
            pictures = dict(video.pictures)
            at = int(rng.choice(sorted(pictures)))
            if rng.random() < 0.3 and sum(value > 0 for value, _ in pictures.values()) > 2:
                del pictures[at]
            else:
                value = int(rng.integers(20, 256)) if rng.random() < 0.6 else 0
                others = sum(value > 0 for frame, (value, _) in pictures.items() if frame != at)
                pictures[at] = (value if others else 99, next(self.versions))
            video = replace(video, pictures=pictures)
        self._write(dataset, name, replace(video, version=next(self.versions)))
        return f"{name}: {verb}"

    def _new(self, dataset: str, rng: np.random.Generator) -> Video:
        n_frames = int(rng.integers(3, 13))
        people = []
        for _ in range(1 if dataset == PENN else int(rng.integers(1, 4))):
            frame = np.arange(n_frames)
            if dataset != PENN:
                frame = np.sort(rng.choice(n_frames, int(rng.integers(1, n_frames + 1)), replace=False))
            pose, betas = (rng.normal(size=(len(frame), n)).astype(np.float32) for n in (72, 10))
            people.append(Person(frame.astype(np.int64), _joints(rng, len(frame)), pose, betas))
        pictures = {frame: (int(rng.integers(20, 256)), next(self.versions)) for frame in range(n_frames)}
        split = "train" if dataset != PENN or rng.random() < 0.7 else "test"
        return Video(next(self.versions), split, tuple(people), {} if dataset == MOTION else pictures)

    def _write(self, dataset: str, name: str, video: Video) -> None:
        """Its files. Pictures that stay are not touched."""
        before = self.videos[dataset].get(name)
        self.videos[dataset][name] = video
        label, frames = self._label(dataset, name), self._frames(dataset, name)
        label.parent.mkdir(parents=True, exist_ok=True)
        if dataset == PENN:
            joints = video.people[0].joints[:, : 12 if video.spoiled else 13]
            train, shape = (1 if video.split == "train" else -1), (HEIGHT, WIDTH, len(joints))
            seen = np.ones(joints.shape[:2])
            arrays: dict[str, Any] = {"x": joints[..., 0], "y": joints[..., 1], "visibility": seen, "train": train}
            write_mat(label, {**arrays, "nframes": len(joints), "dimensions": np.array(shape, np.float64)})
        else:
            kept = (SoakMotion if dataset == MOTION else SoakPeople).kept
            of = [person.columns(kept, slice(None)) for person in video.people]
            arrays = {f"{key}_{number}": rows for number, one in enumerate(of) for key, rows in one.items()}
            np.savez(label, allow_pickle=False, **arrays, n_people=np.array(len(of)))
            if video.spoiled:
                label.write_bytes(label.read_bytes()[:-100])
        there = {} if before is None else before.pictures
        if dataset != MOTION:
            frames.mkdir(parents=True, exist_ok=True)
        for frame in there.keys() | video.pictures.keys():
            file = frames / f"{frame + 1:06d}.jpg"
            if frame not in video.pictures:
                file.unlink()
            elif video.pictures[frame] != there.get(frame):
                value, added = video.pictures[frame]
                grey = jpeg(np.full((HEIGHT, WIDTH, 3), value, np.uint8)) if value else b"no picture"
                file.write_bytes(grey + bytes(added))

    def _label(self, dataset: str, name: str) -> Path:
        below = f"labels/{name}.mat" if dataset == PENN else f"labels/train/{name}.npz"
        return self.folder / dataset / below

    def _frames(self, dataset: str, name: str) -> Path:
        return self.folder / dataset / (f"frames/{name}" if dataset == PENN else f"frames/train/{name}")


def _joints(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """(n, 13, 2): the first two at the corners, the others between them."""
    low = rng.integers((2, 4), (9, 17), (n, 1, 2))
    high = rng.integers((56, 30), (63, 45), (n, 1, 2))
    inner = rng.integers(17, 30, (n, 11, 2))
    return np.concatenate([low, high, inner], axis=1).astype(np.float64)
