"""A cache of earlier code: it is read and verified, converted onto, and all its features are kept.

`kept_features.tar.xz` holds demo data (raw/) and what commit 82862ad1 made of it (cache/): labels,
and features of each kind of key; its manifests and tables have been written again, in format 3. The
rest is never made again: keys are part of the format (docs/cache-format.md). Where this fails,
users compute all of their features again; keep the present keys. Only a stream or a reader that is
meant to give other features (its `version`) may lose its rows here: take these out of `STREAMS`.
"""

import tarfile
from pathlib import Path

import pytest
from numpy.testing import assert_equal

from pipeline import datasets
from pipeline.datasets.penn_action import PennAction
from pipeline.datasets.threedpw import ThreeDPW
from tests.trees import tree

ROWS = {"3dpw/train": 5, "penn_action/train": 8}
STREAMS = {
    "3dpw/train": ("resnet50", "homography"),  # keys of pictures, and of pairs
    # of jittered pictures, and of labels
    "penn_action/train": ("resnet50", "resnet50.j1", "pr_vipe"),
}
OPTIONS = {
    "resnet50": "--kind resnet50 --weights untrained:0",
    "resnet50.j1": "--kind resnet50 --weights untrained:0 --set resnet50.j1.crop=jitter:1",
    "pr_vipe": "--kind pr_vipe --weights untrained:0",
    "homography": "--kind homography",
}


@pytest.fixture
def written(tmp_path):
    with tarfile.open(Path(__file__).with_name("kept_features.tar.xz")) as file:
        file.extractall(tmp_path, filter="data")
    return tmp_path


def extract_all(types, *texts):
    """Extract each stream, which prints these texts."""
    for name, streams in STREAMS.items():
        place = f"{name} --cache CACHE --raw RAW/{name.partition('/')[0]}"
        for stream in streams:
            said = [text.replace("ROWS", str(ROWS[name])) for text in texts]
            types(f"extract {place} --stream {stream} {OPTIONS[stream]}", *said)


def features(into, root):
    """By split and stream, of all rows."""
    found = {}
    for name, streams in STREAMS.items():
        for stream in streams:
            ok = into.rows(root, name, f"features/{stream}_ok")
            assert any((of == 1).any() for of in ok.values())
            found[name, stream] = into.rows(root, name, f"features/{stream}")
    return found


def test_stored_features_are_read_and_carried_over_to_rows_that_are_written_again(
    written, embedded, into, types, monkeypatch
):
    root, raw = written / "cache", written / "raw"
    types("verify --cache CACHE")
    before = features(into, root)
    for (name, _), rows in before.items():
        assert sum(map(len, rows.values())) == ROWS[name]
    # as where a version reads labels otherwise: all rows are written again
    for reader in (ThreeDPW, PennAction):
        monkeypatch.setattr(reader, "version", reader.version + 1)
    for name in STREAMS:
        dataset, split = name.split("/")
        body = {"body": embedded.body} if datasets.get(dataset).labels.uses_body else {}
        into.convert(root, raw / dataset, dataset, split, **body)
    extract_all(types, "extracted, 0 rows computed", "ROWS carried over")
    assert_equal(features(into, root), before)
    types("verify --cache CACHE")


def test_committed_streams_are_up_to_date(written, types):
    before = tree(written / "cache")
    extract_all(types, "is up to date")
    assert tree(written / "cache") == before
