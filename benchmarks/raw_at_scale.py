"""Raw datasets of any size in their official layouts, without rendering much: what `convert.py` measures on.

Penn Action and AMASS are made up whole, from a seed: random labels in files like the release's, one picture under all
names. Of the others a little embedded data is rendered once (`seeds`), made as long as the release's videos are by
playing it there and back, and multiplied under new names. What is the same is hard-linked, so that a full-size dataset
takes seconds and little room. Everything is marked as a stand-in.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from plain_scripts import tf_records
from scipy.io import loadmat, savemat

from pipeline import synthetic
from pipeline.formats.cdf import load_cdf
from pipeline.raw.stand_in import MARKER
from pipeline.skeletons import JOINTS
from pipeline.synthetic.layouts.files import python2_pickle, write_cdf
from pipeline.synthetic.layouts.files import tf_example as example
from pipeline.synthetic.layouts.files import tfrecord as framed

FULL: Final = {"penn_action": 2326, "amass": 10_000}  # videos in the release, both splits; motions, about
PENN_FRAMES: Final = 163_841 / 2326  # a video; 18 to 663
LINKS: Final = 30_000  # names of one file, of the 65,000 that ext4 allows
SEEDS: Final = {  # videos a split and frames of the embedded data that is multiplied
    "penn_action": (1, 20),
    "posetrack": (2, 40),
    "insta_variety": (3, 20),
    "kinetics": (2, 60),
    "mpi_inf_3dhp": (2, 20),
    "h36m": (4, 40),
    "3dpw": (2, 30),
    "amass": (1, 300),
}
LENGTHS: Final = {"insta_variety": 240, "kinetics": 300, "mpi_inf_3dhp": 2000, "h36m": 2500, "3dpw": 300}  # frames
H36M_SUBJECTS: Final = ("S1", "S5", "S6", "S7", "S8")

Source = tuple[Path, int]  # the embedded data, and how many frames its videos are to have


def seed_of(name: str, folder: Path) -> Path:
    """The embedded data in `folder / name`, written when it is not there."""
    if not (folder / name).is_dir():
        n_videos, n_frames = SEEDS[name]
        synthetic.write_dataset(name, folder / name, n_videos=n_videos, n_frames=n_frames)
    return folder / name


def write(name: str, seed: Path, raw: Path, n: int, n_frames: int | None = None) -> Path:
    """A raw folder with about `n` videos in the training split, of the release's length or of `n_frames` frames.

    `seed` is embedded data as from `seed_of`. Returns `raw`.
    """
    raw.mkdir(parents=True)
    shutil.copy(seed / MARKER, raw / MARKER)
    WRITERS[name]((seed, n_frames or LENGTHS.get(name, 0)), raw, n)
    return raw


def penn_action(source: Source, raw: Path, n: int) -> None:
    """`n` videos of the release's lengths, every second one of the training split; compressed labels as there."""
    rng = np.random.default_rng(0)
    links = Links()
    picture = next((source[0] / "frames").glob("*/*.jpg"))
    (raw / "labels").mkdir()
    for number, n_frames in enumerate(_penn_lengths(rng, n), start=1):
        shape = (n_frames, len(JOINTS["penn_action"]))
        x, y = (rng.uniform(low, high, shape).round(3) for low, high in ((50, 400), (50, 250)))
        label = {
            "action": "bowl",
            "pose": "front",
            "x": x,
            "y": y,
            "visibility": (rng.uniform(size=shape) < 0.8).astype(np.uint8),
            "train": np.int32(1 if number % 2 else -1),
            "bbox": np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1),
            "dimensions": np.array([270, 480, n_frames], np.uint16),
            "nframes": np.uint16(n_frames),
        }
        savemat(raw / f"labels/{number:04d}.mat", label, do_compression=True)
        for frame in range(1, n_frames + 1):
            links.put(picture, raw / f"frames/{number:04d}/{frame:06d}.jpg")


def _penn_lengths(rng: np.random.Generator, n: int) -> list[int]:
    """`n` numbers of frames from 18 to 663, spread as the release's are, and as many in all for each video."""
    lengths = np.exp(rng.normal(np.log(58), 0.55, n)).round().clip(18, 663).astype(int)
    total = round(PENN_FRAMES * n)
    while difference := total - int(lengths.sum()):
        i = rng.integers(n)
        lengths[i] = np.clip(lengths[i] + np.sign(difference), 18, 663)
    return [int(length) for length in lengths]


