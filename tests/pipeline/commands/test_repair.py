"""`verify --repair` drops damaged shards, and the commands that it prints fill them again."""

import functools
import shlex

import pytest

NAME = "penn_action/train"
STREAM = f"{NAME}/features/resnet50"


@pytest.fixture
def repair(penn, ran, network, monkeypatch):
    """The command, on shards of 8 rows: one a video."""
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_SHARD", 8)
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_CHUNK", 8)
    penn.converted("exact")
    return functools.partial(ran, "verify", "--repair", "--cache", penn.root)


def spoil(penn, shard):
    file = penn.root / shard
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 3] ^= 4
    file.write_bytes(changed)


def numbers(penn):
    """All rows, by column and track."""
    names = [*penn.split.columns, "features/resnet50"]
    return {
        name: {track: rows.tobytes() for track, rows in penn.rows(name).items()} for name in names
    }


@pytest.mark.parametrize(
    ("shard", "dropped", "kept", "read", "batches"),
    [
        (f"{STREAM}/c/1/0", "# 8 rows of resnet50", 3, set(), 1),
        (f"{NAME}/kp_2d/c/1/0/0", f"{NAME}: rows of 1 video dropped", 2, {"0003"}, 0),
    ],
)
def test_a_damaged_shard_costs_just_its_rows(
    shard, dropped, kept, read, batches, penn, network, reads, repair, ran
):
    before, manifest = numbers(penn), (penn.root / STREAM / "manifest.json").read_bytes()
    spoil(penn, shard)
    reads.clear()
    shown = repair().out
    assert shown.startswith(f"✗ {penn.root / shard}: ")
    assert dropped in shown
    assert shown.splitlines()[-1].startswith("✓ intact: ")
    assert penn.split.manifest["accounting"]["videos"]["kept"] == kept
    lines = shown.partition("to fill them again:\n")[2].splitlines()
    for line in (line for line in lines if " -m pipeline " in line):
        ran(*shlex.split(line, comments=True)[3:])
    assert (len(network.batches), set(reads.names)) == (batches, read)
    assert numbers(penn) == before
    assert penn.split.manifest["accounting"]["videos"]["kept"] == 3
    assert ((penn.root / STREAM / "manifest.json").read_bytes() == manifest) == (kept == 3)
    assert ("1" in penn.split.manifest["shards"]["kp_2d"]) == (kept == 3), (
        "of a column, others take its place"
    )
    assert penn.plan().up_to_date


@pytest.mark.parametrize("shard", ["", f"{NAME}/kp_2d/c/1/0/0", f"{STREAM}/c/1/0"])
def test_with_nothing_to_repair_or_without_the_raw_files_nothing_is_changed(
    shard, penn, network, into, repair
):
    if shard:
        penn.remove("0003")
        spoil(penn, shard)
    before = into.tree(penn.root)
    shown = repair(code=1 if shard else 0)
    text = " ".join((shown.out + shown.err).split())
    if shard:
        assert "0003" in shown.err
        assert "not changed" in text or "Nothing was changed" in text
    else:
        assert "nothing to repair" in text
    assert (into.tree(penn.root), network.batches) == (before, [])
