"""The page: one file without a script, whatever names are in the data and whatever the cache
lacks.
"""

import re
import shutil
from dataclasses import replace

import pytest

from tasks.report.assembly import ReportContent, write_report
from tasks.report.data import open_splits
from tasks.report.page import PageSection, write_page
from tests.html_pages import Page
from tests.tasks.report.conftest import moving, write_split


def of_problems(anchor, title, *texts):
    """A real section of the report that shows no more than these problems."""
    data = {"problems": texts, "rows": [], "gone": [], "shared": ""}
    return PageSection(anchor, title, "overview.html", data)


def page(folder, *sections, mark=""):
    out = folder / "report.html"
    write_page(out, sections, title="A cache", mark=mark, facts={"Cache": "demo/cache"})
    return out.read_text(encoding="utf-8")


def of_cache(root, folder):
    """The page of a cache, with its structure checked."""
    write_report(
        ReportContent(root, None, None, "resnet50", folder, training=False), folder / "report.html"
    )
    text = (folder / "report.html").read_text(encoding="utf-8")
    Page(text)
    return text


@pytest.mark.parametrize("mark", ["demo data", "untrained network", ""])
def test_sections_come_in_their_order_and_those_with_a_line_are_folded(tmp_path, mark):
    first, second = of_problems("first", "The first"), of_problems("second", "The second")
    folded = [
        replace(second, line="all is right"),
        replace(second, anchor="third", line="look", unfolded=True),
    ]
    text = page(tmp_path, first, *folded, mark=mark)
    assert re.findall(r'<h2 id="([^"]+)">', text) == ["first", "second", "third"]
    assert re.findall(r'<details class="fold"( open)?>', text) == ["", " open"]
    assert '<span class="line">all is right</span>' in text
    assert "<dt>Cache</dt><dd>demo/cache</dd>" in text
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert "<script" not in text
    assert ("DEMO DATA" in text) == ("A cache (demo data)</title>" in text) == (mark == "demo data")
    assert ("UNTRAINED NETWORK" in text) == (mark == "untrained network")
    with pytest.raises(ValueError, match="same anchor"):
        page(tmp_path, first, first)


def test_motion_alone_a_missing_stream_and_an_empty_split_are_no_faults(tmp_path):
    write_split(tmp_path / "motion", "amass/train", {"a/0": moving(5, 8)})
    text = of_cache(tmp_path / "motion", tmp_path)
    assert 'class="problem"' not in text
    write_split(tmp_path / "empty", "penn_action/train", {})
    assert 'class="problem"' not in of_cache(tmp_path / "empty", tmp_path)


def test_a_split_that_cannot_be_read_is_reported_once_and_the_others_are_shown(root, tmp_path):
    broken = tmp_path / "cache"
    shutil.copytree(root, broken)
    (broken / "amass/train/manifest.json").write_text("{ not JSON")
    text = of_cache(broken, tmp_path)
    assert len(re.findall(r'<p class="problem">amass/train: ', text)) == 1
    assert "penn_action/train</th>" in text
    (problem,) = open_splits(tmp_path / "nothing").problems
    assert "Convert a dataset into it first" in problem
