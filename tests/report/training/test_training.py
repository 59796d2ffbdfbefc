"""Training and evaluation on the page, of runs whose numbers were written by hand."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cache
from report.page import write_page
from report.provenance import fingerprint, nearest_preset
from report.training import curves, events
from report.training.bodies import bodies_section
from report.training.curves import plots_of
from report.training.results import tables_of
from report.training.run_folder import Run, read_run
from report.training.sections import training_sections
from tests.report.runs_by_hand import ERRORS, SPLIT, WINDOW, log, make_run, metrics, png, validation
from vibe_model import runs
from vibe_model.settings.config import TrainConfig

ROOT = Path(__file__).parents[3]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """`make_run` in the test's own folder."""
    return partial(make_run, tmp_path)


def page(root: cache.Root, shown: list[Run], tmp_path: Path, **more: Any) -> str:
    """The page's text."""
    out = tmp_path / "page.html"
    write_page(out, training_sections(root, shown, **more), title="Report", stand_in=False, facts={})
    return out.read_text()


def words(html: str) -> str:
    """What a person reads of it."""
    return " ".join(unescape(re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]+>", " ", html, flags=re.DOTALL)).split())


def test_curves_are_what_was_logged_and_a_resumed_run_replaces_what_it_does_again(tmp_path: Path) -> None:
    log(tmp_path, {step: {"train/total": 100.0 + step} for step in (1, 2, 3, 4)})
    log(tmp_path, {step: {"train/total": float(step)} for step in (3, 5)}, start=3)
    found = events.read_events(tmp_path)
    curve = found.curves["train/total"]
    assert (curve.steps, curve.values) == ([1, 2, 3, 5], [101, 102, 3, 5])
    assert found.problems == []


def test_of_the_pictures_only_those_of_the_best_and_of_the_last_epoch_are_kept(make: Callable[..., Path]) -> None:
    found = read_run(make()).events
    assert found.best_step() == 20
    assert {step: of[WINDOW] for step, of in found.pictures.items()} == {20: png((0, 255, 0)), 30: png((0, 0, 255))}


def test_a_file_that_was_cut_short_counts_as_far_as_it_goes_and_says_so(tmp_path: Path) -> None:
    file = log(tmp_path, {step: {"train/total": float(step)} for step in range(1, 11)})
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    found = events.read_events(tmp_path)
    assert found.curves["train/total"].steps == list(range(1, 10))
    (told,) = found.problems
    assert file.name in told
    assert f"of {len(whole) - 7:,} bytes cannot be read" in told


def test_a_file_that_is_no_event_file_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    log(tmp_path, {1: {"train/total": 5.0}})
    (tmp_path / "events.out.tfevents.0.host.1.0").write_bytes(b"<html>not found</html>" * 10)
    found = events.read_events(tmp_path)
    assert found.curves["train/total"].values == [5.0]
    assert "its last 220 of 220 bytes cannot be read" in found.problems[0]


def test_a_long_curve_is_thinned_evenly_and_says_so(monkeypatch: pytest.MonkeyPatch, make: Callable[..., Path]) -> None:
    monkeypatch.setattr(events, "MAX_POINTS", 16)
    monkeypatch.setattr(curves, "MOST_POINTS", 5)
    run = read_run(make())
    curve = run.events.curves["train/total"]
    assert curve.steps == list(range(1, 31, 2))
    assert curve.values == [float(step) for step in curve.steps]
    plot = next(plot for plot in plots_of(run, 0) if plot.title == "vibe-0123: Loss")
    assert "the mean of 3 logged ones, of which only one in 2 was read" in plot.caption
    assert [row[1] for row in plot.rows] == [3.0, 9.0, 15.0, 21.0, 27.0]


def test_validation_is_shown_by_epoch(make: Callable[..., Path]) -> None:
    plot = next(plot for plot in plots_of(read_run(make()), 0) if "PA-MPJPE" in plot.title)
    assert plot.rows == [("1", 70.0), ("2", 60.0), ("3", 65.0)]


def test_the_table_has_each_run_its_smoothed_self_and_the_mean_body_once(make: Callable[..., Path]) -> None:
    one, other = make("vibe-1"), make("per-frame-2")
    smoothed = metrics(stand_in=False, pa_mpjpe=55.0)
    smoothed[SPLIT]["smoothed"] = {**ERRORS, "pa_mpjpe": 54.0, "sigma": 2.0}
    (other / "metrics.json").write_text(json.dumps(smoothed))
    default, _ = tables_of(SPLIT, [read_run(one, "VIBE"), read_run(other, "per frame")])
    found = [(row.model, row.errors["pa_mpjpe"], row.frames) for row in default.rows]
    assert found == [
        ("VIBE", 51.25, 1234),
        ("per frame", 55.0, 1234),
        ("per frame, smoothed", 54.0, 1234),
        ("mean body", 110.0, 1234),
    ]


def test_published_figures_stand_beside_real_results_and_say_which_of_them_apply(make: Callable[..., Path]) -> None:
    default, by_protocol = tables_of(SPLIT, [read_run(make(), "VIBE")])
    assert [row.model for row in default.rows] == ["VIBE", "mean body"]
    beside = {row.model: (row.errors["pa_mpjpe"], row.about) for row in by_protocol.rows[2:]}
    assert beside["VIBE, paper, with 3DPW train"][0] == 51.9
    applies = {model: "as VIBE here" in about for model, (_, about) in beside.items()}
    assert applies == {
        "VIBE, paper, no 3DPW train": False,
        "VIBE, paper, with 3DPW train": True,
        "VIBE, checkpoint, no 3DPW train": False,
    }


def test_beside_stand_ins_published_figures_are_a_table_of_their_own_that_says_they_do_not_compare(
    root: Path, make: Callable[..., Path], tmp_path: Path
) -> None:
    run = read_run(make(stand_in=True), "VIBE")
    default, by_protocol, of_others = tables_of(SPLIT, [run])
    assert all(row.model in ("VIBE", "mean body") for table in (default, by_protocol) for row in table.rows)
    assert of_others.rows[0].errors["pa_mpjpe"] == 56.5
    shown = words(page(root, [run], tmp_path))
    assert shown.index("Not comparable.") < shown.index("56.5")


def test_the_page_shows_numbers_sequences_and_worst_windows_and_no_name_becomes_markup(
    root: Path, make: Callable[..., Path], tmp_path: Path
) -> None:
    html = page(root, [read_run(make(), "VIBE")], tmp_path)
    shown = words(html)
    assert "VIBE 51.2 82.5 20.0 21.0 80.0 1,234" in shown
    assert "mean body 102.5 165.0 40.0 42.0 160.0 1,234" in shown
    assert shown.index("worse/0 3 to 18 99.9") < shown.index("<b>bad</b>/0 3 to 18 51.2")
    assert "<b>bad" not in html
    assert f"show 3dpw test --cache {root} --track worse/0" in shown


def test_bodies_are_the_logged_pictures_the_best_epoch_first(make: Callable[..., Path]) -> None:
    strips = bodies_section([read_run(make(), "VIBE")]).data["strips"]
    assert [strip.title for strip in strips] == ["VIBE, epoch 2 (best)", "VIBE, epoch 3 (last)"]
    for strip, colour in zip(strips, ((0, 255, 0), (0, 0, 255)), strict=True):
        (picture,) = strip.pictures
        data = np.frombuffer(base64.b64decode(picture.source.partition(",")[2]), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
        assert (image.shape, picture.width, picture.height) == ((32, 96, 3), 96, 32)
        assert np.abs(image.astype(int) - colour).max() < 8


def test_a_picture_that_is_none_is_told_in_its_place(make: Callable[..., Path]) -> None:
    folder = make()
    log(folder, {40: validation(50.0)}, {40: b"no picture"})
    first, *_ = bodies_section([read_run(folder, "VIBE")]).data["strips"]
    assert first.title == "VIBE, epoch 4 (best and last)"
    assert first.pictures == []
    assert WINDOW in first.problems[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "expected JSON"),
        ("[]", "expected an object, found list"),
        (
            '{"3dpw/test": {"pa_mpjpe": 1}}',
            "3dpw/test: expected metrics and a baseline by protocol 'default', found none",
        ),
        ('{"3dpw/test": 5}', "3dpw/test: expected metrics by name, found int"),
        (json.dumps({SPLIT: {**metrics(stand_in=False)[SPLIT], "mpjpe": "x"}}), "mpjpe: expected a number, found 'x'"),
    ],
)
def test_damaged_metrics_are_told_with_what_to_do_and_the_rest_is_shown(
    content: str, said: str, root: Path, make: Callable[..., Path], tmp_path: Path
) -> None:
    good, bad = make("good"), make("bad")
    (bad / "metrics.json").write_text(content)
    shown = words(page(root, [read_run(bad), read_run(good)], tmp_path))
    assert f"{bad / 'metrics.json'}: " in shown
    assert said in shown
    assert "Remove it and run the training command again" in shown
    assert "good 51.2 82.5" in shown
    assert "bad: PA-MPJPE" in shown, "its curves are there"


