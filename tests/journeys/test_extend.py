"""Packages of one's own - a dataset, streams, a detector, a model - installed as the pages say, and used."""

from __future__ import annotations

import html
import re
import shutil

from tests.journeys.conftest import KIT, ROOT, Terminal
from tests.journeys.test_clips import write_clip

CHANGES = {
    "datasets = ": "datasets = 3dpw lab_recordings\n#",
    "size = default": "size = tiny",
    "stream = resnet50": "stream = means\nkind = means\nalso = thumbnail change pose_2d",
    "weights = untrained:0\nprecision = fast\n": "",
}
ADDED = """
[lab_recordings]
min_score = 0.4

[detect]
detector = red
datasets =

[red]
min_pixels = 40

[videos]
min_frames = 20

[vibe]
datasets_2d =
datasets_3d = 3dpw/train
prior = none
baseline = false
seqlen = 6
batch_size = 2
iterations = 3
epochs = 1
hidden_size = 8
regressor_size = 8

[former]
datasets_3d = 3dpw/train
seqlen = 6
batch_size = 2
iterations = 3
epochs = 1
n_layers = 1
hidden_size = 8
report = true

[hmmr]
report = false

[part_dynamics]
report = false
"""


def test_packages_of_ones_own(terminal: Terminal) -> None:
    types, folder = terminal.types, terminal.folder
    docs = ROOT / "docs"
    terminal.install_by_pip(KIT, docs / "adding-a-dataset", docs / "adding-a-stream", docs / "adding-a-model")
    types("pipeline init")
    plain = settings = (folder / "luigi.cfg").read_text()
    for old, new in CHANGES.items():
        assert old in settings, old
        settings = settings.replace(old, new)
    (folder / "luigi.cfg").write_text(settings + ADDED)
    types("pipeline config --check", r"no mistakes")

    # A dataset and streams.
    raw = folder / "data/embedded/raw"
    raw.mkdir(parents=True)
    types(f"python {terminal.site}/lab_recordings_example.py {raw}/lab_recordings")
    types("luigi --module tasks Data", r"convert +lab_recordings/train", r"rejected train/broken\S*: video_unreadable")
    terminal.is_intact("data/cache")
    kept = terminal.frames_kept("data/cache")
    types("pipeline status lab_recordings/train", r"means", r"thumbnail", r"change", r"pose_2d")
    types("pipeline doctor lab_recordings", r"tables of joints")
    for suffix in (".mp4", ".csv"):
        shutil.copy(raw / f"lab_recordings/train/alone{suffix}", raw / f"lab_recordings/train/again{suffix}")
    types("luigi --module tasks Data", r"convert +lab_recordings/train +1 video read")
    terminal.is_intact("data/cache")
    assert sum(terminal.frames_kept("data/cache").values()) > sum(kept.values())

    # A detector.
    write_clip(folder / "clips/a.mp4", 30, seed=1)
    shutil.copy(raw / "3dpw/STAND_IN.json", folder / "clips")
    types("pipeline detect clips --out clips/keypoints", r"30 persons in 30 frames")
    types("pipeline convert videos train --raw clips --cache data/cache", r"30 kept of 30")
    types(
        "pipeline extract videos train --cache data/cache", r"means extracted, 30 rows", r"pose_2d extracted, 30 rows"
    )
    terminal.is_intact("data/cache")

    # A model.
    types("luigi --module tasks Report", r"train +Former", r"train +VIBE", r"report +page")
    page = (folder / "runs/report.html").read_text()
    assert re.search(r"<t[dh][^>]*>\s*Former", page)
    types("tasks train --model former", r"run +runs/former-")
    (best,) = (folder / "runs").glob("former-*/best.pt")
    types(f"tasks evaluate --checkpoint {best} --split 3dpw/test", r"Former")
    types(
        f"tasks predict videos/train --cache data/cache --checkpoint {best} --no-overlay --out bodies",
        r"30 body-frames",
    )

    # The packages are not here: messages name what is missing, and the cache can be read.
    for about in terminal.site.glob("*.dist-info"):
        shutil.rmtree(about)
    types("pipeline config --check", r"\[lab_recordings\]: unknown section.*install that package", code=2)
    (folder / "luigi.cfg").write_text(settings.replace("datasets = 3dpw lab_recordings", "datasets = lab_recordings"))
    types("pipeline plan", r"no dataset is called 'lab_recordings'.*install that package", code=2)
    (folder / "luigi.cfg").write_text(plain)
    missing = "whose package is not installed"
    of_dataset = rf"lab_recordings/train: split of dataset 'lab_recordings', {missing}"
    types("pipeline status", of_dataset, r"means \(package not installed\)", code=1)
    types(f"tasks evaluate --checkpoint {best} --split 3dpw/test", rf"checkpoint of model 'former', {missing}", code=2)
    types("tasks report --out without.html")
    page = html.unescape((folder / "without.html").read_text())
    for pattern in (of_dataset, r"means \(package not installed\)", rf"model 'former', {missing}"):
        assert re.search(pattern, page), pattern
    types("pipeline verify --cache data/cache", r"intact")
