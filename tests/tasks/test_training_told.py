"""What training says: at each epoch, when it is interrupted, and when it is a new run beside an earlier one."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tasks import terminal, training
from vibe_model import runs
from vibe_model.settings.config import TrainConfig
from vibe_model.training.loop import Progress

ROOT = Path(__file__).parents[2]
TOLD = re.compile(r"  train      VIBE, tiny +epoch \d of 2: (loss \S+, )?validation PA-MPJPE [\d.]+ mm")


def news(iteration: int, **more: object) -> Progress:
    return Progress(0, 8, iteration, 30, **more)


def test_an_epochs_line_says_whose_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[tuple[int, int, str]] = []
    tell = training.telling(lambda *words: heard.append(words), "VIBE, embedded, seed 3")
    tell(news(1, terms={"2d": 6.0, "3d": 2.07}))
    tell(news(30, validation={"3dpw/validation": {"pa_mpjpe": 99.84}}))
    assert capsys.readouterr().out.splitlines() == [
        "  train      VIBE, embedded, seed 3    epoch 1 of 8: loss 8.07, validation PA-MPJPE 99.8 mm"
    ]
    assert heard == [(1, 240, "loss 8.07  epoch 1/8"), (30, 240, "loss 8.07  val 99.8 mm  epoch 1/8")]


def test_in_a_log_every_epoch_is_told_by_the_name_of_its_run(made) -> None:
    epochs = [line for line in made.evaluated.shown.splitlines() if "epoch" in line and "best of" not in line]
    assert len(epochs) == 2
    assert all(TOLD.fullmatch(line) for line in epochs), epochs


def test_after_a_change_training_says_what_makes_it_a_new_run(made, project) -> None:
    (first,) = made.project.runs
    project.configure({"train": {"epochs": "1", "batch_size": "4"}})
    ran = project.luigi("TrainVIBE")
    assert ran.code == 0, ran.shown
    told = " ".join(ran.shown.split())
    assert f"· train VIBE, tiny a new run beside {first.name}: batch_size was 2, is 4; epochs was 2, is 1 " in told
    assert "a new run beside" not in made.evaluated.shown
    assert "a new run beside" not in project.luigi("TrainVIBE").shown


def test_what_is_kept_of_a_training_is_the_step_of_its_last_checkpoint(made, project, monkeypatch) -> None:
    monkeypatch.chdir(project.folder)
    (folder,) = project.runs
    config = TrainConfig.from_dict(json.loads((folder / "config.json").read_text())["config"])
    monkeypatch.setattr(runs, "run_folder", lambda _: folder)
    assert training.kept(config) == f"step 6 of 6 (runs/{folder.name}/last.pt)"
    (folder / "last.pt").unlink()
    assert training.kept(config) == "nothing, since no checkpoint was written yet"


def test_an_interruption_names_what_was_typed_and_what_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = KeyboardInterrupt()
    interrupted.add_note("of VIBE, tiny, step 3 of 6 (runs/tiny-1/last.pt)")
    monkeypatch.setattr("sys.argv", [".venv/bin/luigi", "--module", "tasks", "EvaluateVIBE"])
    for said_as, again in (("make train", "make train"), ("", ".venv/bin/luigi --module tasks EvaluateVIBE")):
        monkeypatch.setenv("SAID_AS", said_as)
        terminal._interrupted(KeyboardInterrupt, interrupted, None)
        kept = "what is finished is kept; of VIBE, tiny, step 3 of 6 (runs/tiny-1/last.pt)"
        assert capsys.readouterr().err == f"\ninterrupted: {kept}; the same command goes on from there:\n  {again}\n"


@pytest.mark.parametrize("target", ["data", "train", "report"])
def test_make_tells_luigi_what_was_typed(target: str, tmp_path: Path) -> None:
    luigi = tmp_path / "luigi"
    luigi.write_text("#!/bin/sh\necho said as $SAID_AS\n")
    luigi.chmod(0o755)
    (tmp_path / ".ready").touch()
    words = ["make", "-s", "-f", str(ROOT / "Makefile"), f"BIN={tmp_path}", "-o", ".venv/.ready", target]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == f"said as make {target}\n"
