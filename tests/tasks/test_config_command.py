"""`python -m tasks config`, for people and for programs; `python -m pipeline config` hands over to it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from pipeline.__main__ import main as pipeline_main
from pipeline.files.formats import smpl_files
from tasks.__main__ import main, parser
from tasks.commands.config import effective
from tasks.settings import load
from tests.tasks.conftest import ROOT

CFG = """[paths]
raw = raw
body = body
cache = cache
runs = runs
[data]
datasets = penn_action kinetics 3dpw amass
[convert]
workers = 2
[features]
precision = exact
[train]
preset = embedded
variant = concat
epochs = 3
[mposer]
device = cpu
[core]
log_level = INFO
"""


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    (tmp_path / "luigi.cfg").write_text(CFG)
    (body := tmp_path / "body").mkdir()
    for name in smpl_files.missing(body):
        (body / name.partition(" ")[0]).touch()
    return tmp_path / "luigi.cfg"


def run(*words: object) -> int:
    return main(["config", *map(str, words)])


def shown(cfg: Path, capsys: pytest.CaptureFixture[str], *names: str) -> dict[str, tuple[Any, str, int | None]]:
    assert run("--json", "--config", cfg, *names) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(cfg)
    return {f"{one['section']}.{one['key']}": (one["value"], one["origin"], one["line"]) for one in found["settings"]}


def test_each_setting_is_shown_with_where_it_comes_from(cfg: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(cfg, capsys)
    assert found["paths.raw"] == (str(cfg.parent / "raw"), "luigi.cfg line 2", 2)
    assert found["features.precision"] == ("exact", "luigi.cfg line 11", 11)
    assert found["convert.workers"] == (2, "luigi.cfg line 9", 9)
    assert found["embedded.enabled"] == (False, "default", None)
    assert found["amass.resampling"] == ("slerp", "default", None)
    assert found["dask.scheduler"] == (None, "default", None)
    assert found["train.epochs"] == (3, "luigi.cfg line 15", 15)
    assert found["train.disc_pool"] == ("concat", "variant concat", None)
    assert found["train.hidden_size"] == (256, "preset embedded", None)
    assert found["train.strides"][0]["3dpw/train"] == 4
    assert found["mposer.device"] == ("cpu", "luigi.cfg line 17", 17)
    assert found["core.log_level"] == ("INFO", "luigi.cfg line 19", 19)
    assert found["retcode.task_failed"] == ("30", "default", None)
    listed = [(one.section, one.key) for one in effective(load(cfg))]
    assert {(name, key) for name, keys in load(cfg).source.sections.items() for key in keys} <= set(listed)
    assert len(set(listed)) == len(listed)
    cfg.write_text(CFG.replace("epochs = 3", "disc_pool = last"))
    assert shown(cfg, capsys, "train.disc_pool") == {"train.disc_pool": ("concat", "variant concat", None)}


def test_a_setting_is_a_line_below_the_files_name(cfg: Path, capsys, monkeypatch) -> None:
    assert run("--config", cfg, "train.epochs", "convert") == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{cfg} (--config)"
    assert [line.split(maxsplit=2) for line in lines] == [
        ["convert.workers", "2", "luigi.cfg line 9"],
        ["convert.removed", "keep", "default"],
        ["convert.strict", "false", "default"],
        ["train.epochs", "3", "luigi.cfg line 15"],
    ]
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(cfg))
    assert run("data") == 0
    assert capsys.readouterr().out.startswith(f"{cfg} (environment: LUIGI_CONFIG_PATH)\n")
    monkeypatch.delenv("LUIGI_CONFIG_PATH")
    monkeypatch.chdir(cfg.parent)
    assert run("data") == 0
    assert capsys.readouterr().out.startswith(f"{cfg} (./luigi.cfg)\n")


def test_what_is_set_for_one_command_is_shown_as_such_and_forgotten_after_it(cfg: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PIPELINE_SET", "train.epochs=4\ntrain.seed=1")
    words = ("--config", str(cfg), "train.epochs", "train.seed", "--json", "--set", "train.epochs=9")
    assert run(*words) == 0
    found = [(one["value"], one["origin"], one["line"]) for one in json.loads(capsys.readouterr().out)["settings"]]
    assert found == [(9, "--set", None), (1, "--set", None)]
    assert os.environ["PIPELINE_SET"] == "train.epochs=4\ntrain.seed=1"
    with pytest.raises(SystemExit):
        run("--set", "epochs=9")
    assert "expected SECTION.KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("featurs", "there is no section 'featurs'; did you mean 'features'? known: paths, data, "),
        ("features.precison", "[features] has no key 'precison'; did you mean 'precision'? known: stream, "),
        ("train.nonsense", "[train] has no key 'nonsense'; known: preset, variant, "),
    ],
)
def test_a_name_that_there_is_not_is_reported(cfg: Path, capsys, name: str, message: str) -> None:
    assert run("--config", cfg, name) == 2
    assert message in capsys.readouterr().err


def test_a_check_finds_weights_and_a_body_that_are_not_there(cfg: Path, tmp_path: Path, capsys) -> None:
    (weights := tmp_path / "spin.pt").touch()
    assert run("--config", cfg, "--check", "--set", f"features.weights=spin:{weights}") == 0
    weights.unlink()
    assert run("--config", cfg, "--check", "--set", f"features.weights=spin:{weights}") == 1
    (tmp_path / "body/J_regressor_extra.npy").unlink()
    assert f"weights spin:{weights}: there is no such file" in capsys.readouterr().err
    assert run("--config", cfg, "--check") == 1
    assert f"{tmp_path / 'body'} lacks J_regressor_extra.npy" in capsys.readouterr().err


def test_a_check_confirms_the_file_or_names_what_training_refuses(cfg: Path, capsys) -> None:
    assert run("--config", cfg, "--check") == 0
    assert capsys.readouterr() == (f"✓ {cfg}: no mistakes, and training may begin\n", "")
    cfg.write_text(CFG.replace("kinetics ", "").replace("epochs = 3", "datasets_2d = kinetics/train"))
    for words, code in ((("--check",), 1), ((), 0)):
        assert run("--config", cfg, *words) == code
        message = capsys.readouterr().err
        assert "[train] datasets_2d: kinetics/train is to be used, but [data] datasets does not enable it." in message
        assert "Until then, training is refused; `Data` is not." in message


def test_the_pipelines_command_is_the_same_and_what_luigis_own_reader_refuses_is_one_line(
    cfg: Path, capfd, monkeypatch
) -> None:
    monkeypatch.chdir(cfg.parent)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    words, handed = ("--config", str(cfg), "--json", "train.epochs"), Mock(return_value=Mock(returncode=3))
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", handed)
        assert pipeline_main(["config", *words]) == 3
    _, *command = handed.call_args.args[0]
    assert command[:3] == ["-m", "tasks", "config"]
    assert parser().parse_args(command[2:]) == parser().parse_args(["config", *words])
    cfg.write_text(CFG + "log_level = DEBUG\n")
    assert pipeline_main(["config"]) == 2
    message = capfd.readouterr().err
    assert "error: luigi.cfg, line 20 [core] log_level: " in message
    assert len(message.splitlines()) == 1