def test_a_run_that_has_only_begun_says_how_far_it_is(root: Path, make: Callable[..., Path], tmp_path: Path) -> None:
    folder = make()
    (folder / "metrics.json").unlink()
    (folder / "sequences.json").unlink()
    shown = words(page(root, [read_run(folder)], tmp_path))
    assert "not finished: step 30 of 300, no results yet" in shown
    assert "No run has results yet." in shown


def test_a_folder_with_nothing_in_it_makes_a_page_that_says_so(root: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    shown = words(page(root, [read_run(empty), read_run(tmp_path / "none")], tmp_path))
    assert "It has no TensorBoard events, so there are no curves." in shown
    assert "none: there is no such folder" in shown
    assert "empty: its TensorBoard events hold no pictures" in shown


def test_the_settings_are_told_as_differences_from_the_nearest_preset() -> None:
    config = TrainConfig.embedded(epochs=3, runs=Path("elsewhere"))
    assert nearest_preset(config) == ("embedded", [("epochs", "8", "3")])
    assert nearest_preset(TrainConfig.paper()) == ("paper", [])


def test_provenance_names_commits_readers_and_hosts(root: Path, tmp_path: Path) -> None:
    split = cache.open(root)["penn_action/train"]
    shown = words(page(root, [], tmp_path))
    assert split.manifest["digest"][:12] in shown
    assert split.manifest["digest"] in shown, "in full, below"
    assert split.stream_manifest("resnet50")["digest"][:12] in shown
    assert split.provenance["host"] in shown
    assert "penn_action/train resnet50 stand-in" in shown


def test_a_run_on_what_the_cache_no_longer_holds_says_so(root: Path, make: Callable[..., Path], tmp_path: Path) -> None:
    split = cache.open(root)["penn_action/train"]
    folder = make()
    about = json.loads((folder / "config.json").read_text())
    read = {"penn_action/train": runs.content_digest(split.manifest), "amass/train": "0" * 64, "gone/train": "1" * 64}
    (folder / "config.json").write_text(json.dumps({**about, "inputs": {"splits": read, "streams": {}}}))
    shown = words(page(root, [read_run(folder)], tmp_path))
    assert "amass/train: has changed in the cache since the run read it" in shown
    assert "gone/train: is not in this cache, or cannot be read" in shown
    assert "penn_action/train: has changed" not in shown


def test_the_fingerprint_follows_what_is_shown_and_nothing_else(
    root: Path, make: Callable[..., Path], tmp_path: Path
) -> None:
    own, folder = tmp_path / "cache", make()
    shutil.copytree(root, own)
    seen = [fingerprint(own, [folder])]
    (folder / "last.pt").write_bytes(b"not shown")
    assert fingerprint(own, [folder]) == seen[0]
    (folder / "metrics.json").write_text(json.dumps(metrics(stand_in=False, pa_mpjpe=50.0)))
    seen.append(fingerprint(own, [folder]))
    log(folder, {31: {"train/total": 1.0}})
    seen.append(fingerprint(own, [folder]))
    seen += [fingerprint(own, []), fingerprint(own, [folder], ["another title"])]
    shutil.rmtree(own / "amass")
    seen.append(fingerprint(own, [folder]))
    shutil.rmtree(own)
    seen.append(fingerprint(own, [folder]))
    assert len(set(seen)) == len(seen)


def test_a_missing_cache_is_told_and_the_runs_are_shown(make: Callable[..., Path], tmp_path: Path) -> None:
    shown = words(page(tmp_path / "no-cache", [read_run(make(), "VIBE")], tmp_path))
    assert "no-cache" in shown
    assert "expected a feature cache" in shown
    assert "VIBE 51.2 82.5" in shown


def test_a_page_is_made_without_torch(root: Path, make: Callable[..., Path], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from report.page import write_page\n"
        "from report.training.run_folder import read_run; from report.training.sections import training_sections\n"
        f"shown = training_sections({str(root)!r}, [read_run(Path({str(make())!r}))])\n"
        f"write_page(Path({str(tmp_path / 'page.html')!r}), shown, title='', stand_in=True, facts={{}})\n"
        "sys.exit('torch' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    assert (tmp_path / "page.html").is_file()
