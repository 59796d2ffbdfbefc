"""What a person reads on the page, section by section: tests/golden/report.txt."""

import itertools
import json
import re

from pipeline.__main__ import main
from tasks.report.assembly import ReportContent
from tests.html_pages import Page
from tests.tasks.report.runs_by_hand import ERRORS, ITERATIONS, SPLIT, make_run, metrics
from vibe_model.vibe.config import TrainConfig

TEXTS = ("h1", "h2", "h3", "h4", "p", "li", "caption", "tr", "summary", "figcaption", "dt", "dd")
DRAWN = {"card", "legend", "draw"}  # frames, which are pictures


def lines(page):
    """Headings, sentences and rows of tables, but for what says when, where and with which software
    it was made.
    """
    for element in page.root.all(*TEXTS):
        if element.tag == "summary" and element.all("h2", "h3", "h4"):
            continue
        cells = [cell.text for cell in element.all("th", "td")]
        text = " | ".join(cells) if element.tag == "tr" else element.text
        if text and not any(inside(element, name) for name in DRAWN):
            yield (
                f"{'#' * int(element.tag[1])} {text}"
                if re.fullmatch("h[1-6]", element.tag)
                else text
            )


def inside(element, name):
    return element is not None and (name in element.classes or inside(element.parent, name))


def test_the_page_of_runs_on_demo_data_finished_or_not(root, tmp_path, golden):
    names = ("VIBE", "per frame", "begun")
    flat = TrainConfig(iterations=ITERATIONS, datasets_3d=(), prior="none").as_dict()
    folders = [make_run(tmp_path, name, stand_in=True, config=flat) for name in names]
    smoothed = metrics(stand_in=True, pa_mpjpe=55.0)
    smoothed[SPLIT]["smoothed"] = {**ERRORS, "pa_mpjpe": 54.0, "sigma": 2.0}
    smoothed[SPLIT]["hmmr"] = smoothed[SPLIT]["published"] | {"label_body": "female, male"}
    smoothed[SPLIT]["left_out"] = {"emdb": "it has no pose"}
    (folders[1] / "metrics.json").write_text(json.dumps(smoothed))
    for name in ("metrics", "sequences"):
        (folders[2] / f"{name}.json").unlink()
    (tmp_path / "empty").mkdir()
    names = (*names, "empty", "absent")
    shown = tuple((name, tmp_path / name) for name in names)
    out = tmp_path / "page.html"
    ReportContent(root, None, None, "resnet50", shown).write(out)
    with golden("report", main, {root.parent: "DATA"}) as show:
        # then date and versions
        show.add("\n".join(itertools.takewhile("Made".__ne__, lines(Page(out.read_text())))))
