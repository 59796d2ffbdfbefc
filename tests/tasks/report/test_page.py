"""The page: one file without a script, whatever names are in the data and whatever the cache
lacks.
"""

import html
import re
import shutil

import numpy as np

from tasks.report.assembly import ReportContent
from tasks.report.data import OpenedCache
from tests.html_pages import Page
from tests.tasks.report.conftest import moving, person, write_split, write_stream


def of_cache(root, folder):
    """The page of a cache, with its structure checked."""
    ReportContent(root, None, None, "resnet50").write(folder / "report.html")
    text = (folder / "report.html").read_text(encoding="utf-8")
    Page(text)
    return text


def test_the_page_has_no_script_folds_what_has_a_line_and_is_marked(root, tmp_path):
    text = of_cache(root, tmp_path)
    assert re.findall(r'<details class="fold"( open)?>', text) == ["", "", "", " open"]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html.unescape(text)
    assert "<script" not in text
    assert "(demo data)</title>" in text
    assert "DEMO DATA" in text

    real = tmp_path / "real"
    write_split(real, "penn_action/train", {"a/0": person(8)}, stand_in=False)
    assert "DEMO DATA" not in of_cache(real, tmp_path)
    write_stream(real, "penn_action/train", np.ones((8, 4)))
    assert "RANDOM WEIGHTS" in of_cache(real, tmp_path)


def test_motion_alone_a_missing_stream_and_an_empty_split_are_no_faults(tmp_path):
    for name, split, tracks in (
        ("motion", "amass/train", {"a/0": moving(5, 8)}),
        ("empty", "penn_action/train", {}),
    ):
        write_split(tmp_path / name, split, tracks)
        assert 'class="problem"' not in of_cache(tmp_path / name, tmp_path)


def test_a_split_that_cannot_be_read_is_reported_once_and_the_others_are_shown(root, tmp_path):
    broken = tmp_path / "cache"
    shutil.copytree(root, broken)
    (broken / "amass/train/manifest.json").write_text("{ not JSON")
    text = of_cache(broken, tmp_path)
    assert len(re.findall(r'<p class="problem">amass/train: ', text)) == 1
    assert "penn_action/train</th>" in text
    (problem,) = OpenedCache.read(tmp_path / "nothing").problems
    assert "Convert a dataset into it first" in problem
