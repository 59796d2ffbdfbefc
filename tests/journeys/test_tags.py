"""The state that was trained on: named, trained on again after everything has changed, copied, and let go."""

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np

from tests.journeys.conftest import KIT, Terminal

CHANGES = {
    "datasets = ": "datasets = 3dpw\n#",
    "size = default": "size = tiny",
    "streams = resnet50": "streams = means",
}
ADDED = """
[vibe]
datasets_2d =
datasets_3d = 3dpw/train
evaluation = 3dpw/test
motion =
prior = none
baseline = false
seqlen = 6
batch_size = 2
iterations = 2
epochs = 1
hidden_size = 8
regressor_size = 8
"""
DATA = "luigi --module tasks Data"


def change_labels(file: Path) -> None:
    """Other poses of the first person: that video is written again."""
    labels = pickle.loads(file.read_bytes(), encoding="latin1")
    labels["poses"][0] = np.asarray(labels["poses"][0]) * 0.9
    file.write_bytes(pickle.dumps(labels, protocol=2))


def numbers(folder: Path) -> object:
    """What a training measured, without when and how fast."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return metrics["best"], metrics["3dpw/test"]


def test_a_tag_is_trained_on_again_after_everything_has_changed(terminal: Terminal) -> None:
    types, folder = terminal.types, terminal.folder
    terminal.install(KIT)
    types("pipeline init")
    settings = (folder / "luigi.cfg").read_text()
    for old, new in CHANGES.items():
        assert old in settings, old
        settings = settings.replace(old, new)
    (folder / "luigi.cfg").write_text(settings + ADDED)
    types(DATA, r"convert +3dpw/train")
    types("pipeline tag v1", r"v1: \d splits, [\d,]+ rows, means")
    types("tasks train --at v1", r"run +runs/")
    (run,) = (folder / "runs").iterdir()
    assert json.loads((run / "config.json").read_text())["config"]["tag"] == "v1"
    trained = shutil.move(run, folder / "trained")

    (labels, *_) = sorted((folder / "data/embedded/raw/3dpw/sequenceFiles/train").glob("*.pkl"))
    change_labels(labels)
    types(DATA, r"convert +3dpw/train +1 video read")
    for split in ("train", "validation", "test"):
        types(f"pipeline extract 3dpw/{split} --replace --stream means")
    types("pipeline gc", r"that tag v1 references")
    types("pipeline status", r"tag v1: ", r"tag v1 keeps .*--delete")
    types("pipeline tag v1", r"another", code=2)
    terminal.is_intact("data/cache")
    assert {tag["name"]: tag["held"] > 0 for tag in terminal.types_json("pipeline tag --json")} == {"v1": True}

    types("tasks train --at v1")
    assert numbers(run) == numbers(trained)
    types("tasks train")
    (newest,) = {*(folder / "runs").iterdir()} - {run}
    assert numbers(newest) != numbers(run)
    checkpoint = f"--checkpoint {run}/best.pt --split 3dpw/test --json"
    then = terminal.types_json(f"tasks evaluate {checkpoint} --at v1")
    assert then["3dpw/test"]["pa_mpjpe"] == numbers(run)[1]["pa_mpjpe"]
    types("tasks train --at v2", r"no tag 'v2'; there are: v1", code=2)

    types("pipeline copy --tag v1 --to copy", r"3dpw/train: copied \d+ rows with means")
    terminal.is_intact("copy")
    types("tasks train --set paths.cache=copy")
    before = sum(file.stat().st_size for file in (folder / "data/cache").rglob("*") if file.is_file())
    held = terminal.types_json("pipeline tag --json")[0]["held"]
    types("pipeline tag v1 --delete", r"deleted")
    assert not re.search("tag", types("pipeline gc"))
    after = sum(file.stat().st_size for file in (folder / "data/cache").rglob("*") if file.is_file())
    assert before - after > held > 0
    terminal.is_intact("data/cache")
