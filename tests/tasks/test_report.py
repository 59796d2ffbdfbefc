"""`luigi --module tasks Report` and `python -m tasks report`: one page, of everything or of what
there is.
"""

from pathlib import Path

import pytest

import cache
from tasks.report.task import PAGE
from tests.results import read_file


def page(project):
    return project.folder / "runs" / PAGE


def run_of(project):
    (folder,) = (path.parent for path in (project.folder / "runs").glob("*/metrics.json"))
    return folder


def test_the_tasks_page_shows_data_training_and_results(made):
    html = page(made.project).read_text()
    assert "(demo data)</title>" in html
    for section in ("accounting", "curves", "results", "bodies"):
        assert f'<h2 id="{section}">' in html
    metrics = read_file(run_of(made.project) / "metrics.json")
    assert f'<td class="number">{metrics["3dpw/test"]["pa_mpjpe"]:.1f}</td>' in html


@pytest.mark.promise("power cut")
def test_no_file_of_a_whole_run_gets_its_name_before_it_is_synced(made):
    """Nor a checkpoint before the points of its curves."""
    assert {PAGE, "last.pt", "metrics.json", "manifest.json"} <= {*made.renames.names}
    assert made.renames.unsynced == []


def test_a_page_that_was_cut_off_or_emptied_is_written_again(project, build):
    whole = page(project).read_bytes()
    for cut in (whole[:-200], b""):
        page(project).write_bytes(cut)
        assert build(project, "Report").code == 0
        assert page(project).read_bytes().rstrip().endswith(b"</html>")


def test_a_page_that_no_report_wrote_is_not_replaced(project, build, tasks_command):
    page(project).write_text("<p>my notes</p>")
    assert build(project, "Report").code == 30
    code, shown = tasks_command(project, "report")
    assert (code, "found something else, which is not replaced" in shown) == (2, True), shown
    assert page(project).read_text() == "<p>my notes</p>"
    for words in (("report", "--overwrite"), ("report",)):
        assert tasks_command(project, *words)[0] == 0
    assert '<meta name="generator" content="vibe-pipeline report">' in page(project).read_text()


def test_a_report_is_replaced_and_none_is_written_into_a_raw_folder_of_images(
    project, tasks_command, tmp_path
):
    out = tmp_path / "mine.html"
    words = ("report", "--out", str(out))
    before = project.files()
    for _ in range(2):
        code, shown = tasks_command(project, *words)
        assert (code, str(out) in shown) == (0, True), shown
    assert project.files() == before
    assert '<code id="report-fingerprint">' in out.read_text()
    out.write_text(out.read_text().replace('<meta name="generator"', '<meta name="other"'))
    assert tasks_command(project, *words)[0] == 2
    split = cache.open(project.folder / "cache")["3dpw/train"]
    raw = Path(split.provenance["raw"])
    for place in (raw / "page.html", project.folder / "cache/page.html"):
        before = place.exists()
        code, shown = tasks_command(project, "report", "--out", str(place))
        assert (code, "Datasets do not read pages" in shown, place.exists()) == (
            (0, True, True) if place.parent == raw else (2, False, before)
        ), shown


def test_the_page_of_another_cache_has_its_data_and_no_run(project, tasks_command):
    (project.folder / "cache").rename(project.folder / "mine")
    assert tasks_command(project, "report", "--cache", str(project.folder / "mine"))[0] == 0
    html = page(project).read_text()
    assert "3dpw/train</th>" in html
    assert "no run has begun" in html
    code, shown = tasks_command(project, "report", "--cache", str(project.folder / "none"))
    assert (code, str(project.folder / "none") in shown) == (2, True)
    folder = run_of(project)
    words = ("--cache", str(project.folder / "mine"), "--run")
    tasks_command(project, "report", *words, str(folder))
    assert f"<h3>{folder.name}</h3>" in page(project).read_text()
    assert tasks_command(project, "report", *words, "nowhere")[0] == 2
