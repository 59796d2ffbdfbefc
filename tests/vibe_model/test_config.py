import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from vibe_model import TrainConfig, models
from vibe_model.hmmr import config as hmmr
from vibe_model.part_dynamics import config as part_dynamics
from vibe_model.part_dynamics.pr_vipe import config as pr_vipe
from vibe_model.vibe import config as vibe

TRAININGS = (*models.every(), vibe.MPOSER, pr_vipe.PR_VIPE)


@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.section)
def test_the_numbers_of_presets_are_recorded(training, record):
    """The papers' and ours: all settings of the default preset, and what others have instead."""
    made = {name: make().as_dict() for name, make in training.presets.items()}
    usual = made[training.preset]
    for name, settings in made.items():
        assert settings.keys() == usual.keys()
        if name != training.preset:
            made[name] = {key: of for key, of in settings.items() if of != usual[key]}
    record(f"models/{training.section}", "presets").check(made)


def test_the_published_presets_have_the_papers_numbers_of_windows():
    published = hmmr.PRESETS["hmmr-published"]()
    assert (TrainConfig().windows_2d, published.windows_2d) == (19, 4)
    assert published.poses().batch_size == 960


PRESETS = [*vibe.PRESETS.values(), *hmmr.PRESETS.values(), *part_dynamics.PRESETS.values()]


@pytest.mark.parametrize(
    "config",
    [
        *(replace(make(), pretrained=Path("spin.pt")) for make in PRESETS),
        *(m() for m in (*vibe.MPOSER.presets.values(), *pr_vipe.PR_VIPE.presets.values())),
    ],
)
def test_presets_survive_json_and_so_do_the_values_that_change_nothing(config):
    settings = json.loads(json.dumps(config.as_dict()))
    assert type(config).from_dict(settings) == config
    neutral = settings | config.ADDED
    assert type(config).from_dict(neutral).as_dict() == neutral


def test_a_cache_in_an_object_store_stays_a_url():
    assert TrainConfig.from_dict({"cache": "s3://bucket/cache"}).cache == "s3://bucket/cache"


def test_parts_splits_and_streams_follow_from_the_datasets():
    assert TrainConfig(datasets_3d=()).windows_2d == 32
    assert TrainConfig(datasets_2d=()).windows_2d == 0
    config = TrainConfig(
        datasets_2d=("3dpw/train",), datasets_3d=("3dpw/train",), evaluation=("3dpw/validation",)
    )
    assert config.splits == ("3dpw/train", "3dpw/validation", "amass/train")
    assert tuple(config.streams) == ("3dpw/train", "3dpw/validation")


WRONG = {
    TrainConfig: [
        {"batch_size": 2.5}, {"lr_generator": float("nan")}, {"epochs": 0},
        {"datasets_2d": "penn_action/train"}, {"strides": {"3dpw/train": 0}},
        {"share_2d": 1.0}, {"name": "a/b"}, {"name": ".."}, {"validation": ()},
        {"motion": ()},
        {"plateau_factor": 1.0}, {"seed": -1}, {"kp_2d_weight": float("inf")},
        {"window_weights": {"3dpw/train": 0.0}}, {"window_weights": {"x/train": 2.0}},
        {"leave_out": ("x/train",)},
        {"tail": "keep"}, {"hold": "gpu"}, {"read_workers": -1}, {"processes": 33},
        {"datasets_2d": (), "datasets_3d": ()},
    ],
    vibe.MPoserConfig: [
        {"latent_size": 0}, {"kl_weight": -1.0}, {"motion": ()},
    ],
    hmmr.HMMRConfig: [{"width": 40}, {"processes": 2}, {"motion": ()}, {"norm": "batch"}],
    part_dynamics.PartDynamicsConfig: [{"regions": 3}],
    pr_vipe.PrVIPEConfig: [{"motion": (), "poses_3d": ()}, {"batch_size": 1}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "wrong"), [(config, one) for config, every in WRONG.items() for one in every]
)
def test_a_wrong_value_is_refused_by_name(config, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        config(**wrong)


def test_a_stream_that_the_norms_groups_do_not_divide_needs_a_width():
    with pytest.raises(
        ConfigError,
        match=r"resnet50 has 100 numbers per row, which is no multiple of 32.*Set width",
    ):
        hmmr.HMMRConfig(feature_size=100).check_feature_size()
    hmmr.HMMRConfig(feature_size=100, width=64).check_feature_size()


def test_a_batch_too_small_for_both_kinds_and_an_unknown_setting_are_refused():
    with pytest.raises(ConfigError, match="share_2d"):
        replace(TrainConfig(), batch_size=1)
    with pytest.raises(ConfigError, match="learning_rate"):
        TrainConfig.from_dict({"learning_rate": 1e-4})
