"""What a killed writer has finished counts for the next one with the same plan, as far as it is intact."""

from pathlib import Path
from typing import Any

import pytest

from cache import StreamWriter, store_at
from cache.write.base import Journal


def spoil(root: Path, name: str) -> None:
    """One file that a killed writer left: gone, or with a changed number in it."""
    (file,) = root.glob(name.removesuffix(" lost"))
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.unlink() if name.endswith("lost") else file.write_bytes(data)


RECORDS = [f".writing/journal/*/0000000{number}.json" for number in range(3)]


@pytest.mark.parametrize("name", ["bbox/c/0/0 lost", "bbox/c/1/0 lost", "bbox/c/1/0", *RECORDS])
def test_what_is_lost_or_damaged_since_is_written_again(tmp_path: Path, toy: Any, name: str) -> None:
    toy.write(tmp_path / "calm", toy.videos())
    toy.unfinished(tmp_path / "killed", toy.videos()[:4], "plan")
    spoil(tmp_path / "killed" / toy.SPLIT, name)
    toy.write(tmp_path / "killed", toy.videos())
    assert toy.tree(tmp_path / "killed") == toy.tree(tmp_path / "calm")


def test_an_extraction_with_other_weights_does_not_take_over_journalled_shards(tracks: Path, toy: Any) -> None:
    with StreamWriter(tracks, "toy/train", "resnet50", dim=4, plan="old") as writer:
        writer.write(*toy.given(writer, 1))
    with StreamWriter(tracks, "toy/train", "resnet50", dim=4, plan="old") as writer:
        assert writer.pending == [0, 2, 3, 4]
    with StreamWriter(tracks, "toy/train", "resnet50", dim=4, plan="new") as writer:
        assert writer.pending == [0, 1, 2, 3, 4]


def test_records_behind_a_damaged_one_do_not_come_back(tmp_path: Path) -> None:
    def begun() -> tuple[Journal, list[dict[str, Any]]]:
        journal = Journal(store_at(tmp_path), "journal")
        return journal, journal.start({"plan": "p"})

    for number in range(3):
        begun()[0].add({"old": number})
    (damaged,) = tmp_path.glob("journal/*/00000001.json")
    damaged.write_bytes(b"torn")
    begun()[0].add({"new": 1})
    assert begun()[1] == [{"old": 0}, {"new": 1}]
