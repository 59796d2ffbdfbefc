"""`convert --retry`: videos that failed are read once more, and nothing else is touched."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import cache
from pipeline import datasets
from pipeline.conversion import convert
from pipeline.conversion.retry import Retry, recorded_plan, retry
from pipeline.datasets.penn_action import PennAction
from pipeline.errors import PipelineError
from pipeline.raw import changes


def retry_split(root: Path, name: str = "penn_action/train", *, body: Path | None = None, **options: Any) -> Retry:
    return retry(recorded_plan(cache.open(root)[name], body=body), **options)


def test_a_corrected_reader_gets_its_video_though_no_file_has_changed(
    penn: Any, into: Any, tmp_path: Path, reads: Any
) -> None:
    into.convert(tmp_path / "intact", penn.raw)
    reads.fail("0003")
    penn.convert()
    reads.clear()
    done = retry_split(penn.root)
    assert (done.failed, done.recovered, done.rejected, done.gone) == (("0003",), ("0003",), (), ())
    assert set(reads.names) == {"0003"}
    assert done.conversion is not None
    assert done.conversion.totals["videos"] == {"found": 3, "kept": 3, "set_aside": {}, "without_tracks": 0}
    rows, intact = penn.rows("kp_2d"), into.rows(tmp_path / "intact", penn.name, "kp_2d")
    assert {name: values.tobytes() for name, values in rows.items()} == {n: v.tobytes() for n, v in intact.items()}
    assert cache.verify(penn.root).ok
    assert penn.plan().up_to_date


def test_only_videos_with_another_result_are_written(penn: Any) -> None:
    before = penn.spoil("0005", "0003")
    penn.convert()
    penn.label("0003").write_bytes(before)
    done = retry_split(penn.root)
    assert (done.recovered, [account.name for account in done.rejected]) == (("0003",), ["0005"])
    assert done.conversion is not None
    assert [video.name for video in done.conversion.plan.append] == ["0003"]
    names = penn.split.videos.names
    assert names[-1] == "0003"  # appended; 0005 is where it was
    assert names.index("0005") < names.index("0006")


@pytest.fixture
def by_command(penn: Any, ran: Any) -> Any:
    return functools.partial(ran, "convert", penn.name, "--retry", "--cache", penn.root)


def test_a_video_that_fails_in_the_same_way_changes_no_file(penn: Any, by_command: Any) -> None:
    penn.spoil("0003")
    penn.convert()
    before = penn.everything()
    shown = by_command(code=1).out.splitlines()
    assert shown[0] == "penn_action/train: 0 of 1 failed video can be used now"
    assert "unchanged" in shown[1]
    assert "0003: bad_label_file: " in shown[2]
    assert penn.everything() == before


def test_with_no_failed_video_nothing_is_read(penn: Any, reads: Any, by_command: Any) -> None:
    penn.converted()
    before = penn.everything()
    reads.clear()
    assert "nothing to retry" in by_command().out
    assert (reads.names, penn.everything()) == ([], before)


def test_a_video_that_was_rejected_by_design_is_not_retried(embedded: Any, into: Any, tmp_path: Path) -> None:
    raw = embedded.copy("kinetics", tmp_path / "kinetics")
    shutil.copy(next((raw / "train").rglob("*.mp4")), raw / "train/unseen.mp4")
    into.convert(tmp_path / "cache", raw, "kinetics")
    assert retry_split(tmp_path / "cache", "kinetics/train").failed == ()


def test_one_video_or_one_reason_is_chosen_and_a_wrong_one_is_an_error(penn: Any, reads: Any) -> None:
    penn.spoil("0001", "0003")
    penn.remove("0005")
    penn.label("0006").write_bytes(b"")
    reads.fail("0004")
    penn.convert()
    reads.clear()
    assert retry_split(penn.root, video="0003").failed == ("0003",)
    assert set(reads.names) == {"0003"}
    chosen = retry_split(penn.root, reason="unexpected_error")
    assert chosen.failed == ("0004",)
    for wrong, known in (({"video": "0002"}, "'0002'"), ({"reason": "no_label"}, "bad_label_file")):
        with pytest.raises(PipelineError, match=known):
            retry_split(penn.root, **wrong)


def test_changes_of_other_videos_wait_for_the_next_conversion(penn: Any, reads: Any) -> None:
    before = penn.spoil("0003")
    penn.convert()
    (penn.root / penn.name / changes.STAMPS).write_text('{"0001": 1, "0005": {"stamp": []}}')  # is no obstacle
    penn.edit("0001")
    penn.add("0007")
    penn.label("0003").write_bytes(before)
    reads.clear()
    assert retry_split(penn.root).recovered == ("0003",)
    assert set(reads.names) == {"0003"}
    assert penn.plan().why == "1 new video, 1 changed video"  # a retry hides neither


def test_a_video_that_is_gone_is_left_to_the_next_conversion(penn: Any, by_command: Any) -> None:
    penn.spoil("0003")
    penn.convert()
    penn.remove("0003")
    before = penn.everything()
    assert "1 not in the raw folder any more, first 0003" in by_command().out
    assert penn.everything() == before


def test_a_split_that_is_to_be_converted_again_is_not_retried_in_part(
    penn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    penn.spoil("0003")
    penn.convert()
    monkeypatch.setattr(PennAction, "version", PennAction.version + 1)
    with pytest.raises(PipelineError, match=r"version was .*do that first"):
        retry_split(penn.root)


def test_options_of_the_reader_are_those_of_the_conversion(embedded: Any, tmp_path: Path) -> None:
    raw, root = embedded.copy("amass", tmp_path / "amass"), tmp_path / "cache"
    file = sorted(raw.rglob("*_poses.npz"))[0]
    before = file.read_bytes()
    file.write_bytes(before[: len(before) // 2])
    decimated = datasets.get("amass", resampling="decimate")
    convert.convert(convert.plan_conversion(decimated, "train", raw=raw, root=root))
    file.write_bytes(before)
    assert len(retry_split(root, "amass/train").recovered) == 1
    assert cache.open(root)["amass/train"].manifest["reader"]["parameters"]["resampling"] == "decimate"


def test_a_moved_raw_folder_is_named_and_the_recorded_one_is_used_otherwise(
    penn: Any, by_command: Any, tmp_path: Path
) -> None:
    before = penn.spoil("0003")
    penn.convert()
    penn.label("0003").write_bytes(before)
    moved = penn.raw.rename(tmp_path / "elsewhere")
    assert "--raw DIR" in by_command(code=2).err
    assert "1 of 1 failed video can be used now" in by_command("--raw", moved).out
    assert penn.split.provenance["raw"] == str(moved.resolve())


def test_the_body_of_the_conversion_is_used_again_and_asked_for_where_it_is_not_recorded(
    embedded: Any, into: Any, tmp_path: Path
) -> None:
    raw, root = embedded.copy("3dpw", tmp_path / "3dpw"), tmp_path / "cache"
    file = next((raw / "sequenceFiles/train").iterdir())
    before = file.read_bytes()
    file.write_bytes(before[:100])
    into.convert(root, raw, "3dpw", body=embedded.body)
    file.write_bytes(before)
    other = Path(shutil.copytree(root, tmp_path / "other"))
    assert retry_split(root, "3dpw/train").recovered == (file.stem,)
    assert "kp_3d" in cache.open(root)["3dpw/train"].columns
    notes = other / "3dpw/train/provenance.json"
    recorded = json.loads(notes.read_text())
    for commit in recorded["commits"].values():
        del commit["body"]
    notes.write_text(json.dumps(recorded))
    with pytest.raises(PipelineError, match="--body DIR"):
        retry_split(other, "3dpw/train")
    assert retry_split(other, "3dpw/train", body=embedded.body).recovered == (file.stem,)
