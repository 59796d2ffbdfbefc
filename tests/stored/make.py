"""Store the cache of a release, for the tests of all later ones. Run it once for each release, by
the Python of an environment with the wheel alone, in no clone:

    ~/vibe/bin/python tests/stored/make.py tests/stored/0.1.0.tar.xz

It writes below /tmp/vibe, and says that the machine is `host`: the cache names nobody's folder and
machine.

    cache/          penn_action/train: two commits, a removed video, resnet50, and a stream that
                    lags; emdb/emdb1, rich/train and videos/train, without their raw data
    raw/            Penn Action's images and labels
    later/          another video of it, to append
    config.json     of a training of VIBE
    expected.npz    four windows of all fields of each split, by SPLIT/FIELD
    expected.json   content digests by split and stream, and numbers of rows
"""

import json
import os
import platform
import shutil
import socket
import sys
import tarfile
from pathlib import Path

import numpy as np

import cache
from cache.format.layout import COLUMNS
from pipeline.__main__ import main
from pipeline.extras.demo import writing
from pipeline.extras.demo.layouts import Request
from pipeline.people.skeletons import add_confidence, convert
from vibe_model import TrainConfig, training

WORK = Path("/tmp/vibe")
STORED = ("cache", "raw", "later", "config.json", "expected.npz", "expected.json")
SEQLEN = 5
LABELS = ("kp_2d", "kp_3d", "theta", "w_3d", "w_smpl", "w_kp_3d", "valid", "rows")
OF_TRACKS = ("gender", "intrinsics", "image_size", "crop_scale")
CORRECTIONS = """\
leave_out videos/train/train/clip_00.mp4/0 3-4
exchange_sides videos/train/train/clip_00.mp4/0 8-9
"""


def run(*words):
    if code := main([str(word) for word in words]):
        sys.exit(f"{words}: exit code {code}")


def convert_split(name, *options):
    dataset = name.partition("/")[0]
    where = ("--raw", WORK / "raw" / dataset, "--body", WORK / "body", "--cache", WORK / "cache")
    run("convert", name, *where, "--workers", 1, *options)


def extract(stream, *options):
    where = ("--cache", WORK / "cache", "--device", "cpu", "--workers", 1)
    run("extract", "penn_action/train", "--stream", stream, *where, *options)


def move_penn(video, start, to):
    """Move a video's images and labels, or delete them where `to` is None."""
    for name in (f"frames/{video}", f"labels/{video}.mat"):
        if to is None:
            (shutil.rmtree if (start / name).is_dir() else os.remove)(start / name)
        else:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (start / name).rename(to / name)


def make_penn():
    """Two videos are converted, one more is appended, and the first one is removed."""
    raw, later, second = WORK / "raw/penn_action", WORK / "later", WORK / "second"
    takes = writing.write_dataset("penn_action", raw, Request(n_videos=4, n_frames=8))
    for take in takes:
        if take.shot.split == "test":
            move_penn(take.shot.name, raw, None)
    videos = [take.shot.name for take in takes if take.shot.split == "train"]
    (raw / "STAND_IN.json").write_text('{"stand_in": true}')  # lists no files, which change
    move_penn(videos[2], raw, second)
    move_penn(videos[3], raw, later)
    convert_split("penn_action/train")
    extract("homography")
    move_penn(videos[2], second, raw)
    move_penn(videos[0], raw, None)
    convert_split("penn_action/train", "--drop-removed")
    extract("resnet50", "--weights", "untrained:0", "--precision", "exact")


