import pytest

import cache
from tests.vibe_model.builders import SMALL
from tests.vibe_model.training.batches import write
from vibe_model.vibe.config import TrainConfig


@pytest.fixture
def mixed():
    return TrainConfig(
        datasets_2d=("c/train", "a/train"),
        datasets_3d=("a/train", "b/train"),
        motion=("m/train",),
        validation=("b/train",),
        evaluation=(),
        seqlen=4,
        stride=4,
        strides={"a/train": 2},
        batch_size=5,
        iterations=5,
        epochs=3,
        disc_size=4,
        **SMALL,
    )


@pytest.fixture(scope="module")
def of_windows(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    for seed, (name, lengths) in enumerate({"a": [9, 4, 23], "b": [5, 17], "c": [12], "m": [20]}.items()):
        write(root, f"{name}/train", lengths, seed)
    return root


@pytest.fixture
def on_disk(of_windows):
    opened = cache.open(of_windows)
    return {name: opened[name] for name in opened.splits}
