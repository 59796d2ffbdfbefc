"""Another version of a reader decodes no clip again whose record is in the cache."""

import pytest

import cache
from pipeline.datasets.videos import OwnVideos
from pipeline.files.raw.files import MIB
from tests.pipeline.files.made_clips import HEIGHT, WIDTH, N, content, write_keypoints

SPLIT = "videos/train"
NULL_PACKET = b"\x47\x1f\xff\x10" + bytes(184)  # of a transport stream (ISO/IEC 13818-1, 2.4.3.3)


@pytest.fixture
def raw(tmp_path, luigi_cfg):
    """The folder of the clips."""
    luigi_cfg("videos", "[videos]\nmin_frames = 5\ncuts = no")  # cuts are found by decoding
    folder = tmp_path / "raw/videos"
    folder.mkdir(parents=True)
    return folder


CONVERT = "convert videos/train --raw RAW/videos --cache"


def test_another_version_of_the_reader_takes_the_record_of_a_clip_from_the_cache(
    raw, monkeypatch, types
):
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
    types(f"{CONVERT} CACHE")
    known = account_of(raw)["clip"]
    assert known["times"]["n"] == N

    (raw / "large.ts").write_bytes(before + start + blank + after)
    monkeypatch.setattr(OwnVideos, "version", OwnVideos.version + 1)
    types(f"{CONVERT} CACHE", f"frames {N} kept of {N}")
    assert account_of(raw)["clip"] == known

    # without a record, the frames are missing
    types(f"{CONVERT} TMP/fresh", code=1)


def account_of(raw):
    """The account of the only clip."""
    (video,) = cache.open(raw.parents[1] / "cache")[SPLIT].videos
    return video.account
