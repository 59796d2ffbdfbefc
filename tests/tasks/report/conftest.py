"""A small cache made by hand, whose numbers are known."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.random import default_rng

import cache
from pipeline.accounting import Accounting, VideoAccount
from pipeline.files.pixels.pictures import Pictures
from tests import made_splits
from tests.fixtures import *  # noqa: F403

Columns = Mapping[str, np.ndarray[Any, Any]]
PENN_FRAMES = (30, 10)  # of the two tracks
FPS = 25.0
BOX_PX = (100.0, 50.0)  # the longer side of each track's boxes
REJECTED = 7  # videos


def write_split(
    root,
    name,
    tracks,
    *,
    accounts=None,
    stand_in=True,
    raw=None,
    step=1,
):
    """A commit of a split. tracks: <video>/<person> -> its columns, one video each.

    accounts: what became of the videos; None: nothing is recorded of it.
    """
    columns = sorted(
        {column for track in tracks.values() for column in track} or {"frame_index", "bbox"}
    )
    provenance = {"raw": str(raw or root / "no-raw-folder")}
    videos = []
    for track, held in tracks.items():
        video = track.split("/")[0]
        source = (
            Pictures(raw or root, f"frames/{video}/{{:06d}}.jpg").spec if "bbox" in held else ""
        )
        rows = made_splits.track_of(track, held, step=step, fps=FPS)
        videos.append((cache.VideoEntry(name=video, source=source, width=320, height=240), [rows]))
    rejected = [account for account in accounts or () if account.set_aside]
    videos += [
        (cache.VideoEntry(name=account.name, account=account.as_dict()), []) for account in rejected
    ]
    recorded = {"stand_in": stand_in} | (
        {} if accounts is None else {"accounting": Accounting(accounts).totals()}
    )
    made_splits.write_split(root, name, videos, recorded, columns=columns, provenance=provenance)


def write_stream(root, name, features, ok=None):
    """features (rows, channels) of the split's first and only shard, as the stream "resnet50"."""
    flags = np.ones(len(features)) if ok is None else ok
    recorded = {"backbone": {"stand_in": True}}
    stream = {"dim": features.shape[1], "dtype": "float32", "recorded": recorded}
    made_splits.write_stream(
        root, name, "resnet50", lambda _: features.astype(np.float32), lambda _: flags, **stream
    )


def person(frames, *, side=100.0, visible=49):
    """Columns of a track with pixels: `visible` joints of a confidence above 0, on a circle in a
    box of that size.
    """
    angle = np.linspace(0, 6, 49)
    kp_2d = np.zeros((frames, 49, 3), np.float32)
    kp_2d[:, :visible, 0] = 160 + side / 3 * np.cos(angle[:visible])
    kp_2d[:, :visible, 1] = 120 + side / 3 * np.sin(angle[:visible])
    kp_2d[:, :visible, 2] = 1
    bbox = np.tile(np.float32([160, 120, side * 0.8, side]), (frames, 1))
    return {"frame_index": np.arange(frames), "bbox": bbox, "kp_2d": kp_2d}


def moving(degrees, frames):
    """Columns of a track of motion alone: each joint is turned about x, one way and the other in
    turn.
    """
    pose = np.zeros((frames, 24, 3), np.float32)
    pose[..., 0] = np.deg2rad(degrees) * np.where(np.arange(frames) % 2, 1, -1)[:, None]
    betas, flags = np.zeros((frames, 10), np.float32), np.ones(frames, np.uint8)
    return {
        "frame_index": np.arange(frames),
        "pose": pose.reshape(frames, 72),
        "betas": betas,
        "has_smpl": flags,
    }


def kept(videos, frames=10):
    """So many videos, each with one track of so many rows."""
    accounts = [VideoAccount(f"{i:04d}", found=frames) for i in range(videos)]
    for account in accounts:
        account.keep_track(frames)
    return accounts


def penn_accounts():
    """Two videos that were kept, of which one lost five frames, and seven that were rejected."""
    good = [
        VideoAccount("0001", found=PENN_FRAMES[0]),
        VideoAccount("0002", found=PENN_FRAMES[1] + 5),
    ]
    good[1].drop("no_box", 5)
    for account, frames in zip(good, PENN_FRAMES, strict=True):
        account.keep_track(frames)
    bad = [VideoAccount(f"1{i:03d}", found=3) for i in range(REJECTED)]
    for account in bad:
        account.reject("bad_labels", f"labels/{account.name}.mat: expected 13 joints, <found> 12.")
    return [*good, *bad]


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """Penn Action's training with pictures and a stream, and AMASS's: motion alone. Read-only."""
    folder = tmp_path_factory.mktemp("by-hand")
    raw = folder / "raw" / "penn_action"
    for video, frames in zip(("0001", "0002"), PENN_FRAMES, strict=True):
        (raw / "frames" / video).mkdir(parents=True)
        for frame in range(frames):
            picture = np.full((240, 320, 3), 5 * frame, np.uint8)
            assert cv2.imwrite(str(raw / "frames" / video / f"{frame:06d}.jpg"), picture)
    tracks = {"0001/0": person(PENN_FRAMES[0], side=BOX_PX[0])}
    tracks["0002/0"] = person(PENN_FRAMES[1], side=BOX_PX[1], visible=25)
    write_split(folder / "cache", "penn_action/train", tracks, accounts=penn_accounts(), raw=raw)
    features = default_rng(1).normal(size=(sum(PENN_FRAMES), 8))
    ok = np.ones(len(features))
    ok[:3] = 0
    write_stream(folder / "cache", "penn_action/train", features, ok)
    walk = {"0000/0": moving(10, 12)}
    write_split(folder / "cache", "amass/train", walk, accounts=kept(1, 12))
    return folder / "cache"