def make_clips():
    """Clips with OpenPose's files of people, hands and corrections."""
    raw = WORK / "raw/videos"
    rng = np.random.default_rng(0)
    for take in writing.write_dataset("videos", raw, Request(n_videos=1, n_frames=16)):
        folder = raw / "keypoints" / f"{take.shot.file}"
        folder.mkdir(parents=True)
        for t in range(take.shot.n_frames):
            people = []
            for actor in take.actors:
                joints = add_confidence(actor.kp_2d[t], np.ones(49, bool))
                body = convert(joints, source="spin49", target="body_25")
                hands = joints[[36, 31], None] + rng.normal(0, 4, (2, 21, 3)) * (1, 1, 0)
                people.append(
                    {
                        "pose_keypoints_2d": body.ravel().tolist(),
                        "hand_left_keypoints_2d": hands[0].ravel().tolist(),
                        "hand_right_keypoints_2d": hands[1].ravel().tolist(),
                    }
                )
            (folder / f"clip_{t:012d}_keypoints.json").write_text(json.dumps({"people": people}))
    (WORK / "corrections.txt").write_text(CORRECTIONS)
    corrections = WORK / "corrections.txt"
    settings = {"convert.corrections": corrections, "videos.hands": "true", "videos.min_frames": 5}
    convert_split("videos/train", *(f"--set={key}={value}" for key, value in settings.items()))


def fields_of(split):
    """All fields of `Split.read` that a split has."""
    own = [*split.extra, *(name for name in COLUMNS if name in split.columns)]
    evaluated = ["kp_3d_eval"] if "kp_3d_eval" in split.columns else []
    return list(dict.fromkeys([*LABELS, *OF_TRACKS, *own, *evaluated]))


def expect():
    """Four windows of each field, and digests."""
    values, about = {}, {}
    opened = cache.open(WORK / "cache")
    for name in opened:
        split = opened[name]
        windows = split.windows(seqlen=SEQLEN, stride=1)
        windows = windows[np.linspace(0, len(windows) - 1, 4).astype(int)]
        values[f"{name}/windows"] = windows
        batch = split.read(windows, stream=None, fields=fields_of(split))
        digests = {"": cache.content_digest(split)}
        for stream in split.streams:
            digests[stream] = cache.content_digest(split, stream)
            computed = split.windows(seqlen=SEQLEN, stride=1, stream=stream)[:4]
            values[f"{name}/{stream}/windows"] = computed
            read = split.read(computed, fields=("features", "kp_2d"), stream=stream)
            batch |= {f"{stream}/{field}": array for field, array in read.items()}
        values |= {f"{name}/{field}": array for field, array in batch.items()}
        rows, tracks = split.manifest["rows"], [*split.tracks.names]
        about[name] = {"digests": digests, "rows": rows, "tracks": tracks}
    np.savez(WORK / "expected.npz", **values)
    (WORK / "expected.json").write_text(json.dumps(about, indent=1))


def train():
    config = TrainConfig(
        name="vibe",
        cache=WORK / "cache",
        runs=WORK / "runs",
        datasets_2d=("penn_action/train",),
        datasets_3d=(),
        evaluation=(),
        validation=("penn_action/train:1/2",),
        motion=(),
        prior="none",
        seqlen=SEQLEN,
        stride=2,
        batch_size=2,
        iterations=1,
        epochs=1,
        device="cpu",
        hidden_size=8,
    )
    shutil.copy(training.run(config) / "config.json", WORK)


def make(to):
    socket.gethostname = lambda: "host"
    platform.platform = lambda *_: "Linux"
    WORK.mkdir()
    writing.write_body(WORK / "body")
    make_penn()
    for dataset, split in (("emdb", "emdb1"), ("rich", "train")):
        usual = writing.LAYOUTS[dataset]
        request = Request(n_videos=usual.n_videos, n_frames=usual.n_frames)
        writing.write_dataset(dataset, WORK / "raw" / dataset, request)
        convert_split(f"{dataset}/{split}")
    make_clips()
    run("gc", "--cache", WORK / "cache")
    expect()
    train()
    for dataset in ("emdb", "rich", "videos"):
        shutil.rmtree(WORK / "raw" / dataset)
    with tarfile.open(to, "w:xz") as archive:
        for name in STORED:
            archive.add(WORK / name, name, filter=without_owner)
    shutil.rmtree(WORK)


def without_owner(entry):
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
