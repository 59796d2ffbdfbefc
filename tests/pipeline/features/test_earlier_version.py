"""A cache of an earlier version: this one reads and verifies it, converts onto it, and carries all
features over.

`earlier_version.tar.xz` holds demo data (raw/) and what commit 0be722e4 made of it (cache/):
labels, features of each kind of key, and a tag. It is never made again: keys are part of the format
(docs/cache-format.md). Where this fails, users compute all of their features again; keep the old
keys, or find rows by them, too. Only a stream or a reader that is meant to give other features (its
`version`) may lose its rows here: take these out of `STREAMS`.
"""

import json
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
from tests.cache.toy import spoil

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
def earlier(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("earlier_version.tar.xz")) as file:
        file.extractall(tmp_path, filter="data")
    return tmp_path


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
    after, copy = features(root), earlier / "copy"
    note = f"copy --tag golden --cache {root} --to DIR"
    assert note in ran("verify", "--cache", root).out and note in ran("status", "--cache", root).out
    assert note in ran("gc", "--cache", root).out, "it stays until it is copied"
    words = (
        "extract",
        "penn_action",
        "train",
        "--cache",
        root,
        "--raw",
        raw / "penn_action",
        "--stream",
        "resnet50",
    )
    assert note in ran(*words, *OPTIONS["resnet50"], "--replace", code=2).err, (
        "the tag may need what would go"
    )
    assert (
        "no tag 'gold'; there are: golden"
        in ran("copy", "--cache", root, "--tag", "gold", "--to", copy, code=2).err
    )
    for _ in range(2):  # the second time, there is nothing to do
        ran("copy", "--cache", root, "--tag", "golden", "--to", copy)
    ran("verify", "--cache", copy)
    tagged = features(copy)
    for key, values in before.items():
        np.testing.assert_array_equal(after[key], values)
        np.testing.assert_array_equal(tagged[key], values)
    assert ".tags/golden" in ran("gc", "--cache", root).out and not (root / ".tags").exists()
    assert note not in ran("verify", "--cache", root).out
    ran(*words, *OPTIONS["resnet50"], "--replace")


def test_a_tag_s_own_shards_are_copied_where_the_cache_has_others_and_checked(
    earlier: Path, ran: Any
) -> None:
    root, copy = earlier / "cache", earlier / "copy"
    before = features(root)
    (tagged,) = (root / ".tags/golden").glob("*/3dpw/train")
    shards = [
        file for file in (root / "3dpw/train").rglob("*") if file.is_file() and "c" in file.parts
    ]
    for file in shards:  # as the earlier version did before it removed them
        own = tagged / file.relative_to(root / "3dpw/train")
        own.parent.mkdir(parents=True, exist_ok=True)
        if not own.exists():
            file.rename(own)
    spoil(lost := tagged / "features/resnet50/c/0/0")
    assert "0/0" in ran("copy", "--cache", root, "--tag", "golden", "--to", copy, code=2).err
    assert not (root / ".tags/golden/copied").exists()
    lost.rename(root / "3dpw/train/features/resnet50/c/0/0")
    spoil(root / "3dpw/train/features/resnet50/c/0/0")
    ran("copy", "--cache", root, "--tag", "golden", "--to", copy)
    for key, values in before.items():
        np.testing.assert_array_equal(features(copy)[key], values)
    ran("verify", "--cache", copy)


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
