"""What a console and a notebook show of a cache, in at most eight lines."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cache
from cache import CacheError


@pytest.fixture
def opened(tmp_path: Path, toy: Any) -> cache.FeatureCache:
    root = tmp_path / "cache"
    toy.write(root, [toy.video(f"v{number}<&>", [9, 12]) for number in range(9)])
    toy.write_stream(root)
    return cache.open(root)


def test_a_cache_and_a_split_say_what_they_hold(opened: cache.FeatureCache) -> None:
    shown = repr(opened).splitlines()
    assert shown[0] == f"FeatureCache {opened.root}, splits: 1"
    assert shown[1].split() == ["toy/train", "189", "rows,", "18", "tracks", "resnet50"]
    title, *lines = repr(opened["toy/train"]).splitlines()
    assert title == "Split toy/train: 189 rows of 18 tracks, 9 videos"
    facts = {line.split()[0]: line for line in lines}
    assert facts["streams"].endswith("resnet50 (4, float16)")
    assert facts["runs"].endswith("18 of consecutive frames, up to 12")
    assert facts["columns"].startswith("  columns    frame_index, bbox, kp_2d")


def test_tracks_and_windows_say_what_they_hold(opened: cache.FeatureCache) -> None:
    split = opened["toy/train"]
    lines = repr(split.tracks).splitlines()
    assert lines[0] == "TrackTable of 18 tracks, 189 rows"
    assert lines[1].split() == ["track", "rows", "step", "fps", "gender"]
    assert lines[2].split() == ["v0<&>/0", "0:9", "1", "25", "neutral"]
    assert lines[-1] == "  ... 13 more"
    assert repr(split.tracks[0]).startswith("TrackRecord(name='v0<&>/0'")
    lines = repr(cache.torch_windows(split, 4, 3, fields=("features", "kp_2d"))).splitlines()
    assert lines[0] == "TorchWindows 45 of 4 frames, stride 3"
    assert lines[2].split() == ["features", "(4,", "4)", "torch.float32"]


def test_nothing_is_longer_than_eight_lines_and_names_are_escaped(
    opened: cache.FeatureCache,
) -> None:
    split = opened["toy/train"]
    for shown in (opened, split, split.tracks, cache.torch_windows(split, 4)):
        assert len(repr(shown).splitlines()) <= 8
        assert 0 < shown._repr_html_().count("<tr>") <= 7
    assert "v0&lt;&amp;&gt;/0" in split.tracks._repr_html_()
    assert "v0<" not in split.tracks._repr_html_()


def test_damage_is_shown_and_not_raised(opened: cache.FeatureCache) -> None:
    split = opened["toy/train"]
    manifest = Path(opened.root) / "toy/train/features/resnet50/manifest.json"
    manifest.write_text("{}")
    assert "expected a manifest" in repr(split)
    (Path(opened.root) / "toy/train/manifest.json").write_text("{}")
    assert "a problem: open it" in repr(opened)


def test_tracks_are_a_table_of_pandas(
    opened: cache.FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = ModuleType("pandas")
    pandas.DataFrame = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    tracks = opened["toy/train"].tracks
    table: Any = tracks.to_pandas()
    for name in ("name", "video", "start", "stop", "fps", "step", "crop_scale", "gender"):
        assert list(table[name]) == [getattr(track, name) for track in tracks]


def test_without_pandas_the_error_says_how(
    opened: cache.FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(CacheError, match="pip install pandas"):
        opened["toy/train"].tracks.to_pandas()
