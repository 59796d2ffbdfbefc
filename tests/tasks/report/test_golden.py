"""What a person reads on the page, section by section: tests/golden/report.txt."""

import itertools
import json
import re

from pipeline.__main__ import main
from tasks.report.assembly import ReportContent, write_report
from tests.html_pages import Page
from tests.tasks.report.runs_by_hand import ERRORS, SPLIT, make_run, metrics

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
    folders = [
        make_run(tmp_path, name, stand_in=True)
        for name in ("vibe-1", "per-frame-2", "begun-3", "other-4")
    ]
    smoothed = metrics(stand_in=True, pa_mpjpe=55.0)
    smoothed[SPLIT]["smoothed"] = {**ERRORS, "pa_mpjpe": 54.0, "sigma": 2.0}
    by_model = {
        "from a still": {"-5": 71.5, "0": 61.5, "5": 81.5},
        "constant": {"-5": 75.0, "0": 61.5, "5": 85.0},
    }
    dynamics = {"frames": 90, "tracks": 3, "pa_mpjpe": by_model}
    smoothed[SPLIT]["hmmr"] = smoothed[SPLIT]["published"] | {"dynamics": dynamics}
    (folders[1] / "metrics.json").write_text(json.dumps(smoothed))
    for name in ("metrics", "sequences"):
        (folders[2] / f"{name}.json").unlink()
    (tmp_path / "empty").mkdir()
    folders[3:3] = [tmp_path / "empty", tmp_path / "absent"]
    shown = tuple(zip(("VIBE", "per frame", "begun", "empty", "absent"), folders, strict=False))
    write_report(
        ReportContent(root, None, None, "resnet50", tmp_path, shown), out := tmp_path / "page.html"
    )
    with golden("report", main, {root.parent: "DATA"}) as show:
        # then date and versions
        show.add("\n".join(itertools.takewhile("Made".__ne__, lines(Page(out.read_text())))))
