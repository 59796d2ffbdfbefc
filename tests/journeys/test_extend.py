"""Packages of one's own - a dataset, streams, a detector, a model - installed as the pages say, and used."""

from __future__ import annotations

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

[smoothing]
datasets_3d = 3dpw/train
seqlen = 6
batch_size = 2
iterations = 3
epochs = 1
regressor_size = 8
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
    settings = (folder / "luigi.cfg").read_text()
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
    types("luigi --module tasks Report", r"train +Smoothing", r"train +VIBE", r"report +page")
    page = (folder / "runs/report.html").read_text()
    assert re.search(r"<t[dh][^>]*>\s*Smoothing", page)
    types("tasks train --model smoothing", r"run +runs/smoothing-")
    (best,) = (folder / "runs").glob("smoothing-*/best.pt")
    types(f"tasks evaluate --checkpoint {best} --split 3dpw/test", r"Smoothing")
    types(
        f"tasks predict videos/train --cache data/cache --checkpoint {best} --no-overlay --out bodies",
        r"30 body-frames",
    )

    # Its package is not here: the message says so, and the cache can be read.
    shutil.rmtree(next(terminal.site.glob("smoothing_model-*.dist-info")))
    text = (folder / "luigi.cfg").read_text()
    (folder / "luigi.cfg").write_text(text.replace("[smoothing]", "[mposer]\n[unused]").partition("[mposer]")[0])
    types(f"tasks evaluate --checkpoint {best} --split 3dpw/test", r"smoothing.*[Ii]nstall", code=2)
    terminal.is_intact("data/cache")
