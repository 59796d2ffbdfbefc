"""The page's first lines, and what each split is used for, of a cache and runs whose numbers are known."""

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
from vibe_model import models


def summary(root: Path, *runs: Any, stream: str | None = None) -> Any:
    return summary_section(open_splits(root), runs, stream=stream).data


def test_it_shows_what_is_wrong_and_in_one_line_what_there_is(root: Path, tmp_path: Path) -> None:
    opened = open_splits(root)
    verdicts = stream_section(opened, "resnet50").data["verdicts"]
    run = read_run(make_run(tmp_path, stand_in=True), "VIBE")
    section = summary_section(opened, [run], stream="resnet50", verdicts=verdicts)
    data = section.data
    assert data["demo_parts"].startswith("The data of all splits are made by this project")
    assert "the network of the features resnet50 is untrained" in data["demo_parts"]
    assert data["line"].startswith("2 splits of 2 datasets; 52 rows")
    assert "features resnet50 without a missing row; VIBE: finished, best epoch 2." in data["line"]
    assert data["problems"] == [
        "7 videos rejected (Left out)",
        "21 person-frames left out because of errors (Left out)",
        "penn_action: 3 rows with ok = 0 (Health of the feature stream)",
    ]
    assert [what for what, _ in data["todo"]][-1].startswith("For real data: docs/getting-started.md")
    write_page(tmp_path / "p.html", [], title="T", stand_in=True, facts={}, summary=section)
    html = (tmp_path / "p.html").read_text()
    places = [html.index(text) for text in ("DEMO DATA.", "made by this project", "7 videos rejected", "<main")]
    assert places == sorted(places)
    assert html.count("made by this project") == 1


def test_where_all_is_right_there_is_one_line(tmp_path: Path) -> None:
    write_split(tmp_path, "a/train", {"0/0": person(10)}, accounts=kept(1), stand_in=False)
    data = summary(tmp_path)
    assert data["demo_parts"].startswith("Real")
    assert data["problems"] == []
    assert data["line"].startswith("✓ 1 split of 1 dataset; 10 rows")
    assert data["line"].endswith("no training run to show.")
    write_stream(tmp_path, "a/train", np.ones((10, 4)))
    assert summary(tmp_path, stream="resnet50")["demo_parts"] == "The network of the features resnet50 is untrained."


def test_without_a_cache_it_shows_how_to_fill_one(tmp_path: Path) -> None:
    data = summary_section(Opened(tmp_path, problems=["no cache"]), [], stream=None).data
    assert data["problems"] == ["no cache"]
    assert data["todo"] == [("Fill the cache:", "luigi --module tasks Data")]


def test_every_split_is_listed_with_its_use(tmp_path: Path) -> None:
    one, other = read_run(make_run(tmp_path), "VIBE"), read_run(make_run(tmp_path, "other"), "other")
    uses = used_for([one, other])
    assert "penn_action/train" not in uses
    assert uses["insta_variety/train"] == "training, 2D"
    assert uses["amass/train"] == "real motion"
    hmmr = models.find("hmmr").presets["embedded"]().as_dict()
    third = read_run(make_run(tmp_path, "third", config=hmmr, of_model="hmmr"), "HMMR")
    assert used_for([one, third])["kinetics/train"] == "training, 2D (HMMR)"
