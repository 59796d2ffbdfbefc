"""Crops kept in the cache: what the network saw, once, for every other stream."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import extract
from pipeline.features.streams.crops import Crops

PENN = "penn_action/train"

pytestmark = pytest.mark.usefixtures("small_shards")


def extract_crops(root: Path, into: Any, quality: int = 95, name: str = "crops") -> extract.Extraction:
    return into.extract(root, name=name, stream=Crops(quality=quality))


def test_many_extractions_hold_nothing(root: Path, into: Any) -> None:
    held = []
    for number in range(4):
        extract_crops(root, into, quality=90 - number, name=f"crops{number}")
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        held.append((len([*Path("/proc/self/fd").iterdir()]), len(children)))
    assert held[-1] == held[1], held  # the first one starts what all of them share


def test_a_picture_that_could_not_be_read_stays_so(root: Path, penn: Any, into: Any, network: Any) -> None:
    shutil.rmtree(root)
    picture = penn.frames("0003") / "000003.jpg"
    picture.write_bytes(picture.read_bytes()[:-50])
    penn.convert()
    assert extract_crops(root, into).problems == {"picture_truncated": 1}
    done = into.extract(root, crops="crops")
    assert (done.computed, done.problems) == (23, {"crop_missing": 1})
    assert "could not be read when crops were extracted" in done.examples[0]
    ok = penn.rows("features/resnet50_ok")["0003/0"]
    assert ok.tolist() == [1, 1, 0, 1, 1, 1, 1, 1]


def test_what_is_no_stream_of_crops_or_lags_is_refused(root: Path, penn: Any, into: Any, network: Any) -> None:
    with pytest.raises(PipelineError, match=r"there is no stream of crops 'crops'\. Extract it first: --stream crops"):
        into.extract(root, crops="crops")
    into.extract(root)
    with pytest.raises(PipelineError, match="the stream 'resnet50' holds no crops"):
        into.extract(root, name="other", crops="resnet50")
    with pytest.raises(ConfigError, match="cannot be computed from itself"):
        into.spec(crops="resnet50")
    extract_crops(root, into)
    penn.add("0007")
    penn.convert()
    with pytest.raises(PipelineError, match=r"'crops' lacks 8 of the rows\. Extract those first"):
        into.extract(root, name="other", crops="crops")
    assert extract_crops(root, into).computed == 8
    assert into.extract(root, name="other", crops="crops").computed == 32


def test_a_lost_shard_of_crops_and_of_what_came_of_them_is_repaired(
    root: Path, into: Any, network: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    extract_crops(root, into)
    into.extract(root, name="again", crops="crops")
    whole = into.tree(root)
    for name in ("crops/c/1", "again/c/0/0"):
        file = root / PENN / "features" / name
        data = bytearray(file.read_bytes())
        data[5] ^= 1
        file.write_bytes(data)
    assert main(["verify", "--repair", "--cache", str(root)]) == 0
    capsys.readouterr()
    assert into.tree(root) == whole


def test_the_commands_do_it_too(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["extract", *PENN.split("/"), "--cache", str(root)]
    assert main([*base, "--kind", "crops", "--set", "quality=90"]) == 0
    assert "24 rows computed" in capsys.readouterr().out
    assert main([*base, "--kind", "crops", "--set", "quality=90"]) == 0
    assert "crops is up to date" in capsys.readouterr().out
    for wrong, said in (
        (["--kind", "crops", "--set", "quality=good"], "quality = good: expected a whole number"),
        (["--kind", "crops", "--set", "size=3"], "--set [crops] size: unknown key; known: crop, quality"),
        (["--kind", "crops", "--weights", "untrained:0"], "[crops] weights: unknown key; known: crop, quality"),
        (["--kind", "crops", "--set", "quality"], "--set quality: expected NAME=VALUE"),
        (["--kind", "crops", "--set", "quality=3", "--set", "quality=4"], "set to '3'"),
        (["--set", "quality=3"], "quality: unknown key; known: crop"),
        (["--kind", "crop"], "no stream is called 'crop'"),
        (["--weights", "untrained:0", "--set", "weights=untrained:1"], "weights is set twice"),
    ):
        assert main([*base, *wrong]) == 2
        assert said in capsys.readouterr().err
