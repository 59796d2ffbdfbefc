"""Conversion into an object store: the same commands with a URL, the same cache."""

import re

import pytest
from numpy.testing import assert_array_equal, assert_equal

import cache
from tests.cache.storage import buckets

pytest.importorskip(
    "obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'"
)


def objects(url):
    """Every object that the promise of equal bytes holds for."""
    every = buckets.objects(url)
    return {key: data for key, data in every.items() if not key.endswith("stamps.json")}


@pytest.mark.slow
def test_every_command_takes_a_url(
    url, penn, into, types, network, small_shards, luigi_cfg, tmp_path
):
    """And makes the same cache."""
    split = "penn_action/train"

    def both_steps(root):
        converted = types(f"convert {split} --raw RAW/penn_action --cache {root} --workers 1")
        return converted + types(f"extract {split} --cache {root} --weights untrained:0")

    luigi_cfg(more="[resnet50]\nweights = untrained:0")
    both_steps(url)
    both_steps(penn.root)
    before = objects(url)
    assert before == into.tree(penn.root)
    there, here = (cache.open(root)[split] for root in (url, penn.root))
    windows = here.windows(4, 2, "resnet50")
    assert_array_equal(there.windows(4, 2, "resnet50"), windows)
    assert_equal(there.read(windows), here.read(windows))
    for command, text in {
        "status": split,
        "verify": "intact",
        f"plan {split}": "up to date",
        f"convert {split} --retry": "up to date",
        f"show {split} --out TMP/page.html": "1 track of 000",
        f"export {split} --format vibe --out TMP/penn.pt": "24 rows",
    }.items():
        # as a path, a URL would lose a slash
        assert "s3:/b" not in types(f"{command} --cache {url}", text)
    for name in ("page.html", "penn.pt"):
        assert (tmp_path / name).stat().st_size

    both_steps(url)
    assert objects(url) == before
    penn.edit("0001")
    types(f"plan {split} --cache {url}", "changed 0001")
    assert "1 changed video" in both_steps(url)
    after = objects(url)
    shards = {key for key in before if "/c/" in key and key.split("/")[2] in cache.COLUMNS}
    assert shards
    assert all(after[key] == before[key] for key in shards)  # nothing committed is written again
    assert cache.verify(url).ok


@pytest.mark.parametrize(
    "command",
    [
        "convert penn_action/train --raw RAW/penn_action --workers 1",
        "extract penn_action/train",
        "status",
        "verify",
        "show penn_action/train --out TMP/page.html",
        "export penn_action/train --format vibe --out TMP/a.pt",
    ],
)
def test_a_missing_bucket_is_an_error_of_one_line(command, server, penn, command_line):
    shown = command_line(f"{command} --cache s3://no-such-bucket/cache", code=2).err
    assert re.fullmatch("error: .*s3://no-such-bucket/cache.*NoSuchBucket.*\n", shown), shown
