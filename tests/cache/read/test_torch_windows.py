"""Windows as a PyTorch dataset: what DataLoader makes of them is what `Split.read` gives, in any
worker.
"""

import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import cache
from cache import CacheChanged, CacheError


@pytest.fixture
def split(tmp_path, toy):
    toy.write(tmp_path, [toy.video("a", [9, 12]), toy.video("b", [40])])
    toy.write_stream(tmp_path, bad_rows=[16])
    return cache.open(tmp_path)["toy/train"]


def loaded(windows, **options):
    return list(DataLoader(windows, batch_size=5, **options))


def equal(batch, expected):
    assert batch.keys() == expected.keys()
    return all(batch[name].numpy().tobytes() == array.tobytes() for name, array in expected.items())


@pytest.mark.parametrize("start", [None, "fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_batches_are_what_read_gives_in_any_worker(split, start):
    windows = cache.torch_windows(split, seqlen=4, stride=3)
    rows = split.windows(4, 3, "resnet50")
    assert len(windows) == len(rows) > 10
    workers = {} if start is None else {"num_workers": 2, "multiprocessing_context": start}
    batches = loaded(windows, **workers)
    whole, rest = divmod(len(rows), 5)
    assert [len(batch["features"]) for batch in batches] == [5] * whole + [rest] * (rest > 0)
    assert all(equal(batch, split.read(rows[5 * k : 5 * k + 5])) for k, batch in enumerate(batches))


def test_a_batch_is_one_read_of_each_split_in_any_order(split, tmp_path, toy, monkeypatch):
    toy.write(tmp_path / "more", [toy.video("c", [16])])
    toy.write_stream(tmp_path / "more")
    more = cache.open(tmp_path / "more")["toy/train"]
    reading = {
        "streams": ["resnet50"],
        "history": {"resnet50": 2},
        "dtype": "float16",
    }
    windows = cache.torch_windows([split, more], 4, 4, fields=["kp_2d", "resnet50"], **reading)
    first, second = (opened.windows(4, 4, streams=["resnet50"]) for opened in (split, more))
    assert len(windows) == len(first) + len(second)
    reads = []
    read = cache.Split.read
    monkeypatch.setattr(
        cache.Split, "read", lambda self, *a, **k: (reads.append(self.name), read(self, *a, **k))[1]
    )
    items = windows.__getitems__([len(windows) - 1, 3, -len(windows), len(first)])
    assert len(reads) == 2
    for item, (opened, window) in zip(
        items,
        [(more, second[-1]), (split, first[3]), (split, first[0]), (more, second[0])],
        strict=True,
    ):
        expected = opened.read([window], fields=["kp_2d", "resnet50"], **reading)
        assert equal(item, {name: array[0] for name, array in expected.items()})
        assert item["resnet50"].dtype == torch.float16
    assert equal(
        windows[1], {name: items.numpy() for name, items in windows.__getitems__([1])[0].items()}
    )
    with pytest.raises(IndexError, match=f"window {len(windows)} of {len(windows)}"):
        windows[len(windows)]


def test_what_is_sent_to_a_worker_is_small_and_notices_a_commit(split, toy):
    sent = pickle.dumps(cache.torch_windows(split, 2, 1))
    assert len(sent) < 2_000
    assert len(pickle.loads(sent)) == len(split.windows(2, 1, "resnet50"))
    toy.write(Path(split.root), [toy.video("c", [30])])
    with pytest.raises(CacheChanged):
        pickle.loads(sent)


def test_a_stream_with_more_rows_than_when_the_windows_were_cut_is_noticed(tmp_path, toy):
    toy.write(tmp_path, [toy.video("b", [70])])
    toy.write_stream(tmp_path, shards=[0])
    sent = pickle.dumps(cache.torch_windows(cache.open(tmp_path)["toy/train"], 4, 4))
    assert len(pickle.loads(sent)) == 8
    toy.write_stream(tmp_path)
    with pytest.raises(CacheChanged, match="toy/train: there has been a commit of a stream"):
        pickle.loads(sent)


def test_splits_whose_fields_differ_are_refused_with_the_fields(split, tmp_path, toy):
    toy.write(tmp_path / "more", [toy.video("c", [16])])
    toy.write_stream(tmp_path / "more", dim=7)
    more = cache.open(tmp_path / "more")["toy/train"]
    with pytest.raises(
        CacheError, match="expected the same shape of each field, found others of features"
    ):
        cache.torch_windows([split, more], 4, 4)
    assert len(cache.torch_windows([split, more], 4, 4, fields=["kp_2d"])) > 0
