"""`retry --failed`: what could not be used is read once more, and nothing else is touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from scipy.io import loadmat, savemat

import cache
from pipeline import datasets
from pipeline.__main__ import main
from pipeline.conversion import convert
from pipeline.conversion.retry import failed_videos, retry_failed
from pipeline.datasets.penn_action import PennAction
from pipeline.errors import PipelineError
from pipeline.raw import changes

NAME = "penn_action/train"


@pytest.fixture
def penn(embedded: Any, tmp_path: Path) -> Path:
    """A copy of the embedded Penn Action: videos 0001, 0003 and 0005 are of train."""
    return embedded.copy("penn_action", tmp_path / "penn_action")


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def spoil(raw: Path, name: str) -> bytes:
    """Take one joint's column out of a label; its bytes as they were."""
    file = raw / f"labels/{name}.mat"
    before = file.read_bytes()
    label = {key: value for key, value in loadmat(file).items() if not key.startswith("__")}
    savemat(file, label | {"x": label["x"][:, :12]})
    return before


def test_a_reader_that_was_mended_gets_its_video_though_no_file_has_changed(
    penn: Path, into: Any, tmp_path: Path, reads: Any
) -> None:
    root = tmp_path / "cache"
    into.convert(tmp_path / "whole", penn)
    reads.fail("0003")
    into.convert(root, penn)
    reads.clear()
    done = retry_failed(root, NAME)
    assert (done.failed, done.mended, done.set_aside, done.gone) == (("0003",), ("0003",), (), ())
    assert set(reads.names) == {"0003"}
    assert done.conversion is not None
    assert done.conversion.totals["videos"] == {"found": 3, "kept": 3, "set_aside": {}, "without_tracks": 0}
    rows, whole = (into.rows(folder, NAME, "kp_2d") for folder in (root, tmp_path / "whole"))
    assert rows.keys() == whole.keys() == {"0001/0", "0003/0", "0005/0"}
    assert all((rows[track] == whole[track]).all() for track in whole)
    assert cache.verify(root).ok
    assert convert.plan_conversion(datasets.get("penn_action"), "train", raw=penn, root=root).up_to_date


