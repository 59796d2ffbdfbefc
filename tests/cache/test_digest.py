"""Digests of content: equal after any history that ends alike, others for one changed number."""

import random
import shutil
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

import cache
from tests.cache import made_up
from tests.cache.disk import Interruption, Killed, Model, Watched, on_disk, watching
from tests.cache.made_up import FORMS, SPLIT, Video

STEPS = 20
LENGTHS = [(5,), (3, 9), (), (14,), (2, 4), (20,), (8,)]
TARGET = {name: (name, LENGTHS[n], 0, n) for n, name in enumerate(["a", "b", "c", "d", "e", "f"])}


def digests(root):
    split = cache.open(root)[SPLIT]
    names = (None, *split.streams)
    return {name: cache.content_digest(split, name) for name in names}


def fill(root, stream, at_most=99, *, staged=False):
    made_up.extract(root, stream, at_most=at_most, staged=staged, written=[])


def written_at_once(root, target):
    made_up.convert(root, target)
    for stream in FORMS:
        fill(root, stream)
    return digests(root)


class History:
    """Random commands on one cache, some of them killed. It ends with the target's content."""

    def __init__(self, top, seed):
        self.rng = random.Random(seed)
        self.root = top / "cache"
        self.videos: dict[str, Video] = {}
        self.steps: list[Callable[[], None]] = [
            *[self.convert] * 3,
            *[self.extract] * 3,
            self.reorder,
            self.delete_stream,
            self.collect,
            self.copy,
        ]

    def run(self):
        self.convert()
        for _ in range(STEPS):
            step = self.rng.choice(self.steps)
            if self.rng.random() < 0.3:
                self.killed(step)
            else:
                step()
        made_up.convert(self.root, self.shuffled(TARGET))
        for stream in self.rng.sample(sorted(FORMS), len(FORMS)):
            fill(self.root, stream, 1)
            fill(self.root, stream, staged=True)

    def shuffled(self, videos):
        return dict(self.rng.sample(sorted(videos.items()), len(videos)))

    def killed(self, step):
        disk = self.root.parent
        interruption = Interruption(self.rng.randint(1, 60))
        try:
            with watching(Watched(disk, Model(on_disk(disk)), interruption)):
                step()
        except Killed:
            pass
        if not self.root.exists():  # killed in `copy`, between its two moves
            (disk / "other").rename(self.root)

    def convert(self):
        """Add, replace or delete videos; correct labels alone."""
        for name in self.rng.sample(sorted(TARGET), 3):
            if name in self.videos and self.rng.random() < 0.3:
                del self.videos[name]
                continue
            lengths = self.rng.choice([TARGET[name][1], *LENGTHS])
            self.videos[name] = (name, lengths, self.rng.randint(0, 1), self.rng.randint(0, 9))
        made_up.convert(self.root, self.videos)

    def reorder(self):
        """Every video again, in another order."""
        made_up.convert(self.root, self.shuffled(self.videos), again=[*self.videos])

    def extract(self):
        stream = self.rng.choice(sorted(FORMS))
        fill(self.root, stream, self.rng.choice([1, 2, 99]), staged=self.rng.random() < 0.5)

    def delete_stream(self):
        for stream in cache.open(self.root)[SPLIT].streams[:1]:
            cache.delete_stream(self.root, SPLIT, stream)

    def collect(self):
        cache.gc(self.root, unfinished=True)

    def copy(self):
        """The history goes on in the copy."""
        other = self.root.parent / "other"
        shutil.rmtree(other, ignore_errors=True)
        cache.copy_split(self.root, SPLIT, other)
        shutil.rmtree(self.root)
        other.rename(self.root)


@pytest.mark.parametrize("seed", range(3))
def test_digests_are_equal_after_any_history_of_twenty_steps_that_ends_alike(
    seed, tmp_path, monkeypatch
):
    history = History(tmp_path, seed)
    history.run()
    ends = digests(history.root)
    assert ends.keys() == {None, *FORMS}
    assert cache.open(history.root)[SPLIT].videos.names != [*TARGET]
    assert ends == written_at_once(tmp_path / "at_once", TARGET)
    monkeypatch.setattr(made_up, "SHARD", 16)
    assert ends == written_at_once(tmp_path / "larger_shards", TARGET)


def test_a_digest_stays_over_versions(tmp_path):
    """Published lists hold them."""
    assert written_at_once(tmp_path / "cache", TARGET) == {
        None: "072ae4b799c310c93875fae1cc502a4c3cf00f35968c8c4b4a70daaa2cc66c17",
        "crops": "19411a23c1b0edc5e4430884b0ce5493b7112662c94c6d420abdaaf4a9ca123a",
        "resnet50": "5ab64e97edf77ccc6ba9c577514b8da39e3b76baf0e2d57eac1f9a7aa4fd9bdf",
    }


@pytest.mark.parametrize(
    "other",
    [
        {"fps": float("nan")},
        {"crop_scale": 1.2},
        {"gender": "female"},
        {"name": "a/1"},
        {"intrinsics": np.eye(3)},
        {"step": 2},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_fact_of_a_track_gives_another_digest(other, tmp_path, toy):
    digest = []
    for name, fact in {"usual": {}, "changed": other}.items():
        facts = {"name": "a/0", "step": 1, "fps": 25.0, "crop_scale": 1.3, **fact}
        columns = made_up.columns_of(TARGET["a"], 0)
        columns["frame_index"] = columns["frame_index"] * facts["step"]
        track = cache.TrackRows(video="a", columns=columns, **facts)
        with toy.writer(tmp_path / name, "plan", columns=made_up.COLUMNS) as split:
            following = split.begin()
            following.append(cache.VideoEntry(name="a"), [track])
            following.commit({})
        digest.append(cache.content_digest(cache.open(tmp_path / name)[toy.SPLIT]))
    assert digest[0] != digest[1]


def test_a_row_without_features_counts_however_it_lacks_them(tmp_path):
    """Not computed yet, or in a copy, which has some rows of a shard only: one digest."""
    root = tmp_path / "cache"
    made_up.convert(root, TARGET)
    fill(root, "crops", 2)
    few = digests(root)
    cache.copy_split(root, SPLIT, tmp_path / "copy")
    assert digests(tmp_path / "copy") == few
    fill(root, "crops")
    assert digests(root)["crops"] != few["crops"]


def test_memory_does_not_grow_with_the_rows_of_a_track(tmp_path, toy):
    n_rows = 40_000
    columns = {"frame_index": np.arange(n_rows), "kp_2d": np.ones((n_rows, 49, 3), np.float32)}
    split = toy.split_of(tmp_path, columns, rows_per_shard=8192, rows_per_chunk=64)
    cache.content_digest(split)  # modules are imported, shards are mapped
    tracemalloc.start()
    cache.content_digest(split)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < columns["kp_2d"].nbytes / 4
