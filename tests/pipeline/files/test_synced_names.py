"""No page, clip, export or demo file gets its final name before it is synced."""

import importlib.util

import pytest

from pipeline.extras.demo.layouts import Request
from tests.synced import watch_renames

pytestmark = pytest.mark.promise("power cut")

PREPARE = "prepare penn_action --raw RAW/penn_action --cache CACHE --weights untrained:0"


def test_of_prepare_and_show(penn, types, network):
    folder = penn.root.parent
    with watch_renames(folder) as renames:
        types(PREPARE)
        shown = "show penn_action/train --cache CACHE --out"
        types(f"{shown} {folder}/tracks.html")
        types(f"{shown} {folder}/clip.mp4 --video 0001")
    pages = {"index.html", "tracks.html", "clip.mp4"}
    assert pages <= {*renames.names}
    assert renames.unsynced == []


def test_of_demo_data(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Request, "frames", lambda self, usual: 4)
    with watch_renames(tmp_path) as renames:
        assert run("synthesize", "--out", tmp_path / "demo", "--size", "tiny", "--workers", 1) == 0
    assert {"penn_action", "amass", "body"} <= {*renames.names}
    assert renames.unsynced == []


@pytest.mark.parametrize("kind", ["vibe", "parquet", "rerun"])
def test_of_an_export(kind, penn, types, network):
    package = {"parquet": "pyarrow", "rerun": "rerun"}.get(kind)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install -e '.[exchange]'")
    types(PREPARE)
    out = penn.root.parent / ("out.rrd" if kind == "rerun" else "out")
    with watch_renames(penn.root.parent) as renames:
        types(f"export penn_action/train --cache CACHE --format {kind} --out {out}")
    assert out.name in renames.names
    assert renames.unsynced == []


@pytest.mark.parametrize("left", [b"", b"<half>"], ids=["empty", "torn"])
def test_a_page_that_a_power_cut_emptied_or_tore_is_written_again(left, penn, types, network):
    types(PREPARE)
    page = penn.root.parent / "cache-penn_action-train/index.html"
    whole = page.read_bytes()
    page.write_bytes(whole[:2000] if left else left)
    types(PREPARE)
    assert page.read_bytes() == whole
