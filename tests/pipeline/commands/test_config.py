"""`python -m pipeline config`, for people and for programs."""

import json
import os

import pytest

from pipeline.__main__ import main
from pipeline.files.formats import smpl_files
from pipeline.settings.file import SettingsFile

CFG = """[paths]
raw = raw
body = body
cache = cache
runs = runs
[data]
datasets = penn_action kinetics 3dpw amass
[convert]
workers = 2
[resnet50]
precision = exact
[vibe]
preset = embedded
variant = concat
epochs = 3
[mposer]
device = cuda
[core]
log_level = INFO
"""


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    (tmp_path / "luigi.cfg").write_text(CFG)
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(tmp_path / "luigi.cfg"))
    (body := tmp_path / "body").mkdir()
    for name in smpl_files.missing(body):
        (body / name.partition(" ")[0]).touch()
    return tmp_path / "luigi.cfg"


def values(ran, *words):
    settings = json.loads(ran("config", "--json", *words).out)["settings"]
    return settings


def test_what_config_prints(cfg, golden, monkeypatch):
    monkeypatch.chdir(cfg.parent)
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    width = [(r"(?<=\S) {2,}", "  ")]  # of the columns: as long as this run's paths are
    with golden("config", main, {cfg.parent: "PROJECT"}, width) as show:
        show("what differs from the defaults", "config")
        words = ("convert", "vibe.epochs", "vibe.disc_pool", "--set", "vibe.disc_pool=last")
        show("what is named, whole; a variant's name promises its settings", "config", *words)
        show("the same for programs", "config", "--json", *words)
        show("no such section", "config", "featurs")
        show("no such key", "config", "resnet50.precison")
        show("no such key, and none like it", "config", "dask.nonsense")
        show("no mistakes", "config", "--check")
        cfg.write_text(
            CFG.replace("kinetics ", "").replace("epochs = 3", "datasets_2d = kinetics/train")
        )
        show("what only training refuses", "config", "vibe.datasets_2d")
        show("the same, checked", "config", "--check")


def test_all_has_every_key_of_the_file_once_with_what_it_would_be_unless_set(cfg, ran):
    settings = values(ran, "--all")
    found = {
        (setting["section"], setting["key"]): (setting["value"], setting["default"])
        for setting in settings
    }
    assert len(found) == len(settings)
    assert {
        (name, key) for name, keys in SettingsFile.read(cfg).sections.items() for key in keys
    } <= found.keys()
    assert found["embedded", "enabled"] == (False, False)
    assert found["amass", "resampling"] == ("slerp", "slerp")
    assert found["dask", "scheduler"] == (None, None)
    assert found["vibe", "hidden_size"] == (256, 256), "of the preset"
    assert found["vibe", "strides"][0]["3dpw/train"] == 4
    assert found["mposer", "device"] == ("cuda", "cpu")


def test_what_is_set_for_one_command_is_forgotten_after_it(cfg, ran, monkeypatch):
    monkeypatch.setenv("PIPELINE_SET", "vibe.epochs=4\nvibe.seed=1")
    named = values(ran, "vibe.epochs", "vibe.seed", "--set", "vibe.epochs=9")
    assert [setting["value"] for setting in named] == [9, 1]
    assert os.environ["PIPELINE_SET"] == "vibe.epochs=4\nvibe.seed=1"


def test_a_section_with_a_dot_is_printed_whole_and_by_key(cfg, ran):
    own = (
        "[features]\nstreams = resnet50 resnet50.j1\n[resnet50.j1]\nkind = resnet50\ncrop = "
        "jitter:1\n"
    )
    cfg.write_text(CFG + own)
    for name, section, keys in (
        ("resnet50.j1", "resnet50.j1", ["crop", "weights", "precision"]),
        ("resnet50.j1.weights", "resnet50.j1", ["weights"]),
        ("resnet50.precision", "resnet50", ["precision"]),
    ):
        found = values(ran, name)
        assert [(setting["section"], setting["key"]) for setting in found] == [
            (section, key) for key in keys
        ]
    error = ran("config", "resnet50.j1.weigths", code=2).err
    assert "[resnet50.j1] has no key 'weigths'; did you mean 'weights'?" in error


def test_the_variables_of_the_environment_are_named_and_an_empty_one_counts_for_none(
    cfg, ran, monkeypatch
):
    monkeypatch.setenv("PIPELINE_SET", "rubbish")
    error = ran("config", code=2).err
    assert error.startswith("error: PIPELINE_SET=rubbish: expected SECTION.KEY=VALUE")
    monkeypatch.setenv("PIPELINE_SET", "")
    monkeypatch.setenv("LUIGI_CONFIG_PATH", "")
    monkeypatch.chdir(cfg.parent)
    ran("config", "--check")


def test_a_check_finds_weights_and_a_body_that_are_not_there(cfg, tmp_path, ran):
    (weights := tmp_path / "spin.pt").touch()
    check = ("config", "--check")
    error = ran(*check, "--set", f"resnet50.weights=spin:{weights}", code=1).err
    assert f"{weights}: expected " in error, "it is empty"
    weights.unlink()
    error = ran(*check, "--set", f"resnet50.weights=spin:{weights}", code=1).err
    assert f"weights spin:{weights}: file not found" in error
    (tmp_path / "body/J_regressor_extra.npy").unlink()
    assert f"{tmp_path / 'body'}: missing J_regressor_extra.npy" in ran(*check, code=1).err


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("paths.cache=/proc/x/cache", "/proc/x/cache: nothing can be written in /proc"),
        ("paths.runs=/proc/x", "/proc/x: nothing can be written in /proc"),
        ("paths.new_cache=no", "cache has no cache. Is its disk mounted?"),
        ("features.device=cuda:99", "device 'cuda:99': "),
        ("vibe.device=cuda:99", "--set [vibe] device: "),
        ("resnet50.weights=untrained:0", "weights = untrained:0: random weights are for demo data"),
    ],
)
def test_a_check_refuses_what_the_run_would_refuse(setting, words, cfg, ran):
    if "weights" in setting:
        (cfg.parent / "raw/penn_action").mkdir(parents=True)  # real data
    assert words in ran("config", "--check", "--set", setting, code=1).err
