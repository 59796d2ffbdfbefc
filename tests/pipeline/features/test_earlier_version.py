"""A cache of an earlier version: this one reads and verifies it, converts onto it, and carries all
features over.

`earlier_version.tar.xz` holds demo data (raw/) and what commit 0be722e4 made of it (cache/), in
format 1: labels, features of each kind of key, and a tag. It is never made again: keys are part of the format
(docs/cache-format.md). Where this fails, users compute all of their features again; keep the old
keys, or find rows by them, too. Only a stream or a reader that is meant to give other features (its
`version`) may lose its rows here: take these out of `STREAMS`.
"""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline import datasets
from pipeline.datasets.penn_action import PennAction
from pipeline.datasets.threedpw import ThreeDPW
from pipeline.features import inputs
from pipeline.files.pixels.frames import Pictures
from tests.trees import tree

ROWS = {"3dpw/train": 5, "penn_action/train": 8}
STREAMS = {
    "3dpw/train": ("resnet50", "homography"),  # keys of pictures, and of pairs
    # of jittered pictures, and of labels
    "penn_action/train": ("resnet50", "resnet50.j1", "pr_vipe"),
}
OPTIONS = {
    "resnet50": ("--kind", "resnet50", "--weights", "untrained:0"),
    "resnet50.j1": ("--kind", "resnet50", "--weights", "untrained:0", "--set", "crop=jitter:1"),
    "pr_vipe": ("--kind", "pr_vipe", "--weights", "untrained:0"),
    "homography": ("--kind", "homography"),
}


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("earlier_version.tar.xz")) as file:
        file.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def earlier(tagged: Path) -> Path:
    shutil.rmtree(tagged / "cache/.tags")
    return tagged


def test_beside_a_tag_nothing_is_written_and_the_message_names_the_version_that_copies_it(
    tagged: Path, into: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tagged / "cache"
    features(root)
    monkeypatch.setattr(PennAction, "version", PennAction.version + 1)
    before = tree(root)
    with pytest.raises(cache.CacheError, match=r"\.tags: nothing is written .*Use commit 19a16d33"):
        into.convert(root, tagged / "raw/penn_action", "penn_action", "train")
    with pytest.raises(cache.CacheError, match="Use commit 19a16d33"):
        cache.delete_stream(root, "3dpw/train", "resnet50")
    assert tree(root) == before


def features(root: Path) -> dict[tuple[str, str], np.ndarray]:
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


def test_an_earlier_version_s_features_are_read_and_carried_over(
    earlier, embedded, into, ran, monkeypatch
):
    root, raw = earlier / "cache", earlier / "raw"
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
        body = {"body": embedded.body} if datasets.get(dataset).uses_body else {}
        into.convert(root, raw / dataset, dataset, split, **body)
        for stream in streams:
            words = (dataset, split, "--cache", root, "--raw", raw / dataset, "--stream", stream)
            shown = ran("extract", *words, *OPTIONS[stream]).out
            assert (
                f"{name}: extracted, 0 rows computed" in shown
                and f"{ROWS[name]} carried over" in shown
            ), shown
    after = features(root)
    for key, values in before.items():
        np.testing.assert_array_equal(after[key], values)
    ran("verify", "--cache", root)


@pytest.mark.parametrize(
    ("changed", "streams"),
    [
        ("pictures", {"resnet50", "resnet50.j1"}),
        ("digest_size", {"resnet50", "resnet50.j1", "pr_vipe"}),
        ("", set()),
    ],
)
def test_plan_says_that_all_is_computed_where_keys_differ(
    changed, streams, earlier, luigi_cfg, ran, monkeypatch
):
    monkeypatch.setattr(PennAction, "version", PennAction.version + 1)
    if changed == "pictures":  # as a version that describes files otherwise
        monkeypatch.setattr(Pictures, "digest", lambda self: "another digest")
    elif changed:
        monkeypatch.setattr(
            inputs, "row_keys", lambda split, stream, rows: np.zeros((len(rows), 2), np.uint64)
        )
    config = (
        "[features]\nstreams = resnet50 resnet50.j1 pr_vipe\n[resnet50.j1]\nkind = "
        "resnet50\ncrop = jitter:1"
    )
    words = (
        "plan",
        "penn_action/train",
        "--config",
        luigi_cfg(more=config),
        "--cache",
        earlier / "cache",
    )
    (found,) = json.loads(ran(*words, "--json").out)
    assert {stream["stream"] for stream in found["extract"] if stream["other_keys"]} == streams
    steps = {
        step["name"]: step["rows"]
        for step in found["forecast"]["steps"]
        if step["step"] == "extract"
    }
    assert steps == dict.fromkeys(streams, 8)
    assert ran(*words).out.count("no feature can be carried over") == len(streams)
