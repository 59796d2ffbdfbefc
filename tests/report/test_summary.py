"""What a hurried reader is told, of a cache and runs whose numbers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.accounting import VideoAccount
from report.data.opened import Opened, open_splits
from report.data.stream_health import stream_section
from report.page import write_page
from report.summary import summary_section
from report.training.run_folder import read_run
from report.training.used_for import used_for
from tests.report.runs_by_hand import make_run


def test_it_says_what_is_there_what_is_wrong_and_what_came_out(root: Path, tmp_path: Path) -> None:
    opened = open_splits(root)
    verdicts = stream_section(opened, "resnet50").data["verdicts"]
    run = read_run(make_run(tmp_path, stand_in=True), "VIBE")
    data = summary_section(opened, [run], stream="resnet50", verdicts=verdicts).data
    facts = data["facts"]
    assert facts["Data"].startswith("The data of all splits are made by this project")
    assert "the network of the features resnet50 is untrained" in facts["Data"]
    assert facts["In the cache"].startswith("2 splits of 2 datasets: 3 tracks, 52 rows")
    assert facts["Left out"].startswith("26 of 78 person-frames: 5 by design, 21 since something is wrong; 7 videos")
    assert "no row of them lacking, to look at: penn_action" in facts["Features"]
    assert "penn_action: 3 rows with ok = 0" in facts["Problems"]
    assert facts["Training"] == "VIBE: finished, best epoch 2"
    assert facts["Result"].startswith("PA-MPJPE on 3dpw/test: VIBE 51.2 mm, mean body 102.5 mm.")
    assert "not a scientific result" in facts["Result"]
    assert [what for what, _ in data["todo"]][-1].startswith("For real data: README")


def test_real_data_of_a_trained_network_is_called_real(tmp_path: Path, make: Any) -> None:
    make.write_split(tmp_path, "a/train", {"0/0": make.person(10)}, accounts=[VideoAccount("0")], stand_in=False)
    facts = summary_section(open_splits(tmp_path), [], stream=None).data["facts"]
    assert facts["Data"].startswith("Real")
    assert facts["Problems"] == "none found"
    assert facts["Training"] == "no run to show"


def test_an_untrained_network_on_real_data_is_the_only_stand_in(tmp_path: Path, make: Any) -> None:
    make.write_split(tmp_path, "a/train", {"0/0": make.person(10)}, stand_in=False)
    make.write_stream(tmp_path, "a/train", np.ones((10, 4)))
    facts = summary_section(open_splits(tmp_path), [], stream="resnet50").data["facts"]
    assert facts["Data"] == "The network of the features resnet50 is untrained."


def test_without_a_cache_it_says_how_to_fill_one(tmp_path: Path) -> None:
    data = summary_section(Opened(tmp_path, problems=["no cache"]), [], stream=None).data
    assert data["facts"]["Problems"] == "no cache"
    assert data["todo"] == [("Fill the cache:", "luigi --module tasks Data")]


def test_it_comes_before_the_table_of_contents_and_the_stand_ins_first(root: Path, tmp_path: Path) -> None:
    first = summary_section(open_splits(root), [], stream=None)
    write_page(tmp_path / "p.html", [], title="T", stand_in=True, facts={}, summary=first)
    html = (tmp_path / "p.html").read_text()
    places = [html.index(text) for text in ("STAND-IN.", "made by this project", 'id="in-short"', "<nav")]
    assert places == sorted(places)
    assert html.count("made by this project") == 1


def test_every_split_says_what_it_is_used_for(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    about = json.loads((folder / "config.json").read_text())
    windows = {"datasets_2d": {"insta_variety/train": 61}, "motion": {"amass/train": 1}}
    (folder / "config.json").write_text(json.dumps({**about, "windows": windows}))
    header, rows = used_for([read_run(folder, "VIBE")], ["penn_action/train", "insta_variety/train"])
    told = dict(rows)
    assert header == ("split", "VIBE")
    assert told["penn_action/train"] == "nothing"
    assert told["insta_variety/train"] == "training, 2D (61 windows)"
    assert told["amass/train"] == "motion for the discriminator (1 window)"
    assert told["3dpw/validation"] == "validation"
