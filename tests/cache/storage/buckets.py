"""What tests of a cache in an object store have in common: commits to make, and what is in the
bucket then.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cache
from cache import SplitWriter, StreamForm, StreamWriter
from tests.cache import toy

SPLIT, STREAM = "toy/train", "resnet50"
NARROW = {"columns": ("bbox",), "rows_per_shard": 32, "rows_per_chunk": 8}
LEFT = (".writing", "provenance.json")  # of writers: outside the promise of equal bytes

Video = tuple[cache.VideoEntry, list[cache.TrackRows]]


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def objects(url, *, every=False):
    """Every object below the cache, those that are of writers only with `every`."""
    store = cache.store_at(url)
    keys = store.file_sizes("")
    return {
        key: store.read(key)
        for key in keys
        if every or not any(part in LEFT for part in key.split("/"))
    }


def put(url, key, data):
    cache.store_at(url).put_small({key: data}, "")


def requests_of(patch, *names):
    """The key of every request of these kinds from now on."""
    obstore, found = pytest.importorskip("obstore"), list[str]()

    def counted(real):
        def request(store, key, *args, **options):
            found.append(key)
            return real(store, key, *args, **options)

        return request

    for name in names:
        patch.setattr(obstore, name, counted(getattr(obstore, name)))
    return found


def narrow(video):
    """The same video with two columns: a commit takes some 60 requests instead of 150."""
    entry, tracks = video
    columns = ("frame_index", "bbox")
    return entry, [
        replace(track, columns={name: track.columns[name] for name in columns}) for track in tracks
    ]


def write_narrow(root, *videos, split=SPLIT, plan="p", drop=(), **entries):
    """A commit of these videos, where they are not there yet."""
    with SplitWriter(root, split, plan=plan, **NARROW) as writer:
        following = writer.begin(drop)
        for video in videos:
            if video[0].name not in {*writer.state.videos, *following.journalled} - {*drop}:
                following.append(*narrow(video))
        following.commit(entries)


def two_commits(root):
    """A split and its stream, from wherever a killed run has left them."""
    write_narrow(root, toy.video("a", 20, 30), n=1)
    toy.write_stream(root)


def three_runs(root):
    """A split and its stream; a second commit with dropped, replaced and new videos, whose stream
    carries rows over.
    """
    toy.write(root, toy.videos())
    toy.write_stream(root, bad_rows=[3, 40])
    again = [toy.video("b", 7, 20, seed=1), toy.video("g", 40)]
    toy.write(root, again, drop=["b", "a"], plan="second")
    with StreamWriter(root, SPLIT, STREAM, StreamForm(4), plan="weights") as writer:
        for shard in writer.shards.pending:
            rows = np.asarray(writer.shards.rows(shard))
            # what is appended has the keys of rows 10 to 42
            earlier = np.where(rows < 192, rows - 160 + 10, rows)
            keys = toy.keys(earlier)
            mask, features, ok = writer.shards.carried(keys)
            assert mask.any() == (shard == 5)
            own = toy.features(earlier, 4)
            assert_array_equal(features[mask & (ok == 1)], own[mask & (ok == 1)])
            writer.write(shard, np.where(mask[:, None], features, own), np.where(mask, ok, 1), keys)
        writer.commit({"weights": "known"})
