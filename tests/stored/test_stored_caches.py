"""The caches that earlier releases wrote are read to the bit, and worked on as if this version had
written them. These tests stay as long as a 0.x version is released; `make.py` stores a cache.
"""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal

import cache
from cache.errors import CacheError
from cache.format import manifest
from pipeline.datasets.penn_action import PennAction
from tests.trees import tree
from vibe_model import TrainConfig, runs

ARCHIVES = sorted(Path(__file__).parent.glob("*.tar.xz"))
SPLIT = "penn_action/train"
NETWORK = ("--stream", "resnet50", "--weights", "untrained:0", "--precision", "exact")


@pytest.fixture(params=ARCHIVES, ids=lambda archive: archive.name.removesuffix(".tar.xz"))
def stored(request, tmp_path):
    """What a release has stored, in a folder with another path and new times of files."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    for file in tmp_path.rglob("*"):
        file.touch()
    return tmp_path


@pytest.fixture
def expected(stored):
    return json.loads((stored / "expected.json").read_text())


def require_as_expected(stored):
    """All fields of the stored windows, and the digests of all splits and streams."""
    values = np.load(stored / "expected.npz")
    opened = cache.open(stored / "cache")
    about = json.loads((stored / "expected.json").read_text())
    assert {*opened} == {*about}
    compared = set()
    for name, split in opened.items():
        fields = [key.removeprefix(f"{name}/") for key in values if key.startswith(f"{name}/")]
        labels = [field for field in fields if "/" not in field and field != "windows"]
        windows = values[f"{name}/windows"]
        batch = split.read(windows, stream=None, fields=labels)
        found = {field: batch[field] for field in labels}
        for stream in split.streams:
            windows = values[f"{name}/{stream}/windows"]
            batch = split.read(windows, stream=stream, fields=("features", "kp_2d"))
            found |= {f"{stream}/{field}": array for field, array in batch.items()}
        for field, array in found.items():
            assert array.dtype == values[f"{name}/{field}"].dtype, f"{name} {field}"
            assert_array_equal(array, values[f"{name}/{field}"], f"{name} {field}")
            compared.add(f"{name}/{field}")
        assert split.manifest["rows"] == about[name]["rows"]
        assert [*split.tracks.names] == about[name]["tracks"]
        digests = {stream: cache.content_digest(split, stream) for stream in split.streams}
        assert {"": cache.content_digest(split), **digests} == about[name]["digests"]
    assert compared == {key for key in values if not key.endswith("/windows")}


@pytest.mark.promise("stored")
def test_all_fields_of_a_stored_cache_are_read_to_the_bit(stored):
    require_as_expected(stored)


def test_a_format_that_changes_alone_is_noticed(stored, monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT", "vibe-cache 4")
    with pytest.raises(CacheError, match="expected format 'vibe-cache 4'"):
        require_as_expected(stored)


@pytest.mark.promise("stored")
def test_plain_zarr_reads_the_columns_of_a_stored_cache(stored):
    values = np.load(stored / "expected.npz")
    group = zarr.open_group(stored / "cache", mode="r")
    compared = 0
    for key in values:
        split, _, column = key.rpartition("/")
        if split in group and f"{split}/windows" in values and column in group[split]:
            if column in ("kp_2d", "kp_3d", "kp_3d_eval", "kp_2d_hands"):
                continue  # `read` gives these in the coordinates of crops, or with a weight
            for window, read in zip(values[f"{split}/windows"], values[key], strict=True):
                assert_array_equal(group[split][column][slice(*window)], read, key)
            compared += 1
    assert compared > 10


@pytest.mark.promise("stored")
def test_a_stored_cache_is_whole_and_up_to_date_and_takes_another_video(stored, ran, expected):
    root, raw = stored / "cache", stored / "raw/penn_action"
    before = tree(root)
    on_split = (SPLIT, "--cache", root, "--raw", raw)
    assert "intact" in ran("verify", "--cache", root).out
    shown = ran("status", "--cache", root, code=1).out  # the raw folders of three are not there
    assert all(name in shown for name in expected)
    ran("gc", "--cache", root)
    assert tree(root) == before
    again = ran("convert", *on_split).out
    assert "up to date" in again or "why: version was" in again  # of a later reader
    computed = ran("extract", *on_split, *NETWORK).out
    assert "up to date" in computed or "0 rows computed" in computed
    ran("copy", "--cache", root, "--to", stored / "copied", *expected)
    copied = cache.open(stored / "copied")
    assert {name: cache.content_digest(copied[name]) for name in copied} == {
        name: about["digests"][""] for name, about in expected.items()
    }
    shutil.copytree(stored / "later", raw, dirs_exist_ok=True)
    assert "1 video read, 2 unchanged" in ran("convert", *on_split).out
    lagging = ran("extract", *on_split, "--stream", "homography", "--device", "cpu").out
    assert "16 rows computed" in lagging  # of 24
    assert "intact" in ran("verify", "--cache", root).out


@pytest.mark.promise("stored")
def test_rows_that_a_later_reader_reads_again_keep_their_features(stored, ran, monkeypatch):
    monkeypatch.setattr(PennAction, "version", PennAction.version + 1)
    root = stored / "cache"
    on_split = (SPLIT, "--cache", root, "--raw", stored / "raw/penn_action")
    features = cache.open(root)[SPLIT].live("features/resnet50")
    assert "version was" in ran("convert", *on_split).out
    computed = ran("extract", *on_split, *NETWORK).out
    assert "0 rows computed" in computed and "16 carried over" in computed
    assert_array_equal(cache.open(root)[SPLIT].live("features/resnet50"), features)


@pytest.mark.promise("stored")
def test_a_stored_training_has_the_name_that_it_had(stored):
    recorded = json.loads((stored / "config.json").read_text())
    config = TrainConfig.from_dict(recorded["config"] | {"cache": stored / "cache"})
    splits = runs.open_splits(config)
    assert config.inputs(splits) == recorded["inputs"]
    assert runs.fingerprint(config, splits) == recorded["fingerprint"]
