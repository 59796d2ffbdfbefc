"""The state that was trained on: trained on again, from a snapshot, after everything has
changed.
"""

import json
import pickle
import shutil
import subprocess

import numpy as np
import pytest

from tests.journeys.conftest import KIT, changed
from tests.trees import contents

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


def change_labels(file):
    """Other poses of the first person: that video is written again."""
    labels = pickle.loads(file.read_bytes(), encoding="latin1")
    labels["poses"][0] = np.asarray(labels["poses"][0]) * 0.9
    file.write_bytes(pickle.dumps(labels, protocol=2))


def numbers(folder):
    """What a training measured, without when and how fast."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return metrics["best"], metrics["3dpw/test"]


@pytest.mark.promise("snapshot")
def test_a_snapshot_is_trained_on_again_after_everything_has_changed(terminal):
    types, folder = terminal.types, terminal.folder
    terminal.install(KIT)
    types("pipeline init")
    settings = (folder / "luigi.cfg").read_text()
    (folder / "luigi.cfg").write_text(changed(settings, CHANGES) + ADDED)
    types(DATA, r"convert +3dpw/train")
    before = contents(folder / "demo/cache")
    subprocess.run(["cp", "-al", folder / "demo/cache", folder / "snapshot"], check=True)
    types("tasks train --set paths.cache=snapshot", r"run +demo/runs/")
    (run,) = (folder / "demo/runs").iterdir()
    trained = shutil.move(run, folder / "trained")

    (labels, *_) = sorted((folder / "demo/raw/3dpw/sequenceFiles/train").glob("*.pkl"))
    change_labels(labels)
    types(DATA, r"convert +3dpw/train +1 video read")
    for split in ("train", "test"):
        types(f"pipeline extract 3dpw/{split} --replace --stream means")
    types("pipeline gc")
    terminal.is_intact("demo/cache")
    terminal.is_intact("snapshot")
    assert contents(folder / "snapshot") == before

    types("tasks train --set paths.cache=snapshot")
    assert numbers(run) == numbers(trained)
    types("tasks train")
    (newest,) = {*(folder / "demo/runs").iterdir()} - {run}
    assert numbers(newest) != numbers(run)
    checkpoint = f"--checkpoint {run}/best.pt --split 3dpw/test --json"
    then = terminal.types_json(f"tasks evaluate {checkpoint} --cache snapshot")
    assert then["3dpw/test"]["pa_mpjpe"] == numbers(run)[1]["pa_mpjpe"]

    now = contents(folder / "demo/cache")
    types("pipeline extract 3dpw/train --replace --stream means --cache snapshot")
    types("pipeline gc --cache snapshot")
    assert contents(folder / "demo/cache") == now
