"""Windows as a PyTorch dataset: what DataLoader makes of them is what `Split.read` gives, in any
worker.
"""

import pytest
import torch
from torch.utils.data import DataLoader

import cache


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
    assert equal(windows[7], split.read(rows[7:8]))


def test_a_batch_is_one_read_in_any_order(split, monkeypatch):
    reading = {
        "streams": ["resnet50"],
        "history": {"resnet50": 2},
        "dtype": "float16",
    }
    windows = cache.torch_windows(split, 4, 4, fields=["kp_2d", "resnet50"], **reading)
    rows = split.windows(4, 4, streams=["resnet50"])
    reads = []
    read = cache.Split.read
    monkeypatch.setattr(
        cache.Split, "read", lambda self, *a, **k: (reads.append(self.name), read(self, *a, **k))[1]
    )
    items = windows.__getitems__([len(windows) - 1, 3, -len(windows)])
    assert len(reads) == 1
    for item, window in zip(items, [rows[-1], rows[3], rows[0]], strict=True):
        expected = split.read([window], fields=["kp_2d", "resnet50"], **reading)
        assert equal(item, {name: array[0] for name, array in expected.items()})
        assert item["resnet50"].dtype == torch.float16
    with pytest.raises(IndexError, match=f"index {len(windows)} is out of bounds"):
        windows[len(windows)]


def test_windows_of_16_frames_follow_each_other_by_default(tmp_path, toy):
    toy.write(tmp_path, [toy.video("a", [48])])
    toy.write_stream(tmp_path)
    windows = cache.torch_windows(cache.open(tmp_path)["toy/train"])
    assert [item["features"].shape for item in windows] == [(16, 4)] * 3
