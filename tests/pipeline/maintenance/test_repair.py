"""`verify --repair`: what is damaged comes from the raw data again, just those rows, and nothing good is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import cache
from pipeline import datasets
from pipeline.__main__ import main
from pipeline.conversion import convert
from pipeline.features import extract

NAME = "penn_action/train"
STREAM = f"{NAME}/features/resnet50"


@pytest.fixture
def penn(embedded: Any, tmp_path: Path) -> Path:
    """A copy of the embedded Penn Action: 0001, 0003 and 0005 are of train, 8 frames each."""
    return embedded.copy("penn_action", tmp_path / "penn_action")


@pytest.fixture
def root(penn: Path, into: Any, tmp_path: Path, network: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards of 8 rows: one a video."""
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_SHARD", 8)
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_CHUNK", 8)
    into.convert(tmp_path / "cache", penn)
    into.extract(tmp_path / "cache", precision="exact")
    network.batches.clear()
    return tmp_path / "cache"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def spoil(file: Path) -> None:
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 3] ^= 4
    file.write_bytes(changed)


def everything(root: Path) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def seen(root: Path, into: Any) -> dict[str, dict[str, bytes]]:
    """All that a reader finds, by track."""
    split = cache.open(root)[NAME]
    names = [*split.columns, "features/resnet50"]
    return {name: {track: rows.tobytes() for track, rows in into.rows(root, NAME, name).items()} for name in names}


def test_a_damaged_shard_of_a_stream_costs_just_its_rows(
    root: Path, into: Any, network: Any, reads: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before, manifest = seen(root, into), (root / STREAM / "manifest.json").read_bytes()
    spoil(root / STREAM / "c/1/0")
    reads.clear()
    assert run("verify", "--repair", "--cache", root) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"✗ {root / STREAM / 'c/1/0'}: ")
    assert "3 files removed, of damaged shards:" in told
    assert f"{NAME}, resnet50: 8 rows computed anew, 0 carried over" in told
    assert told[-1].startswith("✓ intact: ")
    assert (len(network.batches), reads.names) == (1, [])
    assert seen(root, into) == before
    assert (root / STREAM / "manifest.json").read_bytes() == manifest
    assert extract.is_current(cache.open(root)[NAME], "resnet50")


