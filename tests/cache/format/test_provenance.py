"""provenance.json is a note for people: damaged, it is told and set aside, and stops nobody."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import cache
from cache import SplitWriter

SPLIT = "toy/train"
DAMAGED = {"torn": b'{"commits": {', "another": b"[1, 2]", "entries": b'{"commits": {"a": 7}}', "binary": b"\xff\xfe"}


@pytest.fixture(params=list(DAMAGED))
def damaged(request: pytest.FixtureRequest, tmp_path: Path, toy: Any) -> Path:
    """A split and a stream, the notes of both damaged in one of these ways."""
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path)
    for home in (SPLIT, f"{SPLIT}/features/resnet50"):
        (tmp_path / home / "provenance.json").write_bytes(DAMAGED[request.param])
    return tmp_path


def test_whoever_reads_damaged_notes_is_told_once_and_goes_on(damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        split = cache.open(damaged)[SPLIT]
        assert (split.provenance, split.forgot("resnet50")) == ({}, False)
        assert split.provenance == {}
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2  # the split's and the stream's
    assert told[0].startswith(f"{damaged}/{SPLIT}/provenance.json: expected notes on commits, found ")


def test_verification_notes_them_and_finds_the_cache_intact(damaged: Path) -> None:
    report = cache.verify(damaged)
    assert report.ok
    assert [note.partition(": ")[0].removeprefix(f"{damaged}/") for note in report.notes] == [
        f"{SPLIT}/provenance.json",
        f"{SPLIT}/features/resnet50/provenance.json",
    ]


def test_the_next_commit_sets_them_aside_and_begins_anew(damaged: Path, toy: Any) -> None:
    before = (damaged / SPLIT / "provenance.json").read_bytes()
    for plan in ("second", "third"):
        with SplitWriter(damaged, SPLIT, columns=toy.columns, plan=plan, provenance={"raw": plan}) as writer:
            writer.begin(["a"] if plan == "second" else ["b"])
            writer.commit({})
        assert cache.open(damaged)[SPLIT].provenance["raw"] == plan
    assert (damaged / SPLIT / "provenance.damaged.1.json").read_bytes() == before
    assert not (damaged / SPLIT / "provenance.damaged.2.json").exists()
    assert len(json.loads((damaged / SPLIT / "provenance.json").read_text())["commits"]) == 2


def test_compaction_takes_the_damaged_notes_along(damaged: Path, toy: Any) -> None:
    before = (damaged / SPLIT / "provenance.json").read_bytes()
    toy.write(damaged, [], drop=["d"], plan="second")
    (damaged / SPLIT / "provenance.json").write_bytes(before)
    toy.write_stream(damaged)
    cache.compact(damaged, SPLIT)
    assert [(damaged / SPLIT / f"provenance.damaged.{n}.json").read_bytes() for n in (1, 2)] == [before, before]
    assert (damaged / SPLIT / "features/resnet50/provenance.damaged.1.json").read_bytes() == before
    assert cache.verify(damaged).ok


def test_lost_notes_are_no_notes(tmp_path: Path, toy: Any, caplog: pytest.LogCaptureFixture) -> None:
    toy.write(tmp_path, toy.videos())
    (tmp_path / SPLIT / "provenance.json").unlink()
    assert cache.open(tmp_path)[SPLIT].provenance == {}
    assert caplog.records == []
