"""Conversion into an object store: the same commands with a URL, the same cache."""

import re

import pytest
from numpy.testing import assert_array_equal

import cache

pytest.importorskip(
    "obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'"
)

OF_WRITERS = (".writing", "provenance.json", "stamps.json")


def objects(server, url):
    """Every object that the promise of equal bytes holds for."""
    name, _, prefix = url.removeprefix("s3://").partition("/")
    pages = server.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=f"{prefix}/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    kept = (key for key in keys if not any(part in OF_WRITERS for part in key.split("/")))
    return {
        key.removeprefix(f"{prefix}/"): server.get_object(Bucket=name, Key=key)["Body"].read()
        for key in kept
    }


@pytest.mark.slow
def test_every_command_takes_a_url(
    url, server, penn, into, ran, network, small_shards, luigi_cfg, tmp_path
):
    """And makes the same cache."""

    def both_steps(root):
        converted = ran(
            "convert", penn.name, "--raw", penn.raw, "--cache", root, "--workers", 1
        ).out
        return str(
            converted + ran("extract", penn.name, "--cache", root, "--weights", "untrained:0").out
        )

    luigi_cfg(more="[resnet50]\nweights = untrained:0")
    both_steps(url)
    both_steps(penn.root)
    before = objects(server, url)
    assert before == into.tree(penn.root)
    there, here = (cache.open(root)[penn.name] for root in (url, penn.root))
    windows = here.windows(4, 2, "resnet50")
    assert_array_equal(there.windows(4, 2, "resnet50"), windows)
    batch = there.read(windows)
    for field, values in here.read(windows).items():
        assert_array_equal(batch[field], values)
    page, database = tmp_path / "page.html", tmp_path / "penn.pt"
    for expected, *words in (
        (penn.name, "status"),
        ("intact", "verify"),
        ("up to date", "plan", penn.name),
        ("up to date", "convert", penn.name, "--retry"),
        ("1 track", "show", penn.name, "--out", page, "--tracks", 1, "--frames", 1),
        ("24 rows", "export", penn.name, "--format", "vibe", "--out", database),
    ):
        out, err = ran(*words, "--cache", url)
        assert expected in out
        assert "s3:/b" not in out + err  # as a path, a URL would lose a slash
    assert page.stat().st_size * database.stat().st_size

    both_steps(url)
    assert objects(server, url) == before
    penn.edit("0001")
    assert "changed  0001" in ran("plan", penn.name, "--cache", url).out
    assert "1 changed video" in both_steps(url)
    after = objects(server, url)
    shards = {key for key in before if "/c/" in key and key.split("/")[2] in cache.COLUMNS}
    assert shards
    assert all(after[key] == before[key] for key in shards)  # nothing committed is written again
    assert cache.verify(url).ok


def test_a_missing_bucket_is_an_error_of_one_line(server, penn, ran, tmp_path):
    for command, *more in (
        ("convert", penn.name, "--raw", penn.raw, "--workers", 1),
        ("extract", penn.name),
        ("status",),
        ("verify",),
        ("show", penn.name, "--out", tmp_path / "page.html"),
        ("export", penn.name, "--format", "vibe", "--out", tmp_path / "a.pt"),
    ):
        shown = ran(command, "--cache", "s3://no-such-bucket/cache", *more, code=2).err
        assert re.match("error: .*s3://no-such-bucket/cache.*NoSuchBucket", shown), shown
        assert shown.count("\n") == 1