def test_a_damaged_shard_of_a_column_costs_reading_its_videos_and_no_feature(
    root: Path,
    penn: Path,
    into: Any,
    network: Any,
    reads: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = seen(root, into)
    spoil(root / NAME / "kp_2d/c/1/0/0")
    reads.clear()
    assert run("verify", "--repair", "--cache", root) == 0
    told = capsys.readouterr().out.splitlines()
    assert f"{NAME}: 1 video read anew, 8 rows" in told
    assert f"{NAME}, resnet50: 0 rows computed anew, 8 carried over" in told
    assert told[-1].startswith("✓ intact: ")
    assert set(reads.names) == {"0003"}
    assert network.batches == []
    assert seen(root, into) == before
    split = cache.open(root)[NAME]
    assert "1" not in split.manifest["shards"]["kp_2d"]
    assert not (root / f"{NAME}/kp_2d/c/1").exists()
    assert split.manifest["accounting"]["videos"]["kept"] == 3
    assert convert.plan_conversion(datasets.get("penn_action"), "train", raw=penn, root=root).up_to_date


def test_all_kinds_of_damage_at_once(root: Path, into: Any, network: Any) -> None:
    before = seen(root, into)
    for key in (
        f"{NAME}/kp_2d/c/1/0/0",
        f"{NAME}/bbox/c/0/0",
        f"{NAME}/bbox/zarr.json",
        f"{STREAM}/c/1/0",
        f"{STREAM}_ok/c/2",
        "penn_action/zarr.json",
    ):
        spoil(root / key)
    (root / NAME / "frame_index/c/0").unlink()
    assert run("verify", "--repair", "--cache", root) == 0
    assert seen(root, into) == before
    assert len(network.batches) == 1  # 16 rows: shard 0 of the stream was whole: its features were carried over
    assert cache.verify(root).ok


def test_raw_files_that_are_gone_change_nothing_and_are_told(
    root: Path, penn: Path, into: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for video in ("0001", "0003"):
        shutil.rmtree(penn / "frames" / video)
        (penn / f"labels/{video}.mat").rename(penn / f"{video}.mat")
    spoil(root / NAME / "kp_2d/c/1/0/0")
    before = everything(root)
    assert run("verify", "--repair", "--cache", root) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert f"1 video with damaged rows are not below {penn}, first 0003" in error
    assert "Put them back, or let them go" in error
    assert f"convert penn_action train --raw {penn} --cache {root}" in error
    assert {k: v for k, v in everything(root).items() if ".verifying" not in k} == before


def test_a_video_that_cannot_be_read_any_more_is_not_dropped(
    root: Path, penn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (penn / "labels/0003.mat").write_bytes((penn / "labels/0003.mat").read_bytes()[:50])
    spoil(root / NAME / "kp_2d/c/1/0/0")
    before = everything(root)
    assert run("verify", "--repair", "--cache", root) == 1
    assert "0003 has damaged rows, and cannot be read now" in " ".join(capsys.readouterr().err.split())
    assert {k: v for k, v in everything(root).items() if ".verifying" not in k} == before


def test_raw_data_that_have_moved_are_named(
    root: Path, penn: Path, tmp_path: Path, into: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = seen(root, into)
    spoil(root / NAME / "kp_2d/c/1/0/0")
    spoil(root / STREAM / "c/2/0")
    moved = penn.rename(tmp_path / "elsewhere")
    assert run("verify", "--repair", "--cache", root) == 1
    assert "Say where the dataset's own raw folder is: --raw DIR" in " ".join(capsys.readouterr().err.split())
    assert run("verify", "--repair", "--cache", root, "--raw", moved) == 0
    assert seen(root, into) == before


def test_weights_that_only_the_user_has_are_asked_for_with_the_command(
    root: Path, into: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = root / STREAM / "c/1/0"
    spoil(shard)
    real = cache.Split.stream_manifest

    def from_a_file(self: Any, stream: str) -> Any:
        of = dict(real(self, stream))
        weights = {"kind": "spin", "file_sha256": "f00d" * 16}
        return {**of, "identity": {**of["identity"], "weights": weights}}

    monkeypatch.setattr(cache.Split, "stream_manifest", from_a_file)
    assert run("verify", "--repair", "--cache", root) == 1  # what is there is intact, but some is still to be done
    error = " ".join(capsys.readouterr().err.split())
    assert "8 rows of resnet50 are to be computed anew, with its weights (sha256 f00df00df00d)" in error
    assert f"extract penn_action train --cache {root} --stream resnet50 --weights spin:FILE --precision exact" in error
    assert not shard.exists()


def test_a_repair_that_was_killed_before_its_extraction_goes_on(
    root: Path, into: Any, network: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = seen(root, into)
    spoil(root / STREAM / "c/1/0")
    cache.repair(root, cache.verify(root))  # and here it is killed
    assert run("verify", "--repair", "--cache", root) == 0
    assert f"{NAME}, resnet50: 8 rows computed anew, 0 carried over" in capsys.readouterr().out
    assert seen(root, into) == before


def test_nothing_to_repair_is_said_and_changes_no_file(
    root: Path, into: Any, network: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = into.everything(root)
    assert run("verify", "--repair", "--cache", root) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing to repair"
    assert (into.everything(root), network.batches) == (before, [])


def test_options_of_a_repair_without_it_are_an_error(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "--cache", root, "--raw", root) == 2
    assert "--raw goes with --repair" in capsys.readouterr().err


def test_fast_says_what_it_did_not_look_at(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(root / STREAM / "c/1/0")
    assert run("verify", "--fast", "--cache", root) == 0
    assert capsys.readouterr().out.rstrip().endswith("sizes and indexes only")
    assert run("verify", "--cache", root) == 1
