"""docs/cache-format.md: a reader that knows only it, beside ours; and its tables beside the
code.
"""

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import cache
from cache import SplitWriter, StreamWriter
from cache.format import layout, shard
from tests.cache import toy
from tests.cache.format.documented import (
    Files,
    Manifest,
    crc32c,
    open_manifest,
    read_column,
    read_table,
    shard_rows,
    text,
    windows,
)
from tests.docs.markdown import tables
from tests.raising import cache_refuses

DOCUMENT = Path(__file__).parents[3] / "docs" / "cache-format.md"
Opened = tuple[Path, Manifest, Files]
TRACKS = ("name", "video", "start", "stop", "step", "fps", "crop_scale", "gender", "intrinsics")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two commits: in the second, a video was replaced. So there are padding, and rows of a
    replaced track.
    """
    root = tmp_path_factory.mktemp("documented") / "cache"
    toy.write(root, toy.videos())
    toy.add(root, "b", 9, 40, seed=1, drop=["b"])
    toy.write_stream(root, dim=3, bad_rows=[12, 60, 201], undefined_rows=[37, 70])
    return root


@pytest.fixture
def split(root):
    home = root / "toy/train"
    return home, *open_manifest(home)


def flags(base):
    return read_column(base, "resnet50_ok", open_manifest(base / "resnet50")[0], [], "uint8")


def same(ours, theirs):
    return np.array_equal(
        ours.reshape(len(theirs), -1),
        np.array(theirs, ours.dtype),
        equal_nan=ours.dtype.kind == "f",
    )


def runs_of(split):
    files = split[2]
    starts = read_table("run_start", files)
    stops = read_table("run_stop", files)
    return [(a, b) for (a,), (b,) in zip(starts, stops, strict=True)]


@pytest.mark.promise("plain Zarr")
def test_a_stream_reads_as_documented(root):
    base = root / "toy/train/features"
    manifest, _ = open_manifest(base / "resnet50")
    assert manifest["split_digest"] == toy.opened(root).manifest["digest"]
    for name, spec in cache.StreamForm.from_manifest(manifest).columns("resnet50").items():
        theirs = read_column(base, name, manifest, [*spec.shape], spec.dtype.name)
        ours = toy.opened(root).column(f"features/{name}")
        for number in manifest["shards"][name]:
            rows = shard_rows(manifest, int(number))
            stored = np.asarray(ours[rows.start : rows.stop], spec.dtype)
            assert same(stored, [theirs[row] for row in rows])
    ok = flags(base)
    expected = {12: (255,), 59: (1,), 60: (0,), 70: (2,)}  # 12 is of the replaced track
    assert {row: ok[row] for row in expected} == expected
    features = read_column(base, "resnet50", manifest, [3], "float16")
    assert features[59] == (59, 59.125, 59.25)
    assert features[70] == (0, 0, 0)
    assert all(math.isnan(number) for number in features[12] + features[60])


def test_tables_accounts_and_windows_read_as_documented(root, split):
    _, manifest, files = split
    ours = toy.opened(root)
    table = {name: read_table(f"track_{name}", files) for name in TRACKS}
    videos = [text(row) for row in read_table("video_name", files)]
    theirs = [
        cache.TrackRecord(text(name), videos[video], start, stop, fps, step, scale)
        for name, (video,), (start,), (stop,), (step,), (fps,), (scale,) in zip(
            *(table[key] for key in TRACKS[:7]), strict=True
        )
    ]
    assert theirs == list(ours.tracks)
    assert (len(table["name"]), len(videos)) == (manifest["tracks"], manifest["videos"])
    assert sum(track.stop - track.start for track in theirs) == manifest["rows"]
    assert {text(row) for row in table["gender"]} == {"neutral"}
    assert all(math.isnan(number) for row in table["intrinsics"] for number in row)

    accounts = bytes(number for (number,) in read_table("video_account", files))
    stops = [stop for (stop,) in read_table("video_account_stop", files)]
    parts = [json.loads(accounts[a:b]) for a, b in itertools.pairwise([0, *stops])]
    assert parts == [video.account for video in ours.videos]
    sums = {name: read_table(f"video_sum_{name}", files) for name in manifest["sums"]}
    for number, video in enumerate(ours.videos):
        assert {name: table[number] for name, table in sums.items()} == {
            "rows": (float(video.account["kept"]),),
            "boxes": (video.account["kept"] / 7,),
        }
    assert manifest["sums"]["rows"] == manifest["rows"]

    assert windows(runs_of(split), seqlen=8, stride=3) == ours.windows(8, 3).tolist()


def test_the_checksum_is_the_documented_one():
    assert crc32c(b"123456789") == bytes.fromhex("839206e3") == shard.crc32c(b"123456789")


def test_the_example_in_the_document_is_what_is_written():
    example = (
        DOCUMENT.read_text().partition("An example: three flags")[2].partition("A column's")[0]
    )
    lines = re.findall(r"^    ((?:[0-9a-f]{2} )+) ", example, re.MULTILINE)
    data, record = shard.ShardLayout(layout.COLUMNS["has_3d"], layout.Geometry(4, 2)).encode(
        np.array([1, 0, 1], "u1")
    )
    assert bytes.fromhex("".join(lines)) == data
    assert f"`{record}`" in DOCUMENT.read_text()


def test_the_document_names_every_column_with_its_shape_type_and_fill():
    documented = {}
    for row in tables(DOCUMENT.read_text(), "column"):
        shape = tuple(int(n) for n in row["after the rows"].split(",") if n)
        documented[row["column"]] = (shape, row["dtype"], row["fill"])
    ours = {
        name: (spec.shape, spec.dtype.name, "NaN" if math.isnan(spec.fill) else str(spec.fill))
        for name, spec in layout.COLUMNS.items()
    }
    assert documented == ours
    assert list(documented) == list(ours)


def test_the_document_names_every_table_with_its_shape_and_type():
    documented = {
        row["table"]: (row["after the first dimension"], row["dtype"])
        for row in tables(DOCUMENT.read_text(), "table")
    }
    ours = {
        name: (", ".join(map(str, shape)), np.dtype(dtype).name)
        for name, (dtype, shape) in layout.TABLES.items()
    }
    assert documented == ours | dict.fromkeys(layout.TEXTS, ("L", "uint8"))


def test_the_document_names_every_key_of_a_split_and_of_a_stream(root):
    text = DOCUMENT.read_text()
    for heading, own in (("split", SplitWriter.own_entries), ("stream", StreamWriter.own_entries)):
        section = text.partition(f"## The manifest of a {heading}")[2].partition("\n## ")[0]
        terms = re.findall(r"^- (`[^:]*): ", section, re.MULTILINE)
        documented = {key for term in terms for key in re.findall(r"`(\w+)`", term)}
        callers = {
            "split": {"reader", "stand_in", "accounting"},
            "stream": {"identity", "backbone", "stand_in"},
        }
        assert documented == own | callers[heading]


def test_json_files_are_sorted_indented_by_one_space_and_end_with_a_line_feed(root):
    files = sorted(root.rglob("*.json"))
    assert {"manifest.json", "provenance.json", "zarr.json"} <= {file.name for file in files}
    for file in files:
        found = file.read_text(encoding="utf-8")
        assert (
            found
            == json.dumps(json.loads(found), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        )


@pytest.mark.parametrize(("rows", "chunk"), [(0, 1), (8, 0), (8, 3), (2**24 + 64, 64)])
def test_a_shard_is_a_multiple_of_its_chunks_up_to_16_777_216_rows(rows, chunk):
    with cache_refuses("choose a positive multiple, up to 16,777,216"):
        layout.Geometry(rows, chunk)
    assert layout.Geometry(2**24, 64).chunks == 2**18
