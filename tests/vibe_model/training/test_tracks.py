"""Whole tracks of a split as a PyTorch dataset."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch.nn.utils.rnn import pack_sequence
from torch.testing import assert_close
from torch.utils.data import DataLoader

import cache
from cache import CacheError
from tests.vibe_model.builders import FEATURE_SIZE, write_split
from vibe_model import Tracks

LENGTHS = (5, 9, 3)


@pytest.fixture
def split(tmp_path):
    write_split(tmp_path, "videos/train", LENGTHS, undecodable=[6])
    return cache.open(tmp_path)["videos/train"]


def test_an_item_is_a_whole_track_with_a_flag_where_no_picture_could_be_decoded(split):
    tracks = Tracks(split, streams=["tiny"])
    assert len(tracks) == len(LENGTHS)
    start = 0
    for number, (item, n) in enumerate(zip(tracks, LENGTHS, strict=True)):
        assert (item["track"], item["video"]) == (f"v{number}/0", f"v{number}")
        assert item["frame_index"].tolist() == list(range(n))
        ok = np.arange(start, start + n) != 6
        assert_array_equal(item["tiny_ok"], ok)
        assert not item["tiny"][~torch.from_numpy(ok)].any()
        for row in np.flatnonzero(ok):
            read = split.read([[start + row, start + row + 1]], stream="tiny")
            assert_array_equal(item["tiny"][row], read["features"][0, 0])
            assert_array_equal(item["kp_2d"][row], read["kp_2d"][0, 0])
        assert item["tiny"].shape == (n, FEATURE_SIZE)
        start += n


def test_workers_read_the_same_and_items_can_be_packed(split):
    tracks = Tracks(split, streams=["tiny"], fields=["theta", "gender"])
    sent = pickle.loads(pickle.dumps(tracks))  # as to a worker that is not forked
    loader = DataLoader(
        sent, batch_size=3, collate_fn=list, num_workers=1, multiprocessing_context="fork"
    )
    (batch,) = loader
    for item, expected in zip(batch, tracks, strict=True):
        assert item.keys() == {"tiny", "tiny_ok", "theta", "gender", "track", "video"}
        assert_close(item["theta"], expected["theta"])
    packed = pack_sequence([item["tiny"] for item in batch], enforce_sorted=False)
    assert packed.data.shape == (sum(LENGTHS), FEATURE_SIZE)
    with pytest.raises(CacheError):
        Tracks(split, streams=["other"])
    with pytest.raises(IndexError):
        tracks[3]
