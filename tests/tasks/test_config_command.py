"""`python -m pipeline config`, as a person and as a program read it; and commands of other packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.__main__ import main
from tasks.commands import config
from tasks.effective import effective
from tasks.settings import load

ROOT = Path(__file__).parents[2]
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
    return tmp_path / "luigi.cfg"


def run(*words: object) -> int:
    return main(["config", *map(str, words)])


def said(cfg: Path, capsys: pytest.CaptureFixture[str], *names: str) -> dict[str, tuple[Any, str, int | None]]:
    assert run("--json", "--config", cfg, *names) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(cfg)
    return {f"{one['section']}.{one['key']}": (one["value"], one["origin"], one["line"]) for one in found["settings"]}


def test_each_setting_is_told_with_who_said_it(cfg: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(cfg, capsys)
    assert found["paths.raw"] == (str(cfg.parent / "raw"), "luigi.cfg line 2", 2)
    assert found["features.precision"] == ("exact", "luigi.cfg line 11", 11)
    assert found["embedded.enabled"] == (False, "default", None)
    assert found["amass.resampling"] == ("slerp", "default", None)
    assert found["dask.scheduler"] == (None, "default", None)
    assert found["train.epochs"] == (3, "luigi.cfg line 15", 15)
    assert found["train.disc_pool"] == ("concat", "variant concat", None)
    assert found["train.hidden_size"] == (256, "preset embedded", None)
    assert found["train.strides"][0]["3dpw/train"] == 4
    assert found["mposer.device"] == ("cpu", "luigi.cfg line 17", 17)
    assert found["mposer.threads"] == (0, "[train] threads", None)
    assert found["core.log_level"] == ("INFO", "luigi.cfg line 19", 19)
    assert found["retcode.task_failed"] == ("30", "default", None)


def test_no_key_of_the_file_is_left_out(cfg: Path) -> None:
    loaded = load(cfg)
    told = {(one.section, one.key) for one in effective(loaded)}
    assert {(name, key) for name, keys in loaded.source.sections.items() for key in keys} <= told
    assert len(told) == len(list(effective(loaded)))


def test_what_a_variant_makes_it_makes_whatever_the_file_says(cfg: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg.write_text(CFG.replace("epochs = 3", "disc_pool = last"))
    assert said(cfg, capsys, "train.disc_pool") == {"train.disc_pool": ("concat", "variant concat", None)}


def test_in_a_pipe_a_setting_is_a_line(cfg: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--config", cfg, "train.epochs", "convert") == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{cfg} (--config)"
    assert [line.split(maxsplit=2) for line in lines] == [
        ["convert.workers", "2", "luigi.cfg line 9"],
        ["convert.strict", "false", "default"],
        ["train.epochs", "3", "luigi.cfg line 15"],
    ]


def test_on_a_terminal_each_section_is_a_table(
    cfg: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config.out, "_force_terminal", True)
    monkeypatch.setattr(config.out, "_width", 100)
    monkeypatch.setattr(config.out, "_color_system", None)
    assert run("--config", cfg, "features", "convert") == 0
    told = capsys.readouterr().out
    assert told.index("[convert]") < told.index("[features]")
    assert "precision" in told
    assert "features.precision" not in told


def test_the_environment_is_named_where_it_says_which_file(
    cfg: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(cfg))
    assert run("data") == 0
    assert capsys.readouterr().out.startswith(f"{cfg} (environment: LUIGI_CONFIG_PATH)\n")
    monkeypatch.delenv("LUIGI_CONFIG_PATH")
    monkeypatch.chdir(cfg.parent)
    assert run("data") == 0
    assert capsys.readouterr().out.startswith(f"{cfg} (./luigi.cfg)\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("featurs", "there is no section 'featurs'; did you mean 'features'? known: paths, data, "),
        ("features.precison", "[features] has no key 'precison'; did you mean 'precision'? known: stream, "),
        ("train.nonsense", "[train] has no key 'nonsense'; known: preset, variant, "),
    ],
)
def test_a_name_that_is_none_is_told_with_those_that_are(
    cfg: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert run("--config", cfg, name) == 2
    assert message in capsys.readouterr().err


def test_a_check_of_what_is_right_is_silent(cfg: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--config", cfg, "--check") == 0
    assert capsys.readouterr() == ("", "")


def test_what_only_training_refuses_is_told_and_fails_a_check_alone(
    cfg: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg.write_text(CFG.replace("kinetics ", ""))
    for words, code in ((("--check",), 1), ((), 0)):
        assert run("--config", cfg, *words) == code
        told = capsys.readouterr().err
        assert "[train] datasets_2d: kinetics/train is to be used, but [data] datasets does not enable it." in told
        assert "Until then, training is refused; `Data` is not." in told


# ---------------------------------------------------------------------------------- a process, as it is installed


def command(folder: Path, *words: str, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python WORDS` in a folder; `packages` is one in which another distribution is installed."""
    found = os.pathsep.join(map(str, [ROOT, *([] if packages is None else [packages])]))
    environment = {key: value for key, value in os.environ.items() if key != "LUIGI_CONFIG_PATH"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**environment, "PYTHONPATH": found},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("words", [("-m", "pipeline", "config"), ("-m", "tasks", "train")])
def test_what_luigis_own_reader_would_stumble_over_is_told_before_it_does(cfg: Path, words: tuple[str, ...]) -> None:
    cfg.write_text(CFG + "log_level = DEBUG\n")
    ran = command(cfg.parent, *words)
    assert ran.returncode == 2
    assert ran.stderr == "error: luigi.cfg, line 20 [core] log_level: is in line 19 already: keep one\n"