def amass(source: Source, raw: Path, n: int) -> None:  # noqa: ARG001 - nothing is rendered
    """`n` motions of 2.5 to 20 s at 120 Hz, up to 40 different ones."""
    rng = np.random.default_rng(0)
    links = Links()
    (made := raw / ".made").mkdir()
    for number in range(min(n, 40)):
        n_frames = int(rng.integers(300, 2400))
        np.savez(
            made / f"{number}.npz",
            poses=rng.normal(0, 0.3, (1, 156)) + np.cumsum(rng.normal(0, 0.01, (n_frames, 156)), axis=0),
            betas=rng.normal(size=16),
            trans=rng.normal(size=(n_frames, 3)),
            gender=np.array("male"),
            mocap_framerate=np.array(120.0),
            dmpls=np.zeros((n_frames, 8)),
        )
    for i in range(n):
        links.put(made / f"{i % 40}.npz", raw / f"subset{i % 15:02d}/subject{i % 300:03d}/motion{i:05d}_poses.npz")
    shutil.rmtree(made)


def posetrack(source: Source, raw: Path, n: int) -> None:
    sequences = sorted((source[0] / "posetrack_data/annotations/train").glob("*.json"))
    links = Links()
    for i in range(n):
        labels, name = sequences[i % len(sequences)], f"{i + 1:06d}_copy_train"
        content = json.loads(labels.read_text())
        for image in content["images"]:
            image["file_name"] = image["file_name"].replace(labels.stem, name)
        file = raw / f"posetrack_data/annotations/train/{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        for picture in sorted((source[0] / "images/train" / labels.stem).iterdir()):
            links.put(picture, raw / "images/train" / name / picture.name)


