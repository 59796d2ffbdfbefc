"""The page's first part, and what each split is used for, of a cache and runs whose numbers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from report.data.splits import Opened, open_splits
from report.data.stream_health import stream_section
from report.page import write_page
from report.summary import summary_section
from report.training.curves import used_for
from report.training.run import read_run
from tests.report.conftest import kept, person, write_split, write_stream
from tests.report.runs_by_hand import make_run


def summary(root: Path, *runs: Any, stream: str | None = None) -> Any:
    return summary_section(open_splits(root), runs, stream=stream).data["facts"]


def test_it_shows_what_there_is_what_is_wrong_and_what_came_out(root: Path, tmp_path: Path) -> None:
    opened = open_splits(root)
    verdicts = stream_section(opened, "resnet50").data["verdicts"]
    run = read_run(make_run(tmp_path, stand_in=True), "VIBE")
    section = summary_section(opened, [run], stream="resnet50", verdicts=verdicts)
    facts = section.data["facts"]
    assert facts["Data"].startswith("The data of all splits are made by this project")
    assert "the network of the features resnet50 is untrained" in facts["Data"]
    assert facts["In the cache"].startswith("2 splits of 2 datasets: 3 tracks, 52 rows")
    assert facts["Left out"].startswith("26 of 78 person-frames: 5 by design, 21 because of errors; 7 videos")
    assert "no row of them missing, to look at: penn_action" in facts["Features"]
    assert "penn_action: 3 rows with ok = 0" in facts["Problems"]
    assert facts["Training"] == "VIBE: finished, best epoch 2"
    assert facts["Result"].startswith("PA-MPJPE on 3dpw/test: VIBE 51.2 mm, mean body 102.5 mm.")
    assert "not a scientific result" in facts["Result"]
    assert [what for what, _ in section.data["todo"]][-1].startswith("For real data: docs/")
    write_page(tmp_path / "p.html", [], title="T", stand_in=True, facts={}, summary=section)
    html = (tmp_path / "p.html").read_text()
    places = [html.index(text) for text in ("DEMO DATA.", "made by this project", 'id="in-short"', "<nav")]
    assert places == sorted(places)
    assert html.count("made by this project") == 1


def test_real_data_and_an_untrained_network_are_named_as_what_they_are(tmp_path: Path) -> None:
    write_split(tmp_path, "a/train", {"0/0": person(10)}, accounts=kept(1), stand_in=False)
    facts = summary(tmp_path)
    assert facts["Data"].startswith("Real")
    assert (facts["Problems"], facts["Training"]) == ("none found", "no run to show")
    write_stream(tmp_path, "a/train", np.ones((10, 4)))
    assert summary(tmp_path, stream="resnet50")["Data"] == "The network of the features resnet50 is untrained."


def test_without_a_cache_it_shows_how_to_fill_one(tmp_path: Path) -> None:
    data = summary_section(Opened(tmp_path, problems=["no cache"]), [], stream=None).data
    assert data["facts"]["Problems"] == "no cache"
    assert data["todo"] == [("Fill the cache:", "luigi --module tasks Data")]


def test_every_split_is_listed_with_its_use(tmp_path: Path) -> None:
    windows = {"datasets_2d": {"insta_variety/train": 61}, "motion": {"amass/train": 1}}
    folder = make_run(tmp_path, windows=windows)
    header, rows = used_for([read_run(folder, "VIBE")], ["penn_action/train", "insta_variety/train"])
    uses = dict(rows)
    assert header == ("split", "VIBE")
    assert uses["penn_action/train"] == "nothing"
    assert uses["insta_variety/train"] == "training, 2D (61 windows)"
    assert uses["amass/train"] == "motion for the discriminator (1 window)"
    assert uses["3dpw/validation"] == "validation"
