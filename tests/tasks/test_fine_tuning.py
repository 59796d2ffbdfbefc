"""docs/fine-tuning.md: its commands and settings, on demo clips, from a run's checkpoint."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

import cache
from pipeline import synthetic
from pipeline.__main__ import main as pipeline
from pipeline.body import Body
from pipeline.raw.stand_in import MARKER
from tasks.__main__ import main as tasks
from tests.tasks.conftest import CONFIG, FakeNetwork

PAGE = (Path(__file__).parents[2] / "docs/fine-tuning.md").read_text()
NO_WEIGHTS = re.compile(r" --weights \S+")  # of real networks


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_pages_commands_fine_tune_a_run_on_clips(project, within, monkeypatch) -> None:
    FakeNetwork.install(monkeypatch)
    monkeypatch.setattr("vibe_model.prediction.trained.load_body", lambda folder: Body.stand_in())
    monkeypatch.chdir(project.folder)
    raw = project.folder / "kinetics"
    synthetic.write_dataset("kinetics", raw, n_videos=1, n_frames=60)
    clips = project.folder / "clips"
    clips.mkdir()
    shutil.copy(raw / MARKER, clips)
    for clip in raw.rglob("*.mp4"):
        shutil.copy(clip, clips)
    (start,) = [run for run in project.runs if "per-frame" not in run.name]

    def run(command: str, trained: str = "") -> None:
        command = NO_WEIGHTS.sub("", command).replace("data/cache", "cache")
        command = command.replace("runs/<run>", f"runs/{start.name}").replace("runs/<fine-tuned>", f"runs/{trained}")
        _, _, module, *words = shlex.split(command)
        words += ["--weights", "untrained:0"] * (words[0] == "extract")
        words += ["--cache", "cache"] * (words[0] == "evaluate")
        assert {"pipeline": pipeline, "tasks": tasks}[module](words) == 0, command

    to_features, to_bodies = (text.strip().splitlines() for text in blocks("sh"))
    for command in to_features:
        run(command)
    assert len(cache.open("cache")["videos/train"].tracks)
    settings = configparser.ConfigParser()
    settings.read_string(blocks("ini")[0])
    short = {"iterations": "2", "epochs": "1", "batch_size": "5", "pretrained": f"runs/{start.name}/best.pt"}
    project.configure({"data": dict(settings["data"]), "train": {**CONFIG["train"], **settings["train"], **short}})
    within(project)
    run(to_bodies[0])
    (tuned,) = [run for run in project.runs if run.name.startswith("fine-tuned")]
    config = json.loads((tuned / "config.json").read_text())
    assert config["config"]["datasets_2d"] == ["videos/train"]
    for command in to_bodies[1:]:
        run(command, tuned.name)
    assert list((project.folder / "fine-tuned/overlays").iterdir())
