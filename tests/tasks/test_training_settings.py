"""[train] of luigi.cfg: a preset and what differs from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from tasks import training
from tasks.training import train_config
from vibe_model.settings.config import TrainConfig
from vibe_model.settings.variants import variant_of

EVERYTHING = {"data": {"datasets": "penn_action kinetics 3dpw amass"}}
EMBEDDED = {"preset": "embedded", "datasets_2d": None}


@pytest.fixture
def config_with(bare, within):
    def read(**train: str | None) -> TrainConfig:
        bare.configure({**EVERYTHING, "train": {**EMBEDDED, **train}})
        within(bare)
        return train_config()

    return read


def test_a_preset_is_changed_by_what_stands_beside_it(config_with) -> None:
    config = config_with(epochs="7", lr_generator="2e-4")
    assert (config.epochs, config.lr_generator) == (7, 2e-4)
    assert config.datasets_2d == TrainConfig.embedded().datasets_2d


def test_paths_and_stream_come_from_their_own_sections(bare, within) -> None:
    bare.configure({"features": {"stream": "other"}})
    within(bare)
    config = train_config()
    assert (config.cache, config.runs, config.body) == tuple(bare.folder / name for name in ("cache", "runs", "body"))
    assert config.stream == "other"


def test_strides_are_pairs_of_split_and_number(config_with) -> None:
    assert config_with(strides="3dpw/train:4 penn_action/train:2").strides == {"3dpw/train": 4, "penn_action/train": 2}
    assert config_with(strides="").strides == {}


def test_tracks_are_pairs_of_split_and_pattern(config_with) -> None:
    assert config_with(tracks="3dpw/test:*_01/0 3dpw/validation:a:b").tracks == {
        "3dpw/test": "*_01/0",
        "3dpw/validation": "a:b",
    }


def test_a_checkpoint_to_start_from_lies_below_the_folder_of_luigi_cfg(config_with, bare) -> None:
    (bare.folder / "spin.pt").write_bytes(b"")
    assert config_with(pretrained="spin.pt").pretrained == bare.folder / "spin.pt"
    assert config_with(pretrained="none").pretrained is None
    assert config_with(pretrained="~/spin.pt" if (Path.home() / "spin.pt").is_file() else "").pretrained is None


def test_a_discriminator_needs_real_motion(config_with) -> None:
    with pytest.raises(ConfigError, match=r"motion: expected splits of real motion .* Or: prior = none"):
        config_with(motion="")
    assert config_with(motion="", prior="none").splits == config_with(prior="none").splits


def test_a_variant_is_what_it_is_called_whatever_the_settings_say(config_with) -> None:
    config = config_with(variant="attention-2x512", disc_size="64", attention_layers="5", epochs="3")
    assert (config.disc_size, config.attention_layers, config.epochs) == (512, 2, 3)
    assert config.name.endswith("-attention-2x512")
    with pytest.raises(ConfigError, match=r"variant: expected one of per-frame, .*found 'best'"):
        config_with(variant="best")


def test_variants_are_joined_and_what_is_left_out_stays_left_out(config_with) -> None:
    config = config_with(datasets_3d="3dpw/train 3dpw/validation", leave_out="3dpw/validation", variant="per-frame")
    assert (config.n_layers, config.prior, config.leave_out) == (0, "none", ("3dpw/validation",))
    both = variant_of(config, "without-3dpw+concat")
    assert both.leave_out == ("3dpw/validation", "3dpw/train")
    assert (both.n_layers, both.disc_pool) == (0, "concat")


def test_the_baseline_is_the_configured_variant_frame_by_frame(config_with) -> None:
    config_with(variant="without-3dpw", datasets_2d="3dpw/validation", baseline="true")
    own, baseline = training.train_config(), training.baseline_config()
    assert baseline is not None
    assert baseline.training_splits == own.training_splits == ("3dpw/validation",)
    assert (baseline.n_layers, baseline.prior) == (0, "none")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "mine"}, r"\[train\] preset = mine: expected one of published, paper, embedded"),
        ({"body": "smpl"}, r"\[train\] body: is set in \[paths\] or \[features\], not here"),
        ({"stream": "x"}, r"\[train\] stream: is set in \[paths\] or \[features\], not here"),
        ({"lr": "1"}, r"\[train\] lr: unknown key; known: preset, .*lr_generator"),
        ({"epochs": "many"}, r"\[train\] epochs = many: expected a whole number"),
        ({"epochs": "0"}, r"luigi\.cfg, line \d+ \[train\] epochs: expected more than 0, found 0"),
        ({"lr_generator": "nan"}, r"luigi\.cfg, line \d+ \[train\] lr_generator: expected float, found nan"),
        ({"strides": "3dpw/train"}, r"strides = 3dpw/train: expected name:value pairs .* each value a whole number"),
        ({"strides": "3dpw/train:x"}, r"strides = 3dpw/train:x: expected name:value pairs"),
        ({"strides": "a/b:1 a/b:2"}, r"expected name:value pairs with spaces between, each name once"),
        ({"tracks": "3dpw/test:"}, r"tracks = 3dpw/test:: expected name:value pairs .* each value a word"),
        ({"strides": "3dpw/train:0"}, r"\[train\] strides: expected more than 0 for 3dpw/train, found 0"),
        ({"validation": "3dpw/val"}, r"\[train\] validation: there is no split 3dpw/val; .*known: .*3dpw/validation"),
        (
            {"motion": "h36m/train"},
            r"\[train\] motion: h36m/train is to be used, but \[data\] datasets does not enable it",
        ),
        ({"pretrained": "gone.pt"}, r"\[train\] pretrained = .*bare/gone\.pt: there is no such file\. Name another"),
    ],
)
def test_a_mistake_is_told_with_the_file_the_key_and_what_was_expected(config_with, given, message) -> None:
    with pytest.raises(ConfigError, match=message):
        config_with(**given)
