"""The packages of docs/adding-a-*.md: the pages show their code and settings, and their tests
pass.
"""

import itertools
import os
import re
import sys

import cv2
import numpy as np
import pytest

from pipeline import datasets
from pipeline.clips import detectors
from pipeline.files import raw
from tests.docs.markdown import ROOT, blocks, document, merged
from tests.environments import run
from tests.packages import DOCS, install_page
from tests.pipeline.datasets.by_hand import read_one, standing, write_video
from tests.tasks.conftest import GOOD, load
from vibe_model import sections

# not in the package
ELSEWHERE = {"dataset": (), "stream": (), "model": (-3,)}


def page(kind):
    return document(f"adding-a-{kind}.md")


def in_a_line(text):
    """Without the line breaks, which differ with the indentation: `f(\n    a,\n)` is `f(a)`."""
    joined = " ".join(text.split())
    return re.sub(r",? ([)}\]])", r"\1", re.sub(r"([({\[]) ", r"\1", joined))


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_every_piece_of_code_on_a_page_is_in_its_package(kind):
    for suffix, language in ((".py", "python not run"), (".toml", "toml")):
        package = " ".join(
            in_a_line(file.read_text()) for file in (DOCS / f"adding-a-{kind}").rglob(f"*{suffix}")
        )
        shown = blocks(language, page(kind))
        assert shown
        skipped = {len(shown) + number for number in ELSEWHERE[kind]} if suffix == ".py" else set()
        for block in (block for number, block in enumerate(shown) if number not in skipped):
            for part in block.split("\n\n\n"):
                assert in_a_line(part) in package, part


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_package_imports_only_the_api_modules_and_the_contracts(kind):
    allowed = re.compile(r"(pipeline|vibe_model)\.(api|testing(\.\w+)?)")
    for file in (DOCS / f"adding-a-{kind}").rglob("*.py"):
        modules = re.findall(
            r"^\s*(?:from|import) ((?:cache|pipeline|vibe_\w+|tasks)\b[\w.]*)",
            file.read_text(),
            re.M,
        )
        demo = file.name == "lab_recordings_example.py"  # renders raw files with the extension demo
        inside = [
            name for name in modules if not (demo and name.startswith("pipeline.extras.demo"))
        ]
        assert [name for name in inside if not allowed.fullmatch(name)] == [], file


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dataset", "stream"])
def test_a_packages_own_tests_pass_where_it_is_installed(kind, tmp_path):
    install_page(tmp_path, kind)
    tests = (DOCS / f"adding-a-{kind}").glob("test_*.py")
    options = ("-q", "-p", "no:cacheprovider", "--rootdir", tmp_path)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    words = [sys.executable, "-m", "pytest", *options, *tests]
    ran = run(words, tmp_path, PYTHONPATH=path)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize(
    ("kind", "block", "expected"),
    [
        ("dataset", 0, "min_score=0.4"),
        ("dataset", 1, "lab_recordings/train"),
        ("stream", 0, "weights='untrained')"),
    ],
)
def test_luigi_cfg_names_it_as_the_page_does(kind, block, expected, tmp_path, site):
    install_page(site, kind)
    loaded = load(tmp_path, merged(GOOD, blocks("ini", page(kind))[block]))
    trained = sections.ModelSections(loaded).model(sections.VIBE)
    if block == 1:  # which says that it trains
        sections.ModelSections(loaded).check_inputs(trained, sections.VIBE)
    extracted = (spec.stream for spec in loaded.streams)
    used = [*map(loaded.dataset, loaded.data.datasets), *extracted, *trained.datasets_2d]
    assert expected in " ".join(map(repr, used))


def test_the_mark_of_demo_data_on_the_page_is_one(tmp_path):
    (mark,) = re.findall(r'^    (\{"stand_in".*\})$', page("dataset"), re.MULTILINE)
    (tmp_path / raw.MARKER).write_text(mark)
    assert raw.is_demo_data(tmp_path)


def test_the_detector_of_the_page_finds_a_drawn_person_and_nobody_elsewhere(tmp_path, site):
    install_page(site, "detector")
    image = np.full((320, 240, 3), 200, np.uint8)
    for start, end, width in (
        ((120, 70), (120, 70), 36),  # head, body, arms, legs
        ((120, 110), (120, 170), 60),
        ((92, 110), (84, 180), 16),
        ((148, 110), (156, 180), 16),
        ((108, 170), (104, 270), 24),
        ((132, 170), (136, 270), 24),
    ):
        cv2.line(image, start, end, (40, 40, 40), width)
    detect = detectors.get("dark_people", wall=100).load("cpu")
    people, nobody = detect([image, np.zeros_like(image)])
    ((left, top, right, bottom),) = people.boxes
    assert 70 < left < 84 and 45 < top < 60 and 156 < right < 170 and 270 < bottom < 290
    assert 0.3 < people.scores[0] < 1
    assert people.keypoints.shape == (1, 0, 3) and len(nobody.boxes) == 0


def test_what_a_detector_of_another_environment_writes_is_read(tmp_path, monkeypatch):
    write_video(tmp_path / "clips/dance.mp4", 45, step=1)
    (tmp_path / "clips/keypoints").mkdir()
    monkeypatch.chdir(tmp_path)

    places = itertools.count(80, 0.25)

    def find(image):
        assert image.shape == (120, 160, 3)
        joints = standing("coco", next(places), 60)
        return [(joints[:, :2], joints[:, 2])]

    (code,) = blocks("python not run", page("detector"))
    exec(code, {"find": find})
    (track,), account = read_one(datasets.get("videos"), tmp_path / "clips")
    assert (len(track.frame_index), account["notes"]) == (45, [])
    assert np.isin(np.float32(0.9), track.kp_2d[..., 2])