def test_a_label_that_was_mended_is_found_usable(penn: Path, into: Any, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    before = spoil(penn, "0003")
    into.convert(root, penn)
    assert failed_videos(datasets.get("penn_action"), cache.open(root)[NAME]).keys() == {"0003"}
    (penn / "labels/0003.mat").write_bytes(before)
    assert retry_failed(root, NAME).mended == ("0003",)
    assert failed_videos(datasets.get("penn_action"), cache.open(root)[NAME]) == {}


def test_what_fails_as_before_changes_no_file(
    penn: Path, into: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    spoil(penn, "0003")
    into.convert(root, penn)
    before = into.everything(root)
    assert run("retry", "--failed", "--cache", root) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "penn_action/train: 0 of 1 failed video can be used now"
    assert told[1] == "  the cache is unchanged: each fails as it did before"
    assert told[2].startswith("  ! set aside 0003: bad_label_file: ")
    assert into.everything(root) == before


def test_only_what_came_out_otherwise_is_written(penn: Path, into: Any, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    mended = spoil(penn, "0003")
    spoil(penn, "0005")
    into.convert(root, penn)
    (penn / "labels/0003.mat").write_bytes(mended)
    done = retry_failed(root, NAME)
    assert (done.mended, [account.name for account in done.set_aside]) == (("0003",), ["0005"])
    assert done.conversion is not None
    assert [video.name for video in done.conversion.plan.append] == ["0003"]
    names = cache.open(root)[NAME].videos.names
    assert names[-1] == "0003"  # appended anew; 0005 stays where it was
    assert names.index("0005") < names.index("0006")


def test_nothing_to_retry_is_said_and_changes_no_file(
    penn: Path, into: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], reads: Any
) -> None:
    root = tmp_path / "cache"
    into.convert(root, penn)
    before = into.everything(root)
    reads.clear()
    assert run("retry", "--failed", "--cache", root) == 0
    assert capsys.readouterr().out == "nothing to retry: no video of penn_action/train failed\n"
    assert (reads.names, into.everything(root)) == ([], before)


def test_a_video_with_which_nothing_is_wrong_is_not_retried(embedded: Any, into: Any, tmp_path: Path) -> None:
    raw = embedded.copy("kinetics", tmp_path / "kinetics")
    shutil.copy(next((raw / "train").rglob("*.mp4")), raw / "train/unseen.mp4")
    into.convert(tmp_path / "cache", raw, "kinetics")
    assert retry_failed(tmp_path / "cache", "kinetics/train").failed == ()


def test_changes_of_other_videos_wait_for_the_next_conversion(
    penn: Path, into: Any, tmp_path: Path, reads: Any
) -> None:
    root = tmp_path / "cache"
    before = spoil(penn, "0003")
    into.convert(root, penn)
    label = {key: value for key, value in loadmat(penn / "labels/0001.mat").items() if not key.startswith("__")}
    savemat(penn / "labels/0001.mat", label | {"x": label["x"] + 1})
    shutil.copy(penn / "labels/0005.mat", penn / "labels/0007.mat")
    shutil.copytree(penn / "frames/0005", penn / "frames/0007")
    (penn / "labels/0003.mat").write_bytes(before)
    reads.clear()
    retry_failed(root, NAME)
    assert set(reads.names) == {"0003"}
    plan = convert.plan_conversion(datasets.get("penn_action"), "train", raw=penn, root=root)
    assert plan.why == "1 new video, 1 changed video"  # a retry hides neither


def test_stamps_that_nobody_can_read_are_no_obstacle(penn: Path, into: Any, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    before = spoil(penn, "0003")
    into.convert(root, penn)
    (root / NAME / changes.STAMPS).write_text('{"0001": 1, "0005": {"stamp": []}}')
    (penn / "labels/0003.mat").write_bytes(before)
    assert retry_failed(root, NAME).mended == ("0003",)


def test_a_video_that_is_gone_is_left_for_the_next_conversion_and_told(
    penn: Path, into: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    spoil(penn, "0003")
    into.convert(root, penn)
    (penn / "labels/0003.mat").unlink()
    shutil.rmtree(penn / "frames/0003")
    before = into.everything(root)
    assert run("retry", "--failed", "--cache", root, "penn_action") == 0
    assert "1 not in the raw folder any more, first 0003" in capsys.readouterr().out
    assert into.everything(root) == before


def test_a_split_that_is_to_be_converted_anew_is_not_retried_in_part(
    penn: Path, into: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(penn, "0003")
    into.convert(tmp_path / "cache", penn)
    monkeypatch.setattr(PennAction, "version", PennAction.version + 1)
    with pytest.raises(PipelineError, match=r"version was .*convert it instead of a retry"):
        retry_failed(tmp_path / "cache", NAME)


def test_options_of_the_reader_are_those_of_the_conversion(embedded: Any, into: Any, tmp_path: Path) -> None:
    raw = embedded.copy("amass", tmp_path / "amass")
    file = sorted(raw.rglob("*_poses.npz"))[0]
    before = file.read_bytes()
    file.write_bytes(before[: len(before) // 2])
    decimated = datasets.get("amass", resampling="decimate")
    plan = convert.plan_conversion(decimated, "train", raw=raw, root=tmp_path / "cache")
    convert.convert(plan)
    file.write_bytes(before)
    assert len(retry_failed(tmp_path / "cache", "amass/train").mended) == 1
    reader = cache.open(tmp_path / "cache")["amass/train"].manifest["reader"]
    assert reader["parameters"]["resampling"] == "decimate"


def test_folders_that_moved_are_named_and_those_recorded_are_used_else(
    penn: Path, into: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    before = spoil(penn, "0003")
    into.convert(root, penn)
    (penn / "labels/0003.mat").write_bytes(before)
    moved = penn.rename(tmp_path / "elsewhere")
    assert run("retry", "--failed", "--cache", root) == 2
    assert "is not there now. Say where the dataset's own raw folder is: --raw DIR" in capsys.readouterr().err
    assert run("retry", "--failed", "--cache", root, NAME, "--raw", moved) == 0
    assert "penn_action/train: 1 of 1 failed video can be used now" in capsys.readouterr().out
    assert cache.open(root)[NAME].provenance["raw"] == str(moved.resolve())


def test_the_body_of_the_conversion_is_the_body_of_the_retry(embedded: Any, into: Any, tmp_path: Path) -> None:
    raw, root = embedded.copy("3dpw", tmp_path / "3dpw"), tmp_path / "cache"
    file = next((raw / "sequenceFiles/train").iterdir())
    before = file.read_bytes()
    file.write_bytes(before[:100])
    into.convert(root, raw, "3dpw", body=embedded.body)
    assert cache.open(root)["3dpw/train"].provenance["body"] == str(embedded.body.resolve())
    file.write_bytes(before)
    assert retry_failed(root, "3dpw/train").mended == (file.stem,)
    assert "kp_3d" in cache.open(root)["3dpw/train"].columns


def test_a_body_that_was_not_recorded_is_asked_for(embedded: Any, into: Any, tmp_path: Path) -> None:
    raw, root = embedded.copy("3dpw", tmp_path / "3dpw"), tmp_path / "cache"
    file = next((raw / "sequenceFiles/train").iterdir())
    before = file.read_bytes()
    file.write_bytes(before[:100])
    into.convert(root, raw, "3dpw", body=embedded.body)
    notes = root / "3dpw/train/provenance.json"
    told = json.loads(notes.read_text())
    for commit in told["commits"].values():
        del commit["body"]
    notes.write_text(json.dumps(told))
    file.write_bytes(before)
    with pytest.raises(PipelineError, match="name its folder with --body DIR"):
        retry_failed(root, "3dpw/train")
    assert retry_failed(root, "3dpw/train", body=embedded.body).mended == (file.stem,)


def test_names_choose_splits_and_a_wrong_one_is_told(
    penn: Path, into: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    (penn / "labels/0003.mat").write_bytes(b"not even its split can be told")
    for split in ("train", "test"):
        into.convert(root, penn, split=split)
    assert run("retry", "--failed", "--cache", root, "penn_action/test") == 0
    told = capsys.readouterr().out
    assert "penn_action/test: 0 of 1" in told
    assert "penn_action/train" not in told
    assert run("retry", "--failed", "--cache", root, "penn") == 2
    assert "no split 'penn' in the cache; there are: penn_action/test, penn_action/train" in capsys.readouterr().err


def test_one_raw_folder_is_not_taken_for_two_datasets(
    penn: Path, embedded: Any, into: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    into.convert(root, penn)
    into.convert(root, embedded.raw("amass"), "amass")
    assert run("retry", "--failed", "--cache", root, "--raw", penn) == 2
    assert "--raw is one dataset's own folder" in capsys.readouterr().err


def test_one_worker_and_two_give_the_same_bytes(penn: Path, into: Any, tmp_path: Path) -> None:
    before = spoil(penn, "0003")
    for n_workers in (1, 2):
        into.convert(tmp_path / str(n_workers), penn)
    (penn / "labels/0003.mat").write_bytes(before)
    for n_workers in (1, 2):
        assert retry_failed(tmp_path / str(n_workers), NAME, workers=n_workers).mended == ("0003",)
    assert into.tree(tmp_path / "1") == into.tree(tmp_path / "2")
