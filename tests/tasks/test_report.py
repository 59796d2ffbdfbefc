"""`luigi --module tasks Report` and `python -m tasks report`: one page, of everything or of what there is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.__main__ import main
from tasks.report import PAGE, recorded

PROBE = """
import sys
from luigi.cmdline import luigi_run
try:
    luigi_run(sys.argv[1:])
finally:
    print("imported:", *sorted({"torch", "torchvision"} & sys.modules.keys()))
"""


@pytest.fixture
def report(within: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`python -m tasks report WORDS` in a project: its exit code and what it printed."""

    def run(project: Any, *words: str) -> tuple[int, str]:
        within(project)
        capsys.readouterr()
        code = main(["report", *words])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return run


def page(project: Any) -> Path:
    return project.folder / "runs" / PAGE


def run_of(project: Any) -> Path:
    (folder,) = (path.parent for path in (project.folder / "runs").glob("*/metrics.json"))
    return folder


def test_the_task_writes_one_page_about_everything_and_says_where_it_is(project, build) -> None:
    ran = build(project, "Report")
    assert ran.code == 0, ran.shown
    assert ran.done == ["report page"]
    assert ran.shown.splitlines()[-1].startswith("report ")
    assert str(page(project).relative_to(project.folder)) in ran.shown.splitlines()[-1]
    assert "STAND-IN" in ran.shown
    html = page(project).read_text()
    assert "(stand-in)</title>" in html
    for section in ("accounting", "curves", "results", "bodies", "provenance"):
        assert f'<h2 id="{section}">' in html
    metrics = json.loads((run_of(project) / "metrics.json").read_text())
    assert f'<td class="number">{metrics["3dpw/test"]["pa_mpjpe"]:.1f}</td>' in html


@pytest.mark.slow
def test_the_page_is_written_anew_when_what_it_shows_has_changed_and_only_then(project, build) -> None:
    assert build(project, "Report").done == ["report page"]
    first = page(project).stat().st_mtime_ns
    again = build(project, "Report")
    assert again.done == []
    assert "up to date, nothing to do" in again.shown
    assert page(project).stat().st_mtime_ns == first

    sequences = run_of(project) / "sequences.json"
    content = json.loads(sequences.read_text())
    content["sequences"][0]["pa_mpjpe"] = 777.25
    sequences.write_text(json.dumps(content))
    assert build(project, "Report").done == ["report page"]
    assert "777.2" in page(project).read_text()

    page(project).write_text("<html>not ours</html>")
    assert build(project, "Report").done == ["report page"]
    assert recorded(page(project)) != ""


def test_a_finished_report_is_found_without_torch(project, build) -> None:
    assert build(project, "Report").code == 0
    ran = project.luigi("Report", command=(sys.executable, "-c", PROBE))
    assert ran.code == 0, ran.shown
    assert ran.done == []
    assert ran.shown.splitlines()[-1] == "imported:"


def test_the_command_writes_the_page_and_changes_nothing_else(project, report, tmp_path) -> None:
    before = project.files()
    out = tmp_path / "mine.html"
    code, shown = report(project, "--out", str(out))
    assert code == 0, shown
    assert str(out) in shown
    assert recorded(out) != ""
    assert project.files() == before


def test_without_training_the_page_is_about_the_data_alone(project, report) -> None:
    code, shown = report(project, "--no-training")
    assert code == 0, shown
    html = page(project).read_text()
    assert '<h2 id="accounting">' in html
    assert '<h2 id="curves">' not in html


def test_where_nothing_has_been_made_the_page_says_so(bare, report) -> None:
    code, shown = report(bare)
    assert code == 0, shown
    html = page(bare).read_text()
    assert "expected a feature cache" in html
    assert "There is no training run to show." in html


@pytest.mark.slow
def test_a_run_of_other_settings_is_named_and_can_be_asked_for(project, report) -> None:
    folder = run_of(project)
    project.configure({"train": {"epochs": "7"}})
    code, _ = report(project)
    assert code == 0
    html = page(project).read_text()
    assert f"1 run with other settings not shown here: {folder.name}." in html
    assert f"{folder.name}. --run may be repeated." in html
    assert "There is no training run to show." in html
    code, _ = report(project, "--run", str(folder))
    assert code == 0
    assert f"<h3>{folder.name}</h3>" in page(project).read_text()


@pytest.mark.slow
def test_a_run_without_results_or_with_damaged_ones_is_told_and_the_rest_is_there(project, report) -> None:
    metrics = run_of(project) / "metrics.json"
    folder = metrics.parent
    metrics.write_text("{")
    assert report(project)[0] == 0
    html = page(project).read_text()
    assert f"{metrics}: expected JSON" in html
    assert '<h2 id="accounting">' in html
    metrics.unlink()
    assert report(project)[0] == 0
    html = page(project).read_text()
    assert "not finished: step 6 of 6, no results yet" in html
    assert "VIBE: Loss" in html
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--run", "nowhere"), "--run nowhere: there is no such folder"),
        (("--run", ".", "--no-training"), "exclude each other"),
        (("--out", "no/such/folder/page.html"), "there is no folder"),
    ],
)
def test_a_mistake_in_the_words_is_told_and_nothing_is_written(bare, report, words, said) -> None:
    code, shown = report(bare, *words)
    assert code == 2
    assert said in shown
    assert not page(bare).exists()
