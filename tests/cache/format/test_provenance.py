"""provenance.json is a note for people: a damaged one stops no work."""

import json
from pathlib import Path
from typing import Any

import cache

SPLIT = "toy/train"
HOMES = (SPLIT, f"{SPLIT}/features/resnet50")


def test_damaged_or_lost_notes_count_as_none_and_are_replaced_by_the_next_commit(root: Path, toy: Any) -> None:
    for notes in (b'{"commits": {', b"[1, 2]", b'{"commits": {"a": 7}}', b"\xff\xfe", None):
        for home in HOMES:
            file = root / home / "provenance.json"
            file.unlink() if notes is None else file.write_bytes(notes)
        split = cache.open(root)[SPLIT]
        assert (split.provenance, split.stream_provenance("resnet50")) == ({}, {})
        assert cache.verify(root).ok
    (root / SPLIT / "provenance.json").write_bytes(b"{")
    for plan in ("second", "third"):
        with toy.writer(root, plan, provenance={"raw": plan}) as writer:
            writer.begin(["a"] if plan == "second" else ["b"])
            writer.commit({})
        assert cache.open(root)[SPLIT].provenance["raw"] == plan
    assert len(json.loads((root / SPLIT / "provenance.json").read_text())["commits"]) == 2
    toy.write_stream(root)
    assert cache.verify(root).notes == ()
