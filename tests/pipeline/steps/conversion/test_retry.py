"""`convert --retry`: videos that failed are read again, changed or not."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from numpy.testing import assert_equal

import cache
from pipeline import datasets, table
from pipeline.datasets.penn_action import PennAction
from pipeline.errors import PipelineError
from pipeline.steps.conversion import convert
from tests.fixtures import planned, planned_again


def retry_split(root, name="penn_action/train", *, body=None):
    return convert.convert(planned_again(cache.open(root)[name], body=body))


def test_a_corrected_reader_gets_its_video_though_no_file_has_changed(penn, into, tmp_path, reads):
    into.convert(tmp_path / "intact", penn.raw)
    reads.fail("0003")
    penn.convert()
    reads.clear()
    done = retry_split(penn.root)
    assert (reads.names, done.document["rejected"]) == (["0003"], {})
    assert done.document["accounting"]["videos"] == {
        "found": 3,
        "kept": 3,
        "set_aside": {},
        "without_tracks": 0,
    }
    assert_equal(penn.rows("kp_2d"), into.rows(tmp_path / "intact", penn.name, "kp_2d"))
    assert cache.verify(penn.root).ok
    assert penn.plan().up_to_date


def test_what_fails_in_the_same_way_stays_where_it_is(penn, types):
    retry = "convert penn_action/train --retry --cache CACHE"
    before = penn.spoil("0005", "0003")
    penn.convert()
    committed = penn.split.manifest["digest"]
    why = "2 videos read, 1 unchanged (why: 2 unreadable videos)"
    types(retry, why, "0003: bad_label_file: ", code=1)
    assert penn.split.manifest["digest"] == committed
    penn.label("0003").write_bytes(before)
    assert "rejected 0003" not in types(retry, "rejected 0005", code=1)
    names = penn.split.videos.names
    assert names[-1] == "0003"  # appended; 0005 is where it was
    assert names.index("0005") < names.index("0006")
    penn.raw.rename(penn.root.with_name("moved"))
    types(retry, "--raw DIR", code=2)
    types(f"{retry} --raw TMP/moved", "rejected 0005", code=1)


def test_options_of_the_reader_are_those_of_the_conversion(embedded, tmp_path):
    raw, root = embedded.copy("amass", tmp_path / "amass"), tmp_path / "cache"
    file = sorted(raw.rglob("*_poses.npz"))[0]
    before = file.read_bytes()
    file.write_bytes(before[: len(before) // 2])
    decimated = datasets.get("amass", resampling="decimate")
    convert.convert(planned(decimated, "train", raw=raw, root=root))
    file.write_bytes(before)
    assert retry_split(root, "amass/train").document["rejected"] == {}
    assert (
        cache.open(root)["amass/train"].manifest["reader"]["parameters"]["resampling"] == "decimate"
    )


@dataclass(frozen=True)
class SmoothPenn(PennAction):
    smooth: float = 0.5
    added: ClassVar[Mapping[str, Any]] = {"smooth": 0.0}


def test_an_option_that_did_not_exist_yet_has_the_value_that_changes_nothing_not_its_default(
    penn, monkeypatch
):
    penn.convert()
    monkeypatch.setitem(table.OWN[datasets.ENTRY_POINTS], "penn_action", f"{__name__}:SmoothPenn")
    assert planned_again(penn.split).recipe.dataset == SmoothPenn(smooth=0.0)
    assert planned_again(penn.split).up_to_date
    assert not penn.plan(dataset=SmoothPenn()).up_to_date


def test_the_body_of_the_conversion_is_used_again_and_asked_for_where_it_is_not_recorded(
    embedded, into, tmp_path
):
    raw, root = embedded.copy("3dpw", tmp_path / "3dpw"), tmp_path / "cache"
    file = next((raw / "sequenceFiles/train").iterdir())
    before = file.read_bytes()
    file.write_bytes(before[:100])
    into.convert(root, raw, "3dpw", body=embedded.body)
    file.write_bytes(before)
    other = Path(shutil.copytree(root, tmp_path / "other"))
    assert retry_split(root, "3dpw/train").document["rejected"] == {}
    assert "kp_3d" in cache.open(root)["3dpw/train"].columns
    notes = other / "3dpw/train/provenance.json"
    recorded = json.loads(notes.read_text())
    for commit in recorded["commits"].values():
        del commit["body"]
    notes.write_text(json.dumps(recorded))
    with pytest.raises(PipelineError, match="--body DIR"):
        retry_split(other, "3dpw/train")
    assert retry_split(other, "3dpw/train", body=embedded.body).document["rejected"] == {}
