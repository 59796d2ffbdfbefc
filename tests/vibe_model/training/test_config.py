import json
from dataclasses import replace
from pathlib import Path

import pytest

from vibe_model import TrainConfig
from vibe_model.errors import ConfigError
from vibe_model.settings.config import PRESETS


def test_the_published_numbers():
    config = TrainConfig.published()
    assert (config.batch_size, config.windows_2d, config.iterations, config.epochs, config.seqlen) == (
        32,
        19,
        500,
        30,
        16,
    )
    assert (config.lr_generator, config.lr_discriminator) == (5e-5, 1e-4)
    assert (config.weight_decay_generator, config.weight_decay_discriminator) == (0, 1e-4)
    assert config.weights == {
        "kp_2d": 300, "kp_3d": 300, "pose": 60, "shape": 0.06, "adversarial": 0.5, "discriminator": 0.5,
        "mposer": 0.1,
    }  # fmt: skip
    strides = ["penn_action/train", "posetrack/train", "3dpw/train", "mpi_inf_3dhp/train", "3dpw/test"]
    assert [config.strides.get(name, config.stride) for name in strides] == [4, 4, 4, 16, 16]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = PRESETS[name](pretrained=Path("spin.pt"))
    assert TrainConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_one_kind_of_dataset_fills_the_whole_batch():
    assert TrainConfig(datasets_3d=()).windows_2d == 32
    assert TrainConfig(datasets_2d=()).windows_2d == 0


def test_splits_are_named_once():
    config = TrainConfig(datasets_2d=("3dpw/train",), datasets_3d=("3dpw/train",), evaluation=("3dpw/validation",))
    assert config.splits == ("3dpw/train", "3dpw/validation", "amass/train")
    assert tuple(config.streams) == ("3dpw/train", "3dpw/validation")


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": "32"}, {"batch_size": 2.5}, {"batch_size": True}, {"lr_generator": float("nan")}, {"epochs": 0},
        {"datasets_2d": "penn_action/train"}, {"datasets_2d": ["penn_action/train"]}, {"strides": {"3dpw/train": 0}},
        {"share_2d": 1.0}, {"name": "a/b"}, {"name": ""}, {"name": ".."}, {"validation": ()},
        {"plateau_factor": 1.0}, {"body": "data/smpl"}, {"seed": -1}, {"kp_2d_weight": float("inf")},
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_contradictions_are_refused():
    with pytest.raises(ConfigError, match="at least one split to train on"):
        TrainConfig(datasets_2d=(), datasets_3d=())
    with pytest.raises(ConfigError, match="share_2d"):
        replace(TrainConfig(), batch_size=1)


def test_an_unknown_setting_is_refused():
    with pytest.raises(ConfigError, match="learning_rate"):
        TrainConfig.from_dict({"learning_rate": 1e-4})
