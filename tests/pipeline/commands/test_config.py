"""`python -m pipeline config`, for people and for programs."""

import os

import pytest

from pipeline.__main__ import main
from pipeline.people import smpl_files
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
lr = 0.01
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


def test_what_config_prints(cfg, golden, monkeypatch):
    monkeypatch.chdir(cfg.parent)
    monkeypatch.setenv("LUIGI_CONFIG_PATH", "")  # counts for none
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


def test_all_has_every_key_of_the_file_once_with_what_it_would_be_unless_set(cfg, types_json):
    settings = types_json("config --all")["settings"]
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
    assert found["mposer", "lr"] == (0.01, 0.002)


def test_what_is_set_for_one_command_is_forgotten_after_it(cfg, types_json, monkeypatch):
    monkeypatch.setenv("PIPELINE_SET", "vibe.epochs=4\nvibe.seed=1")
    named = types_json("config vibe.epochs vibe.seed --set vibe.epochs=9")["settings"]
    assert [setting["value"] for setting in named] == [9, 1]
    assert os.environ["PIPELINE_SET"] == "vibe.epochs=4\nvibe.seed=1"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("paths.cache=/proc/x/cache", "/proc/x/cache: nothing can be written in /proc"),
        ("paths.runs=/proc/x", "/proc/x: nothing can be written in /proc"),
        ("paths.new_cache=no", "cache has no cache. Is its disk mounted?"),
        ("features.device=cuda:99", "device 'cuda:99': "),
        ("vibe.device=cuda:99", "--set [vibe] device: "),
        ("resnet50.weights=spin:no.pt", "no.pt: file not found"),
        ("paths.body=nowhere", "nowhere: missing SMPL_NEUTRAL"),
        ("resnet50.weights=untrained:0", "weights = untrained:0: random weights are for demo data"),
    ],
)
def test_a_check_refuses_what_the_run_would_refuse(setting, words, cfg, types):
    if "weights" in setting:
        (cfg.parent / "raw/penn_action").mkdir(parents=True)  # real data
    types(f"config --check --set {setting}", words, code=1)