def insta_variety(source: Source, raw: Path, n: int) -> None:
    """Shards of three examples, so `n` / 3 of them, at least one."""
    (shard,) = (source[0] / "train").glob("*.tfrecord")
    made = raw / "train/insta_variety_00000_copy00.tfrecord"
    made.parent.mkdir()
    made.write_bytes(b"".join(framed(example(_longer(record, source[1]))) for record in tf_records(str(shard))))
    links = Links()
    for i in range(1, n // SEEDS["insta_variety"][0]):
        links.put(made, raw / f"train/insta_variety_{i:05d}_copy00.tfrecord")


def _longer(record: Any, total: int) -> dict[str, Any]:
    """The features of an example with `total` frames."""
    stored = record.features.feature
    n_frames = stored["meta/N"].int64_list.value[0]
    features: dict[str, Any] = {}
    for key, feature in stored.items():
        kind = next((kind for kind in ("float_list", "int64_list") if getattr(feature, kind).value), "bytes_list")
        values = list(getattr(feature, kind).value)
        if len(values) >= n_frames:  # some for each frame
            each = len(values) // n_frames
            values = [v for t in there_and_back(n_frames, total) for v in values[t * each : (t + 1) * each]]
        dtype = {"float_list": np.float32, "int64_list": np.int64}.get(kind)
        features[key] = values if dtype is None else np.array(values, dtype)
    return features | {"meta/N": np.array([total])}


def kinetics(source: Source, raw: Path, n: int) -> None:
    seed, total = source
    clips = sorted((seed / "train").rglob("*.mp4"))
    links = Links()
    for i in range(n):
        clip, name = clips[i % len(clips)], f"copy{i:07d}_000000_000010"
        links.put(clip, raw / "train" / clip.parent.name / f"{name}.mp4")
        files = sorted((seed / "keypoints/train" / clip.stem).iterdir())
        for t, seen in enumerate(there_and_back(len(files), total)):
            links.put(files[seen], raw / "keypoints/train" / name / f"{name}_{t:012d}_keypoints.json")


def mpi_inf_3dhp(source: Source, raw: Path, n: int) -> None:
    """Sequences of two cameras; of more than the release's 16, subjects are made up."""
    seed, total = source
    (sequence,) = (labels.parent for labels in seed.glob("S*/Seq*/annot.mat"))
    label = loadmat(sequence / "annot.mat")
    for key in ("annot2", "annot3", "univ_annot3"):
        for cell in label[key]:
            cell[0] = cell[0][there_and_back(len(cell[0]), total)]
    links = Links()
    made = raw / "annot.mat"
    savemat(made, {k: v for k, v in label.items() if not k.startswith("__")}, do_compression=True)
    for i in range(max(1, n // SEEDS["mpi_inf_3dhp"][0])):
        copy = raw / f"S{i // 2 + 1}/Seq{i % 2 + 1}"
        links.put(made, copy / "annot.mat")
        links.put(sequence / "camera.calibration", copy / "camera.calibration")
        for folder in sorted((sequence / "imageFrames").iterdir()):
            pictures = sorted(folder.iterdir())
            for t, shown in enumerate(there_and_back(len(pictures), total), start=1):
                links.put(pictures[shown], copy / "imageFrames" / folder.name / f"frame_{t:06d}.jpg")
    made.unlink()


def h36m(source: Source, raw: Path, n: int) -> None:
    """Sequences of four cameras in the folders of all five subjects, without SMPL fits, with small grey videos."""
    seed, total = source
    shutil.copy(seed / "metadata.xml", raw / "metadata.xml")
    (made := raw / "made").mkdir()
    _grey_video(made / "video.mp4", total)
    poses = sorted((seed / "S1/MyPoseFeatures").rglob("*.cdf"))
    for file in poses:
        (made / file.parent.name).mkdir(exist_ok=True)
        pose = load_cdf(file, "Pose")[0]
        write_cdf(made / file.parent.name / file.name, pose[there_and_back(len(pose), total)])
    links = Links()
    for i in range(max(1, n // SEEDS["h36m"][0])):
        subject, take = raw / H36M_SUBJECTS[i % 5], f"Walking {i // 5 + 1}"
        for file in poses:
            name, kind = f"{take}.{file.name.rsplit('.', 2)[1]}", file.parent.name
            links.put(made / kind / file.name, subject / "MyPoseFeatures" / kind / f"{name}.cdf")
            if kind == "D2_Positions":
                links.put(made / "video.mp4", subject / "Videos" / f"{name}.mp4")
    shutil.rmtree(made)


def _grey_video(file: Path, n_frames: int) -> None:
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 50, (64, 64))
    for _ in range(n_frames):
        writer.write(np.full((64, 64, 3), 128, np.uint8))
    writer.release()


def threedpw(source: Source, raw: Path, n: int) -> None:
    seed, total = source
    sequences = sorted((seed / "sequenceFiles/train").glob("*.pkl"))
    made = [python2_pickle(_longer_sequence(pickle.loads(f.read_bytes(), encoding="latin1"), total)) for f in sequences]
    links = Links()
    (raw / "sequenceFiles/train").mkdir(parents=True)
    for i in range(n):
        labels, name = sequences[i % len(sequences)], f"outdoors_copy_{i:04d}"
        (raw / f"sequenceFiles/train/{name}.pkl").write_bytes(made[i % len(sequences)])
        pictures = sorted((seed / "imageFiles" / labels.stem).iterdir())
        for t, shown in enumerate(there_and_back(len(pictures), total)):
            links.put(pictures[shown], raw / f"imageFiles/{name}/image_{t:05d}.jpg")


def _longer_sequence(sequence: dict[str, Any], total: int) -> dict[str, Any]:
    n_frames = len(sequence["cam_poses"])
    index = there_and_back(n_frames, total)

    def longer(value: Any) -> Any:
        return value[index] if isinstance(value, np.ndarray) and len(value) == n_frames else value

    return {
        key: [longer(v) for v in value] if isinstance(value, list) else longer(value) for key, value in sequence.items()
    }


def there_and_back(n: int, total: int) -> NDArray[np.int64]:
    """`total` frames out of `n`, without a leap.

    >>> there_and_back(3, 8).tolist()
    [0, 1, 2, 2, 1, 0, 0, 1]
    """
    there = np.arange(n)
    return np.resize(np.concatenate([there, there[::-1]]), total)


WRITERS: Final[Mapping[str, Callable[[Source, Path, int], None]]] = {
    "penn_action": penn_action,
    "posetrack": posetrack,
    "insta_variety": insta_variety,
    "kinetics": kinetics,
    "mpi_inf_3dhp": mpi_inf_3dhp,
    "h36m": h36m,
    "3dpw": threedpw,
    "amass": amass,
}


class Links:
    """Files under many names: hard links to a copy, to another copy when that has too many."""

    def __init__(self) -> None:
        self._copies: dict[Path, tuple[Path, int]] = {}  # of what -> a copy, and how many names it may still get

    def put(self, file: Path, name: Path) -> None:
        name.parent.mkdir(parents=True, exist_ok=True)
        copy, left = self._copies.get(file, (file, 0))
        if left:
            os.link(copy, name)
        else:
            shutil.copy(file, name)
            copy, left = name, LINKS
        self._copies[file] = (copy, left - 1)
