"""`python -m pipeline config`, for people and for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.files.formats import smpl_files

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
def cfg(tmp_path: Path) -> Path:
    (tmp_path / "luigi.cfg").write_text(CFG)
    (body := tmp_path / "body").mkdir()
    for name in smpl_files.missing(body):
        (body / name.partition(" ")[0]).touch()
    return tmp_path / "luigi.cfg"


def run(*words: object) -> int:
    return main(["config", *map(str, words)])


def shown(cfg: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, tuple[Any, Any]]:
    """Name -> (value, default)."""
    assert run("--json", "--config", cfg, *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(cfg)
    names = [f"{setting['section']}.{setting['key']}" for setting in found["settings"]]
    assert len(set(names)) == len(names)
    return dict(zip(names, ((s["value"], s["default"]) for s in found["settings"]), strict=True))


def test_what_differs_from_the_defaults_is_shown_beside_them(cfg: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--config", cfg) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == str(cfg)
    assert [line.split(maxsplit=1)[0] for line in lines] == [
        *("paths.raw", "paths.body", "paths.cache", "paths.runs", "data.datasets", "convert.workers"),
        *("features.precision", "vibe.preset", "vibe.variant", "vibe.name", "vibe.epochs", "vibe.datasets_2d"),
        *("vibe.disc_pool", "hmmr.preset", "hmmr.datasets_2d", "part_dynamics.preset", "mposer.preset"),
        *("mposer.device", "pose_embedding.preset", "core.log_level"),
    ]
    by_name = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in lines}
    assert by_name["convert.workers"].split() == ["2", "unless", "set:", "0"]
    assert by_name["paths.runs"].split() == [str(cfg.parent / "runs"), "unless", "set:", "(required)"]
    assert by_name["vibe.epochs"].split() == ["3", "unless", "set:", "6"], "as the preset has it"


def test_the_rest_is_shown_where_it_is_named_or_with_all(cfg: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(cfg, capsys, "--all")
    assert found["embedded.enabled"] == (False, False)
    assert found["amass.resampling"] == ("slerp", "slerp")
    assert found["dask.scheduler"] == (None, None)
    assert found["vibe.hidden_size"] == (256, 256)
    assert found["vibe.strides"][0]["3dpw/train"] == 4
    assert found["mposer.device"] == ("cuda", "cpu")
    assert run("--config", cfg, "convert", "vibe.disc_pool", "--set", "vibe.disc_pool=last") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == [
        ["convert.workers", "2", "unless", "set:", "0"],
        ["convert.removed", "keep"],
        ["convert.strict", "false"],
        ["vibe.disc_pool", "concat", "unless", "set:", "attention"],  # a variant's name promises it
    ]


def test_what_is_set_for_one_command_is_forgotten_after_it(cfg: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PIPELINE_SET", "vibe.epochs=4\nvibe.seed=1")
    found = shown(cfg, capsys, "vibe.epochs", "vibe.seed", "--set", "vibe.epochs=9")
    assert found == {"vibe.epochs": (9, 6), "vibe.seed": (1, 0)}
    assert os.environ["PIPELINE_SET"] == "vibe.epochs=4\nvibe.seed=1"


def test_the_old_name_of_a_section_is_read_with_a_note(cfg: Path, capsys) -> None:
    cfg.write_text(CFG.replace("[vibe]", "[train]"))
    assert run("--config", cfg, "vibe.epochs", "--set", "train.seed=3") == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[1].split()[:2] == ["vibe.epochs", "3"]
    assert told.err.splitlines() == [
        f"! {cfg}, line 12 [train]: is called [vibe] now. The next version does not read the old name.",
        "! --set train.seed: the section is called vibe now. The next version does not read the old name.",
    ]
    cfg.write_text(CFG.replace("[vibe]", "[train]").replace("epochs = 3", "epochs = 0"))
    assert run("--config", cfg) == 2
    assert f"{cfg}, line 15 [vibe] epochs = 0: expected more than 0" in capsys.readouterr().err
    cfg.write_text(CFG + "[train]\nepochs = 5\n")
    assert run("--config", cfg) == 2
    assert "line 20 [train]: is called [vibe] now, which is there, too: keep one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("featurs", "there is no section 'featurs'; did you mean 'features'? known: paths, data, "),
        ("features.precison", "[features] has no key 'precison'; did you mean 'precision'? known: stream, "),
        ("vibe.nonsense", "[vibe] has no key 'nonsense'; known: preset, variant, "),
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
        assert "[vibe] datasets_2d: kinetics/train is to be used, but [data] datasets does not enable it." in message
        assert "Until then, training is refused; `Data` is not." in message
