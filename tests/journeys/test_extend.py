"""One package of one's own - a dataset, streams, a detector, a model - installed by
pip, and used.
"""

import html
import re
import shutil

import numpy as np

import cache
from tests.journeys.conftest import HERE, KIT, ROOT, changed
from tests.journeys.made_inputs import write_clip
from vibe_model.runs import CURVES

CHANGES = {
    "datasets = ": "datasets = 3dpw lab_recordings\n#",
    "size = default": "size = tiny",
    "streams = resnet50": "streams = means change box_speed",
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
datasets_2d = lab_recordings/train
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


def one_package(source):
    """What the pages show, as the source of one package; its detector and its cheap features are
    the kit's.
    """
    docs = ROOT / "docs"
    shutil.copytree(docs / "adding-a-model/former", source / "former")
    shutil.copy(HERE / "one_package.toml", source / "pyproject.toml")
    modules = ["stream/small_streams", "dataset/lab_recordings"]
    for module in (*modules, "dataset/lab_recordings_example"):
        shutil.copy(docs / f"adding-a-{module}.py", source)
    shutil.copy(KIT / "journey_kit.py", source)
    return source


def first_settings(terminal):
    """Install the package and write luigi.cfg, which is returned as it was before the package's
    settings.
    """
    types, folder = terminal.types, terminal.folder
    terminal.install_by_pip(one_package(folder.with_name("source")))
    types("pipeline init")
    plain = (folder / "luigi.cfg").read_text()
    (folder / "luigi.cfg").write_text(changed(plain, CHANGES) + ADDED)
    types("pipeline config --check", r"correct, training can start")
    return plain


def a_dataset_and_streams(terminal):
    """A dataset with a column of its own, and streams, of which one looks back."""
    types, folder = terminal.types, terminal.folder
    raw = folder / "demo/raw"
    terminal.demo_data.dataset("3dpw", raw / "3dpw", size="tiny")
    terminal.demo_data.body(folder / "demo/body")
    types(f"python {terminal.site}/lab_recordings_example.py {raw}/lab_recordings")
    types(
        "luigi --module tasks Data",
        r"convert +lab_recordings/train",
        r"rejected train/broken\S*: video_unreadable",
    )
    kept = terminal.is_intact("demo/cache")
    types("pipeline status lab_recordings/train", r"means", r"change", r"box_speed")
    types("pipeline doctor lab_recordings", r"tables of joints")
    header, *lines = (raw / "lab_recordings/train/alone.csv").read_text().splitlines()
    contacts = [f"{frame % 2},0,1,{frame % 3 // 2}" for frame in range(len(lines))]
    lines = [
        ",".join((line.rsplit(",", 4)[0], contact))
        for line, contact in zip(lines, contacts, strict=True)
    ]
    (raw / "lab_recordings/train/again.csv").write_text("\n".join([header, *lines]))
    shutil.copy(raw / "lab_recordings/train/alone.mp4", raw / "lab_recordings/train/again.mp4")
    types("luigi --module tasks Data", r"convert +lab_recordings/train +1 video read")
    assert sum(terminal.frames_kept("demo/cache").values()) > sum(kept.values())
    read_what_was_written(terminal, contacts)


def read_what_was_written(terminal, contacts):
    """The new video's column, and the stream that looks back."""
    split = cache.open(terminal.folder / "demo/cache")["lab_recordings/train"]
    (track,) = (track for track in split.tracks if track.name.startswith("train/again/"))
    rows = slice(track.start, track.stop)
    (contact,) = split.read([[rows.start, rows.stop]], stream=None, fields=("foot_contact",))[
        "foot_contact"
    ]
    np.testing.assert_array_equal(contact, [list(map(int, line.split(","))) for line in contacts])
    speed, box = split.column("features/box_speed")[rows], split.column("bbox")[rows]
    known = split.column("features/box_speed_ok")[rows] == cache.COMPUTED
    assert list(known) == [False] + (len(box) - 1) * [True], (
        "there is nothing before the first frame"
    )
    np.testing.assert_allclose(speed[1:], np.diff(box[:, :2], axis=0) / box[1:, 3:], atol=1e-3)


def a_detector(terminal):
    types, folder = terminal.types, terminal.folder
    raw = folder / "demo/raw"
    write_clip(folder / "clips/a.mp4", 30, seed=1)
    shutil.copy(raw / "3dpw/STAND_IN.json", folder / "clips")
    types("pipeline detect clips --out clips/keypoints", r"30 persons in 30 frames")
    types("pipeline convert videos/train --raw clips --cache demo/cache", r"30 kept of 30")
    types(
        "pipeline extract videos/train --cache demo/cache",
        r"means extracted, 30 rows",
        r"box_speed extracted, 30",
    )
    terminal.is_intact("demo/cache")


def a_model(terminal):
    """A model beside VIBE."""
    types, folder = terminal.types, terminal.folder
    types("luigi --module tasks Report", r"train +Former", r"train +VIBE", r"report +page")
    page = (folder / "demo/runs/report.html").read_text()
    assert re.search(r"<t[dh][^>]*>\s*Former", page)
    types("tasks train --model former", r"run +demo/runs/former-")
    (best,) = (folder / "demo/runs").glob("former-*/best.pt")
    assert "train/velocity" in (best.parent / CURVES).read_text()
    types(f"tasks evaluate --checkpoint {best} --split 3dpw/test", r"Former")
    bodies = (
        f"tasks predict videos/train --cache demo/cache --checkpoint {best} --no-overlay "
        "--out bodies"
    )
    types(bodies, r"30 body-frames")
    types(
        "pipeline export lab_recordings/train --cache demo/cache --format vibe --stream means "
        "--out lab.pt",
        r"60 rows of 5 segments \(vid_name\)",
    )


def without_the_package(terminal, plain):
    """Messages name what is missing, and the cache can be read."""
    types, folder = terminal.types, terminal.folder
    (best,) = (folder / "demo/runs").glob("former-*/best.pt")
    for about in terminal.site.glob("*.dist-info"):
        shutil.rmtree(about)
    types(
        "pipeline config --check",
        r"\[lab_recordings\]: unknown section.*install the package",
        code=2,
    )
    (folder / "luigi.cfg").write_text(plain)
    missing = "whose package is not installed"
    of_dataset = rf"lab_recordings/train: split of dataset 'lab_recordings', {missing}"
    types("pipeline status", of_dataset, r"means \(package not installed\)", code=1)
    types(
        f"tasks evaluate --checkpoint {best} --split 3dpw/test",
        rf"checkpoint of model 'former', {missing}",
        code=2,
    )
    types("tasks report --out without.html")
    assert re.search(of_dataset, html.unescape((folder / "without.html").read_text()))
    types("pipeline verify --cache demo/cache", r"intact")


def test_one_package_adds_all_that_there_is(terminal):
    plain = first_settings(terminal)
    a_dataset_and_streams(terminal)
    a_detector(terminal)
    a_model(terminal)
    without_the_package(terminal, plain)
