"""A cache of format 2: it is read and verified, converted onto, and all its features are kept.

`kept_features.tar.xz` holds demo data (raw/) and what commit 82862ad1 made of it (cache/): labels,
and features of each kind of key. It is never made again: keys are part of the format
(docs/cache-format.md). Where this fails, users compute all of their features again; keep the
present keys. Only a stream or a reader that is meant to give other features (its `version`) may
lose its rows here: take these out of `STREAMS`.
"""

import tarfile
from pathlib import Path

import numpy as np
import pytest

import cache
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
    "resnet50": ("--kind", "resnet50", "--weights", "untrained:0"),
    "resnet50.j1": (
        "--kind",
        "resnet50",
        "--weights",
        "untrained:0",
        "--set",
        "resnet50.j1.crop=jitter:1",
    ),
    "pr_vipe": ("--kind", "pr_vipe", "--weights", "untrained:0"),
    "homography": ("--kind", "homography"),
}


@pytest.fixture
def written(tmp_path):
    with tarfile.open(Path(__file__).with_name("kept_features.tar.xz")) as file:
        file.extractall(tmp_path, filter="data")
    return tmp_path


def features(root):
    """By split and stream, of all rows."""
    found = {}
    for name, streams in STREAMS.items():
        split = cache.open(root)[name]
        for stream in streams:
            assert (split.column(f"features/{stream}_ok")[: split.tracks[0].stop] == 1).any()
            found[name, stream] = np.concatenate(
                [
                    split.column(f"features/{stream}")[track.start : track.stop]
                    for track in split.tracks
                ]
            )
    return found


def test_stored_features_are_read_and_carried_over_to_rows_that_are_written_again(
    written, embedded, into, ran, monkeypatch
):
    root, raw = written / "cache", written / "raw"
    ran("verify", "--cache", root)
    before = features(root)
    assert {key: len(values) for key, values in before.items()} == {
        (name, stream): ROWS[name] for name, streams in STREAMS.items() for stream in streams
    }
    # as where a version reads labels otherwise: all rows are written again
    for reader in (ThreeDPW, PennAction):
        monkeypatch.setattr(reader, "version", reader.version + 1)
    for name, streams in STREAMS.items():
        dataset, split = name.split("/")
        body = {"body": embedded.body} if datasets.get(dataset).labels.uses_body else {}
        into.convert(root, raw / dataset, dataset, split, **body)
        for stream in streams:
            words = (dataset, split, "--cache", root, "--raw", raw / dataset, "--stream", stream)
            shown = ran("extract", *words, *OPTIONS[stream]).out
            assert f"{stream} extracted, 0 rows computed" in shown, shown
            assert f"{ROWS[name]} carried over" in shown, shown
    after = features(root)
    for key, values in before.items():
        np.testing.assert_array_equal(after[key], values)
    ran("verify", "--cache", root)


def test_committed_streams_are_up_to_date(written, ran):
    before = tree(written / "cache")
    for name, streams in STREAMS.items():
        dataset, split = name.split("/")
        places = ("--cache", written / "cache", "--raw", written / "raw" / dataset)
        for stream in streams:
            shown = ran("extract", dataset, split, *places, "--stream", stream, *OPTIONS[stream])
            assert f"{stream} is up to date" in shown.out
    assert tree(written / "cache") == before
