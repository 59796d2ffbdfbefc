"""Embedded data on the disk: deterministic, whole or absent, and never over somebody else's files."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline import datasets, synthetic
from pipeline.accounting import Accounting
from pipeline.errors import ConfigError, PipelineError
from pipeline.raw.stand_in import is_stand_in
from pipeline.synthetic.layouts import writing
from pipeline.synthetic.layouts.layout import Request

NAMES = ["penn_action", "kinetics", "3dpw", "amass"]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def small(name: str, folder: Path, **options) -> list:
    return synthetic.write_dataset(name, folder, **({"n_videos": 1, "n_frames": 3} | options))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(name: str, tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        small(name, tmp_path / folder, seed=seed)
    first, again, other = (digests(tmp_path / folder) for folder in "abc")
    assert first == again
    assert all(first[file] != other[file] for file in first if file in other)


def test_several_processes_write_the_bytes_that_one_writes(tmp_path: Path) -> None:
    small("penn_action", tmp_path / "one", n_videos=2)
    small("penn_action", tmp_path / "two", n_videos=2, workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_truth_comes_back_in_the_order_of_the_shots(tmp_path: Path) -> None:
    takes = small("penn_action", tmp_path / "raw", n_videos=2, workers=2)
    assert [take.shot.name for take in takes] == ["0001", "0002", "0003", "0004"]
    assert all(take.actors[0].kp_2d.shape == (3, 49, 2) for take in takes)


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_says_that_it_is_a_stand_in(name: str, tmp_path: Path) -> None:
    small(name, tmp_path / name, seed=7)
    assert is_stand_in(tmp_path / name)
    marker = json.loads((tmp_path / name / "STAND_IN.json").read_text())
    assert marker["stand_in"] is True
    assert marker["seed"] == 7
    assert marker["version"] == writing.VERSION
    assert marker["what"].endswith(".")


def counted(out: Path, **options) -> list[str]:
    told: list[str] = []
    synthetic.synthesize_into(
        out / "raw",
        out / "body",
        ["amass"],
        size="tiny",
        workers=1,
        progress=lambda d, n, m="": told.append(m),
        **options,
    )
    return told


def test_what_is_there_is_left_alone_and_another_seed_replaces_it(tmp_path: Path) -> None:
    assert len(counted(tmp_path)) == len(synthetic.LAYOUTS["amass"].shots(Request(size="tiny")))
    assert synthetic.is_current(tmp_path / "raw", tmp_path / "body", ["amass"], size="tiny")
    assert not synthetic.is_current(tmp_path / "raw", tmp_path / "body", ["amass", "3dpw"], size="tiny")
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert counted(tmp_path) == []
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == times
    before = digests(tmp_path / "raw")
    assert not synthetic.is_current(tmp_path / "raw", tmp_path / "body", ["amass"], size="tiny", seed=1)
    assert counted(tmp_path, seed=1) != []
    assert digests(tmp_path / "raw") != before
    body_marker = json.loads((tmp_path / "body" / "STAND_IN.json").read_text())
    assert body_marker["stand_in"] is True


@pytest.mark.parametrize("content", [None, "{}", '{"stand_in": false}', "no json"])
def test_a_folder_of_something_else_is_refused_and_stays(content, tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "amass"
    folder.mkdir(parents=True)
    (folder / "precious.npz").write_bytes(b"years of work")
    if content is not None:
        (folder / "STAND_IN.json").write_text(content)
    before = digests(tmp_path)
    with pytest.raises(PipelineError, match="stay as they are"):
        synthetic.synthesize(tmp_path, size="tiny", workers=1)
    assert digests(tmp_path) == before
    assert not (tmp_path / "body").exists()  # refused before anything was written


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    small("amass", tmp_path / "raw")
    assert is_stand_in(tmp_path / "raw")


def test_an_error_on_the_way_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    small("amass", folder)
    before = digests(tmp_path)

    def fail(below: Path) -> None:
        (below / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        writing.write_folder(folder, {"stand_in": True}, fail)
    assert digests(tmp_path) == before


def test_a_killed_run_leaves_no_half_dataset_and_the_next_one_completes_it(tmp_path: Path) -> None:
    code = "import sys, pathlib; from pipeline import synthetic; "
    code += "synthetic.write_dataset('penn_action', pathlib.Path(sys.argv[1]))"
    folder = tmp_path / "raw" / "penn_action"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=Path(__file__).parents[3])
    partial = folder.with_name(".penn_action.partial")
    for _ in range(3000):
        if list(partial.glob("frames/*/*.jpg")):
            break
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not folder.exists()
    small("penn_action", folder)
    assert not partial.exists()
    small("penn_action", tmp_path / "other")
    assert digests(folder) == digests(tmp_path / "other")


def test_unknown_names_are_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=", ".join(synthetic.LAYOUTS)):
        synthetic.synthesize_into(tmp_path, tmp_path / "body", ["pen_action"])
    with pytest.raises(ConfigError, match="tiny, default, large"):
        synthetic.synthesize(tmp_path, size="huge")
    assert not (tmp_path / "body").exists()


@pytest.mark.parametrize("name", ["penn_action", "kinetics", "3dpw", "amass"])
def test_the_readers_find_the_truth_in_it(name: str, tmp_path: Path) -> None:
    n_frames = {"amass": 330, "kinetics": 32}.get(name, 12)
    takes = small(name, tmp_path / name, n_frames=n_frames, seed=3)
    reader = datasets.get(name)
    found = 0
    for split in reader.splits:
        report = Accounting()
        for track in reader.tracks(tmp_path / name, split, report=report):
            found += 1
            take = next(t for t in takes if t.shot.name in track.video and t.shot.split == split)
            if track.kp_2d is not None:
                known = track.kp_2d[..., 2] > 0
                one_based = 1 if name == "penn_action" else 0
                truths = [actor.kp_2d[track.frame_index] + one_based for actor in take.actors]
                errors = [np.linalg.norm(track.kp_2d[..., :2] - t, axis=-1)[known] for t in truths]
                assert min(map(np.median, errors)) < (0.6 if name == "kinetics" else 1e-3)
                assert known.any(axis=-1).all()
        assert report.totals()["videos"]["set_aside"] == {}
    assert found >= len(takes)


def test_the_amass_reader_gives_the_pose_that_was_played(tmp_path: Path) -> None:
    takes = small("amass", tmp_path / "amass", n_videos=3, n_frames=400)
    at_100_fps = takes[2]
    assert at_100_fps.shot.fps == 100
    tracks = list(datasets.get("amass").tracks(tmp_path / "amass", "train", report=Accounting()))
    track = next(t for t in tracks if at_100_fps.shot.name in t.video)
    np.testing.assert_allclose(track.pose, at_100_fps.actors[0].pose[::4], atol=1e-5)
    np.testing.assert_allclose(track.betas[0], at_100_fps.actors[0].betas, atol=1e-6)
