"""`verify --repair` drops damaged shards, and the commands that it prints fill them again."""

import pytest
from numpy.testing import assert_equal

NAME = "penn_action/train"
STREAM = f"{NAME}/features/resnet50"


REPAIR = "verify --repair --cache CACHE"


@pytest.fixture(autouse=True)
def one_shard_a_video(penn, network, monkeypatch):
    """8 rows."""
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_SHARD", 8)
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_CHUNK", 8)
    penn.converted("exact")


def spoil(penn, shard):
    file = penn.root / shard
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 3] ^= 4
    file.write_bytes(changed)


def numbers(penn):
    """All rows, by column and track."""
    names = [*penn.split.columns, "features/resnet50"]
    return [penn.rows(name) for name in names]


@pytest.mark.parametrize(
    ("shard", "dropped", "kept", "read", "batches"),
    [
        (f"{STREAM}/c/1/0", "# 8 rows of resnet50", 3, set(), 1),
        (f"{NAME}/kp_2d/c/1/0/0", f"{NAME}: rows of 1 video dropped", 2, {"0003"}, 0),
    ],
)
def test_a_damaged_shard_costs_just_its_rows(
    shard, dropped, kept, read, batches, penn, network, reads, command_line
):
    before, manifest = numbers(penn), (penn.root / STREAM / "manifest.json").read_bytes()
    spoil(penn, shard)
    reads.clear()
    shown = command_line(REPAIR).out
    assert shown.startswith(f"error: {penn.root / shard}: ")
    assert dropped in shown
    assert shown.splitlines()[-1].startswith("✓ intact: ")
    assert penn.split.manifest["accounting"]["videos"]["kept"] == kept
    lines = shown.partition("to fill them again:\n")[2].splitlines()
    for line in (line for line in lines if " -m pipeline " in line):
        command_line(line.partition(" -m pipeline ")[2].partition(" #")[0])
    assert (len(network.batches), set(reads.names)) == (batches, read)
    assert_equal(numbers(penn), before)
    assert penn.split.manifest["accounting"]["videos"]["kept"] == 3
    assert ((penn.root / STREAM / "manifest.json").read_bytes() == manifest) == (kept == 3)
    assert ("1" in penn.split.manifest["shards"]["kp_2d"]) == (kept == 3), (
        "of a column, others take its place"
    )
    assert penn.plan().up_to_date


@pytest.mark.parametrize("shard", ["", f"{NAME}/kp_2d/c/1/0/0", f"{STREAM}/c/1/0"])
def test_with_nothing_to_repair_or_without_the_raw_files_nothing_is_changed(
    shard, penn, network, into, types
):
    if shard:
        penn.remove("0003")
        spoil(penn, shard)
    before = into.tree(penn.root)
    shown = types(REPAIR, "0003" if shard else "nothing to repair", code=int(bool(shard)))
    if shard:
        assert "not changed" in shown or "Nothing was changed" in shown
    assert (into.tree(penn.root), network.batches) == (before, [])
