"""A folder for a hub: several splits as Parquet with a card, whose front matter names the files."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.testing import assert_array_equal

import cache
from cache.format.extra import ExtraColumn
from pipeline.datasets.base import Licence
from pipeline.datasets.videos import OwnVideos
from tests.made_splits import make, track_of, write_split

SPLITS = {"train": "3dpw/train", "test": "3dpw/test"}
PRIVATE = "> For yourself or a private repository"


@pytest.fixture
def exported(exportable, tmp_path, types):
    """The cache of both splits, whose columns differ, and the folder."""
    for name in SPLITS.values():
        root = exportable(name)
    types(f"export 3dpw/train 3dpw/test --cache {root} --format parquet --out TMP/hub", "DEMO DATA")
    return root, tmp_path / "hub"


def front_matter(folder):
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text.lstrip()


def require_rows(split, column, values):
    """Compare with the cache; NaN or None where the split has no such column."""
    if column in split.columns:
        live = split.live(column)
        assert_array_equal(np.asarray(values, live.dtype), live, column)
    else:
        assert all(value is None or np.isnan(value).all() for value in values), column


def test_the_front_matter_names_files_with_all_rows_of_each_split(exported):
    root, folder = exported
    front, text = front_matter(folder)
    assert text.startswith("# 3dpw/test, 3dpw/train")
    assert front["license"] == "mit"
    configs = {config["config_name"]: config for config in front["configs"]}
    assert [*configs] == ["rows", "tracks", "videos", "accounting"]
    assert [name for name, config in configs.items() if config.get("default")] == ["rows"]
    for config in configs.values():
        tables = {one["split"]: pq.read_table(folder / one["path"]) for one in config["data_files"]}
        assert tables.keys() == SPLITS.keys()
        assert tables["train"].schema.equals(tables["test"].schema), "one table for a loader"
    for one in configs["rows"]["data_files"]:
        split, rows = cache.open(root)[SPLITS[one["split"]]], pq.read_table(folder / one["path"])
        for column in {*split.columns, "kp_3d", "kp_3d_eval"}:
            require_rows(split, column, rows[column].to_pylist())
            assert f"| `{column}` |" in text
    tracks = {one["split"]: one["path"] for one in configs["tracks"]["data_files"]}
    assert len(pq.read_table(folder / tracks["test"])) == len(cache.open(root)["3dpw/test"].tracks)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_loads_it(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets", reason="needs Hugging Face's package datasets")
    root, folder = exported
    for name, split_name in SPLITS.items():
        split = cache.open(root)[split_name]
        rows = datasets.load_dataset(str(folder), split=name, cache_dir=str(tmp_path / "cache"))
        assert len(rows) == split.tracks.n_rows
        for column in {*split.columns, "kp_3d", "kp_3d_eval"}:
            require_rows(split, column, rows[column][:])
        streamed = datasets.load_dataset(str(folder), split=name, streaming=True)
        assert next(iter(streamed))["track_name"] == split.tracks[0].name
    tracks = datasets.load_dataset(str(folder), "tracks", cache_dir=str(tmp_path / "cache"))
    assert {name: len(table) for name, table in tracks.items()} == {
        name: len(cache.open(root)[split].tracks) for name, split in SPLITS.items()
    }


def test_the_card_says_whether_the_rows_may_be_passed_on(tmp_path, types):
    for name in ("amass/train", "videos/train"):
        make(tmp_path / "cache", name)
    export = "export {} --cache CACHE --format parquet --out TMP/{}"
    types(export.format("amass videos", "all"), "amass/train, videos/train: ")
    types(export.format("amass", "a"), "the terms of amass", "do not let its rows be passed on")
    front, text = front_matter(tmp_path / "a")
    assert front["license"] == "other"
    assert text.startswith(f"{PRIVATE}: the terms of amass (licence AMASS's licence, https://")
    assert "hf upload" not in text
    refused = "--public is refused. For yourself or a private repository: the terms of amass"
    types(f"{export.format('amass/train videos/train', 'p')} --public", refused, code=2)
    assert not (tmp_path / "p").exists()
    types(export.format("amass/train videos/train", "both"))
    front, text = front_matter(tmp_path / "both")
    files = [one["path"] for one in front["configs"][0]["data_files"]]
    assert files == ["amass/train/rows.parquet", "videos/train/rows.parquet"]
    assert [one["split"] for one in front["configs"][0]["data_files"]] == [
        "amass.train",
        "videos.train",
    ]
    # own clips: who made them knows
    types(export.format("videos", "v"), "Ask whoever made the dataset")
    assert front_matter(tmp_path / "v")[1].startswith(f"{PRIVATE}, unless the terms of videos")
    types(f"{export.format('videos train', 'mine')} --public")
    front, text = front_matter(tmp_path / "mine")
    assert text.startswith("# videos/train") and "hf upload" in text
    assert front["license"] == "other"


def test_a_licence_that_lets_rows_be_passed_on_is_named_and_no_other(tmp_path, types, monkeypatch):
    licence = Licence("CC BY 4.0", "https://site.org/terms", "yes")
    monkeypatch.setattr(OwnVideos, "release", replace(OwnVideos.release, licence=licence))
    make(tmp_path / "cache", "videos/train")
    types("export videos train --cache CACHE --format parquet --out TMP/hub --public")
    front, text = front_matter(tmp_path / "hub")
    assert front["license"] == "other" and PRIVATE not in text
    assert "- videos: licence CC BY 4.0, https://site.org/terms" in text


def test_other_formats_take_one_split_and_have_no_card(tmp_path, types):
    for name in ("made/train", "made/val"):
        make(tmp_path / "cache", name)
    export = "export made{} --cache CACHE --format vibe --out TMP/db.pt"
    refused = "the format vibe takes one DATASET/SPLIT, without --public, found made/"
    types(export.format(""), f"{refused}train, made/val", code=2)
    types(f"{export.format('/val')} --public", refused, code=2)


def test_two_splits_of_one_name_on_a_hub_are_refused_and_others_get_names_that_it_takes(
    tmp_path, types
):
    for name in ("made/a-b", "made/a.b", "made/a--c-", "other/a.b"):
        make(tmp_path / "cache", name)
    export = "export {} --cache CACHE --format parquet --out TMP/hub"
    refused = "made/a-b and made/a.b are both a.b on a hub. Export each into a folder of its own"
    types(export.format("made/a-b made/a.b"), refused, code=2)
    assert not (tmp_path / "hub").exists()
    types(export.format("made/a-b made/a--c- other/a.b"))
    front, _ = front_matter(tmp_path / "hub")
    files = {one["split"]: one["path"] for one in front["configs"][0]["data_files"]}
    assert files == {
        "made.a.b": "made/a-b/rows.parquet",
        "made.a.c": "made/a--c-/rows.parquet",
        "other.a.b": "other/a.b/rows.parquet",
    }


def test_different_columns_of_one_name_are_refused(tmp_path, types):
    make(tmp_path / "cache", "made/train")
    action = ExtraColumn(name="action", about="another number", dtype="int32")
    track = track_of(
        "a/0", {"frame_index": np.arange(3)}, extra={"action": np.arange(3, dtype=np.int32)}
    )
    video = cache.VideoEntry(name="a")
    write_split(tmp_path / "cache", "made/val", [(video, [track])], extra=[action])
    command = "export made --cache CACHE --format parquet --out TMP/x"
    types(command, "the column 'action' has different shapes or types", code=2)
    assert not (tmp_path / "x").exists()
