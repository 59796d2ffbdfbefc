"""Windows as a PyTorch dataset: what DataLoader makes of them is what `Split.read` gives, in any
worker.
"""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_equal
from torch.utils.data import DataLoader

import cache
from tests.cache import toy


@pytest.fixture
def split(tmp_path):
    toy.write(tmp_path, [toy.video("a", 9, 12), toy.video("b", 40)])
    toy.write_stream(tmp_path, bad_rows=[16])
    return toy.opened(tmp_path)


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


def test_windows_of_16_frames_follow_each_other_by_default(tmp_path):
    toy.add(tmp_path, "a", 48)
    toy.write_stream(tmp_path)
    windows = cache.torch_windows(toy.opened(tmp_path))
    assert [item["features"].shape for item in windows] == [(16, 4)] * 3


@pytest.fixture
def two(split, tmp_path_factory):
    """Two splits, of rows that differ."""
    other = tmp_path_factory.mktemp("other")
    toy.add(other, "c", 30, seed=1)
    toy.write_stream(other, dim=4)
    return [split, toy.opened(other)]


def test_windows_of_several_splits_are_read_in_batches_and_can_be_traced(two, monkeypatch):
    fields = ["features", "kp_2d", "rows"]
    windows = cache.torch_windows(two, 4, 3, fields=fields)
    rows = [split.windows(4, 3, "resnet50") for split in two]
    assert_equal(windows.windows, rows)
    assert len(windows) == sum(map(len, rows))
    origins = [(number, window) for number, part in enumerate(rows) for window in part]
    for item, (number, window) in zip(windows, origins, strict=True):
        assert item["split"].item() == number
        assert item["rows"].tolist() == [*range(*window)]
        expected = two[number].read([window], fields=fields)
        assert equal({name: item[name] for name in fields}, expected)
    reads, read = list[int](), cache.Split.read
    monkeypatch.setattr(
        cache.Split, "read", lambda self, *a, **k: (reads.append(len(a[0])), read(self, *a, **k))[1]
    )
    order = torch.randperm(len(windows)).tolist()
    items = windows.__getitems__(order)
    assert sorted(reads) == sorted(map(len, rows))
    assert [item["rows"][0].item() for item in items] == np.concatenate(rows)[order, 0].tolist()


def test_chosen_windows_are_the_items_and_workers_have_them(two):
    windows = cache.torch_windows(two, 4, 3)
    chosen = [part[::2] for part in windows.windows]
    every_second = cache.torch_windows(two, windows=chosen, fields=["rows"])
    assert_equal(every_second.windows, chosen)
    alone = cache.torch_windows(two[0], windows=chosen[0], fields=["rows"])
    assert alone.windows is not None
    assert_equal(alone.windows, chosen[0])
    for dataset, parts in ((every_second, chosen), (pickle.loads(pickle.dumps(alone)), chosen[:1])):
        starts = torch.cat([batch["rows"][:, 0] for batch in loaded(dataset, num_workers=1)])
        assert starts.tolist() == np.concatenate(parts)[:, 0].tolist()


def test_each_tensor_has_a_storage_of_its_own(tmp_path):
    joints = np.ones((16, 14, 3), np.float32)
    split = toy.split_of(tmp_path, {"kp_3d_eval": joints})
    items = cache.torch_windows(split, 4, 4, stream=None).__getitems__([0, 1, 2])
    tensors = [tensor for item in items for tensor in item.values()]
    assert {"kp_3d", "kp_3d_eval"} < items[0].keys()
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
    for tensor in tensors:
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_features_come_in_the_dtypes_of_torch_and_labels_in_float32(split, dtype):
    item = cache.torch_windows(split, 4, 3, dtype=dtype)[2]
    exact = split.read(split.windows(4, 3, "resnet50")[2:3], dtype="float64")["features"][0]
    assert torch.equal(item["features"], torch.from_numpy(exact).to(dtype))
    assert item["kp_2d"].dtype == torch.float32


def test_what_cannot_be_read_is_refused_when_the_dataset_is_made(two, tmp_path_factory):
    split = two[0]
    root = tmp_path_factory.mktemp("evaluation")
    known = np.ones((16, 49, 4), np.float32)
    columns = {"kp_3d_eval": np.ones((16, 14, 3), np.float32), "has_3d": np.ones(16, bool)}
    evaluation = toy.split_of(root / "a", {**columns, "kp_3d": known})
    fourteen = toy.split_of(root / "b", columns)
    labels = {"stream": None, "seqlen": 4, "stride": 4}
    refused = {
        r"no field or column 'thetta'; did .* there are: features, kp_2d, .* theta,.* w_3d": (
            [split],
            {"fields": ["thetta"]},
        ),
        "dtype is 'int8', expected float16": ([split], {"dtype": torch.int8}),
        "dtype is 'int16', expected float16": ([split], {"dtype": "int16"}),
        r"\('kp_3d', 'float32\(14, 3\)'\)\] in .* \[\('kp_3d', 'float32\(49, 3\)'\)\] in .*kp_3d_49": (
            [split, evaluation],
            {**labels, "fields": ["kp_3d"]},
        ),
        "no field or column 'kp_3d_49'": ([fourteen], {**labels, "fields": ["kp_3d_49"]}),
        "expected those of 2 splits, found 1": (two, {"windows": [[[0, 4]]]}),
        r"expected one length, found \[4, 5\] rows": (two, {"windows": [[[0, 4]], [[0, 5]]]}),
        r"rows \[8, 12\] are of several tracks": ([split], {"windows": [[[8, 12]]]}),
    }
    for message, (splits, options) in refused.items():
        with pytest.raises((ValueError, cache.CacheError), match=message):
            cache.torch_windows(splits, **options)
    with pytest.raises(TypeError):
        cache.torch_windows(split, 4, 4)[1.7]
    joined = cache.torch_windows([split, evaluation], **labels, fields=["kp_3d_49"])
    assert joined[-1]["kp_3d_49"].eq(1).all()
    assert cache.torch_windows(split, 4, 4, dtype=np.float64)[0]["features"].dtype == torch.float64


def test_rows_that_a_stream_lacks_and_rates_that_differ_are_told(two, tmp_path):
    toy.add(tmp_path, "late", 12)
    late = toy.opened(tmp_path)
    with pytest.warns(UserWarning, match="^toy/train: 12 rows have no features of 'resnet50' yet"):
        cache.torch_windows(late, 4, 3)
    entry, (track,) = toy.video("fast", 8)
    root = tmp_path / "fast"
    toy.write(root, [(entry, [dataclasses.replace(track, fps=30.0)])])
    fast = toy.opened(root)
    with pytest.warns(UserWarning, match=r"rows a second: toy/train \[25.0\], toy/train \[30.0\]"):
        cache.torch_windows([two[0], fast], 4, 4, stream=None)
