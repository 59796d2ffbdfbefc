"""Clips that earlier versions decoded by OpenCV: only rows with other pixels are computed again."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline.conversion.reading import ReadVideo
from pipeline.datasets.videos import OwnVideos
from pipeline.files.pixels.sources import file_part
from pipeline.files.raw.files import MIB
from tests.pipeline.features.test_clips_in_the_cache import DAMAGE, SPLIT, write_keypoints
from tests.pipeline.files.made_clips import HEIGHT, WIDTH, with_matrix, zero
from tests.pipeline.files.test_videos_of_all_kinds import N, content

KNOWN = {  # clip of `WHOLE` -> how OpenCV decodes it otherwise
    "h264.mp4": "",
    "h264_b_frames.mp4": "",
    "uneven.mkv": "",
    "vp9.webm": "",
    "interlaced.mp4": "interlaced",
    "hlg.mp4": "HDR",
    "wide_pixels.mp4": "pixels not square",
}
CLIPS = {**KNOWN, "turned.mp4": "", "mirrored.mp4": "mirrored", "damaged.mp4": "damaged"}
SETTINGS = """
[features]
streams = resnet50
[resnet50]
weights = untrained:0
[videos]
min_frames = 5
"""
STREAM = "features/resnet50"
NULL_PACKET = b"\x47\x1f\xff\x10" + bytes(184)  # of a transport stream (ISO/IEC 13818-1, 2.4.3.3)


@contextlib.contextmanager
def earlier_version() -> Iterator[None]:
    """The split is written as by version 5 of the reader, which recorded nothing about clips."""
    present: Any = ReadVideo.entry

    def without_record(read: ReadVideo) -> cache.VideoEntry:
        entry: cache.VideoEntry = present.fget(read)
        account = {name: value for name, value in entry.account.items() if name != "clip"}
        return replace(entry, pixels=file_part(entry.pixels), account=account)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OwnVideos, "version", 5)
        patch.setattr(ReadVideo, "entry", property(without_record))
        yield


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The folder of the clips; demo data, since the network has random weights."""
    folder = tmp_path / "raw/videos"
    folder.mkdir(parents=True)
    (folder / "STAND_IN.json").write_text('{"stand_in": true}')
    return folder


@pytest.fixture
def runs(raw: Path, luigi_cfg: Any, network: Any, ran: Any) -> Callable[..., str]:
    """What a command printed for the split, in one line."""
    luigi_cfg("videos", SETTINGS)
    places = ("--raw", raw, "--cache", raw.parents[1] / "cache")

    def run(command: str, *more: object, code: int = 0) -> str:
        named = () if command == "plan" else places
        shown: str = ran(command, SPLIT, *named, *more, code=code).out
        return " ".join(shown.split())

    return run


def write_clips(raw: Path) -> None:
    for name in KNOWN:
        (raw / name).write_bytes(content(name))
    (raw / "turned.mp4").write_bytes(with_matrix(content("h264.mp4"), "a quarter turn"))
    (raw / "mirrored.mp4").write_bytes(with_matrix(content("h264.mp4"), "mirrored"))
    (raw / "damaged.mp4").write_bytes(zero(content("h264.mp4"), DAMAGE))
    for name in CLIPS:
        write_keypoints(raw, name, (HEIGHT, WIDTH) if name == "turned.mp4" else (WIDTH, HEIGHT))


def test_of_a_cache_whose_clips_opencv_decoded_only_rows_with_other_pixels_are_computed_again(
    raw: Path, into: Any, runs: Callable[..., str]
) -> None:
    write_clips(raw)
    root = raw.parents[1] / "cache"
    with earlier_version():
        runs("convert")
        assert "0 carried over" in runs("extract")
        assert "decoded otherwise" not in runs("plan")
    n_rows = cache.open(root)[SPLIT].manifest["rows"]
    features = into.rows(root, SPLIT, STREAM)
    keys = into.rows(root, SPLIT, f"{STREAM}_key")
    assert set(features) == {f"{name}/0" for name in CLIPS}

    shown = runs("plan")
    assert f"convert {len(CLIPS)} videos to read of {len(CLIPS)}" in shown
    assert f"why version was 5, is {OwnVideos.version}" in shown
    assert "no feature can be carried over" not in shown
    runs("convert", code=1)  # for the damaged clip
    again = [f"{name} ({why})" for name, why in sorted(CLIPS.items()) if why]
    listed = f"{len(again)} clips that earlier versions decoded otherwise: {' '.join(again)}"
    assert listed in runs("plan", "--all").partition(" forecast")[0]
    n_again = sum(len(features[f"{name}/0"]) for name, why in CLIPS.items() if why)
    shown = runs("extract")
    assert f"{n_again} rows computed" in shown
    assert f"{n_rows - n_again} carried over" in shown

    features_now = into.rows(root, SPLIT, STREAM)
    keys_now = into.rows(root, SPLIT, f"{STREAM}_key")
    for name, why in CLIPS.items():
        is_same_key = (keys_now[f"{name}/0"] == keys[f"{name}/0"]).all(axis=1)
        assert (~is_same_key if why else is_same_key).all(), name
        if not why:
            np.testing.assert_array_equal(features_now[f"{name}/0"], features[f"{name}/0"])

    assert "up to date" in runs("convert")
    assert "up to date" in runs("plan")
    assert "up to date" in runs("extract")


def test_clips_that_no_earlier_version_decoded_are_not_named(
    raw: Path, runs: Callable[..., str]
) -> None:
    write_clips(raw)
    runs("convert", code=1)  # for the damaged clip
    assert "decoded otherwise" not in runs("plan")
    runs("extract")
    (raw / "new.mp4").write_bytes(content("interlaced.mp4"))
    write_keypoints(raw, "new.mp4", (WIDTH, HEIGHT))
    runs("convert")
    shown = runs("plan")
    assert f"extract resnet50: {N} of" in shown
    assert "decoded otherwise" not in shown


def test_another_version_of_the_reader_takes_the_record_of_a_clip_from_the_cache(
    raw: Path, monkeypatch: pytest.MonkeyPatch, runs: Callable[..., str]
) -> None:
    """A large file has a digest of parts. The clip is between them: most of it can vanish
    unseen.
    """
    clip = content("h264.ts")
    start = clip[: len(clip) // 188 // 4 * 188]
    blank = NULL_PACKET * (len(clip[len(start) :]) // 188)
    before = NULL_PACKET * (2 * MIB // 188)
    after = NULL_PACKET * (20 * MIB // 188)
    (raw / "large.ts").write_bytes(before + clip + after)
    write_keypoints(raw, "large.ts", (WIDTH, HEIGHT))
    without_cuts = ("--set", "videos.cuts=false")  # which are found by decoding
    runs("convert", *without_cuts)
    known = account_of(raw)["clip"]
    assert known["times"]["n"] == N

    (raw / "large.ts").write_bytes(before + start + blank + after)
    monkeypatch.setattr(OwnVideos, "version", OwnVideos.version + 1)
    shown = runs("convert", *without_cuts)
    assert f"frames {N} kept of {N}" in shown
    assert account_of(raw)["clip"] == known

    fresh = raw.parents[1] / "fresh"
    # without a record, the frames are missing
    runs("convert", *without_cuts, "--cache", fresh, code=1)


def account_of(raw: Path) -> Any:
    """The account of the only clip."""
    (video,) = cache.open(raw.parents[1] / "cache")[SPLIT].videos
    return video.account
