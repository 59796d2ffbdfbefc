"""A loader's batches and its state: what the loop was given, and what decides the windows."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

import cache
from cache import CacheError, MixturePart
from cache.mixture import Mixture
from tests.cache import toy

SPLIT = "toy/train"


@pytest.fixture
def root(tmp_path):
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path)
    return tmp_path


def loader_of(root, changes=None, at=None, **options):
    part = {"splits": {SPLIT: cache.open(root, at)[SPLIT]}, "count": 3, "stride": 2, "name": "x"}
    part |= {"streams": ("resnet50",), "fields": ("resnet50", "kp_2d")}
    return cache.torch_mixture([MixturePart(**part | (changes or {}))], **{"seqlen": 4} | options)


@pytest.mark.parametrize("read_workers", [0, 2])
def test_a_state_is_of_the_batches_that_the_loop_was_given(root, read_workers):
    loader = loader_of(root, seed=3, steps=9, read_workers=read_workers)
    given = iter(loader)
    batches = [next(given)["x"] for _ in range(4)]
    saved = json.loads(json.dumps(loader.state_dict()))
    assert (saved["step"], saved["seed"]) == (4, 3)
    given.close()
    later = loader_of(root, seed=3, steps=9)
    later.load_state_dict(saved)
    batches += [batch["x"] for batch in later]
    mixture = Mixture(list(later.mixture.parts.values()), seqlen=4, seed=3)
    for step, batch in enumerate(batches):
        expected = mixture.read(mixture.draw(step))["x"]
        assert batch.keys() == expected.keys() == {"resnet50", "kp_2d"}
        for name, values in expected.items():
            assert batch[name].numpy().dtype == values.dtype
            assert_array_equal(batch[name], values)
    assert batch["resnet50"].dtype == torch.float16
    assert (step, later.step) == (8, 9)


def test_ranks_have_one_state(root):
    state = loader_of(root).state_dict()
    others = {"rank": 1, "world_size": 2, "read_workers": 4, "steps": 5}
    assert loader_of(root, **others).state_dict() == state


@pytest.mark.parametrize(
    ("changes", "options", "difference"),
    [
        ({}, {"seed": 4}, "seed: saved 3, found 4"),
        ({}, {"seqlen": 5}, "seqlen: saved 4, found 5"),
        ({"stride": np.int64(1)}, {}, "x: stride: saved 2, found 1"),
        ({"weights": {SPLIT: 2}}, {}, r"x: weights: saved {}, found {'toy/train': 2}"),
        ({"left_out": {SPLIT: np.array([[0, 2]])}}, {}, r"x: left_out: .*: \[\[0, 2\]\]}"),
        ({"name": "y"}, {}, "x: count: saved 3, found None.*y: count: saved None, found 3"),
    ],
)
def test_a_state_of_other_settings_is_refused_with_the_difference(
    root, changes, options, difference
):
    saved = loader_of(root, seed=3).state_dict()
    other = loader_of(root, changes, **{"seed": 3} | options)
    with pytest.raises(CacheError, match=difference):
        other.load_state_dict(saved | {"step": 7})
    assert other.step == 0
    other.load_state_dict(other.state_dict() | {"step": 7})
    assert other.step == 7


def test_a_state_of_other_rows_is_refused_and_goes_on_at_their_tag(root):
    cache.tag(root, "begun")
    saved = loader_of(root).state_dict() | {"step": 7}
    toy.write(root, [*toy.videos(), toy.video("new", 40)], plan="new")
    toy.write_stream(root)
    changed = (
        r"digest of toy/train: saved \w+, found \w+; digest of toy/train/resnet50: saved .* tag"
    )
    with pytest.raises(CacheError, match=changed):
        loader_of(root).load_state_dict(saved)
    begun = loader_of(root, at="begun")
    begun.load_state_dict(saved)
    assert begun.step == 7
