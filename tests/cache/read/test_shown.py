"""What a console shows of a cache."""

import pytest

import cache


@pytest.fixture
def opened(tmp_path, toy):
    root = tmp_path / "cache"
    toy.write(root, [toy.video(f"v{number}", [9, 12]) for number in range(9)])
    toy.write_stream(root)
    return cache.open(root)


def test_each_object_says_what_it_is(opened):
    split = opened["toy/train"]
    assert repr(opened) == f"cache.open({str(opened.root)!r})"
    assert repr(split) == "Split toy/train: 189 rows of 18 tracks, 9 videos"
    assert repr(split.tracks) == "TrackTable of 18 tracks, 189 rows"
    assert repr(split.tracks[0]).startswith("TrackRecord(name='v0/0'")
    windows = cache.torch_windows(split, 4, 3)
    assert repr(windows) == "TorchWindows of toy/train: 45 of 4 frames"
