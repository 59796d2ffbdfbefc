"""`verify --repair` drops damaged shards, and the commands that it prints fill them again."""

import functools
import shlex
from pathlib import Path
from typing import Any

import pytest

NAME = "penn_action/train"
STREAM = f"{NAME}/features/resnet50"


@pytest.fixture
def root(penn: Any, network: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards of 8 rows: one a video."""
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_SHARD", 8)
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_CHUNK", 8)
    penn.converted("exact")
    return Path(penn.root)


@pytest.fixture
def repair(ran: Any, root: Path) -> Any:
    return functools.partial(ran, "verify", "--repair", "--cache", root)


def spoil(file: Path) -> None:
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 3] ^= 4
    file.write_bytes(changed)


def files(root: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(root.rglob("*")) if path.is_file() and ".verifying" not in path.name)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def numbers(penn: Any) -> dict[str, dict[str, bytes]]:
    """All rows, by column and track."""
    names = [*penn.split.columns, "features/resnet50"]
    return {name: {track: rows.tobytes() for track, rows in penn.rows(name).items()} for name in names}


def fill(ran: Any, shown: str) -> None:
    """Run the commands that a repair prints."""
    lines = shown.partition("to fill them again:\n")[2].splitlines()
    for line in (line for line in lines if " -m pipeline " in line):
        ran(*shlex.split(line, comments=True)[3:])


def test_a_damaged_shard_of_a_stream_costs_just_its_rows(root, penn, network, reads, repair, ran):
    before, manifest = numbers(penn), (root / STREAM / "manifest.json").read_bytes()
    spoil(root / STREAM / "c/1/0")
    reads.clear()
    shown = repair().out
    assert shown.startswith(f"✗ {root / STREAM / 'c/1/0'}: ")
    assert "# 8 rows of resnet50" in shown
    assert shown.splitlines()[-1].startswith("✓ intact: ")
    fill(ran, shown)
    assert (len(network.batches), reads.names) == (1, [])
    assert numbers(penn) == before
    assert (root / STREAM / "manifest.json").read_bytes() == manifest


def test_a_damaged_shard_of_a_column_costs_reading_its_videos_and_no_feature(root, penn, network, reads, repair, ran):
    before = numbers(penn)
    spoil(root / NAME / "kp_2d/c/1/0/0")
    reads.clear()
    shown = repair().out
    assert f"{NAME}: rows of 1 video dropped" in shown
    assert shown.splitlines()[-1].startswith("✓ intact: ")
    assert penn.split.manifest["accounting"]["videos"]["kept"] == 2
    fill(ran, shown)
    assert (set(reads.names), network.batches) == ({"0003"}, [])
    assert numbers(penn) == before
    assert "1" not in penn.split.manifest["shards"]["kp_2d"]
    assert penn.split.manifest["accounting"]["videos"]["kept"] == 3
    assert penn.plan().up_to_date


@pytest.mark.parametrize("file", ["kp_2d/c/1/0/0", "features/resnet50/c/1/0"])
def test_where_the_raw_files_are_gone_nothing_is_changed(file: str, root: Path, penn: Any, repair: Any) -> None:
    penn.remove("0003")
    spoil(root / NAME / file)
    before = files(root)
    error = " ".join(repair(code=1).err.split())
    assert "0003" in error
    assert "not changed" in error or "Nothing was changed" in error
    assert files(root) == before


def test_with_nothing_to_repair_no_file_is_changed(root: Path, penn: Any, network: Any, repair: Any) -> None:
    before = penn.everything()
    assert "nothing to repair" in repair().out
    assert (penn.everything(), network.batches) == (before, [])
