"""`plan`: what would run, and why. Nothing is written or computed."""

import json
import os
import threading

import pytest

import cache
from pipeline.cli import progress
from pipeline.conversion.committed import rejected_videos
from pipeline.datasets.penn_action import PennAction
from pipeline.features.spec import StreamSpec
from pipeline.files.raw import changes
from pipeline.recipe.recipe import plan_splits
from tests.packages import BROKEN, install
from tests.waiting import await_that


@pytest.fixture
def plan(penn, ran, luigi_cfg):
    """The output of `plan` for Penn Action's train split."""
    luigi_cfg()
    words = ("plan", "penn_action/train")
    return lambda *more, code=0: str(ran(*words, *more, code=code).out)


@pytest.fixture
def as_json(plan):
    return lambda *more, code=0: json.loads(plan("--json", *more, code=code))[0]


def test_with_nothing_to_do_no_content_is_read_and_no_file_is_changed(
    penn, network, plan, as_json, monkeypatch
):
    penn.converted("fast")
    before = penn.everything()
    # changed source code is no reason
    monkeypatch.setattr(PennAction, "read", lambda *_: pytest.fail("read a label"))
    monkeypatch.setattr(
        "pipeline.crops.crop_person", lambda *_, **__: pytest.fail("computed something")
    )
    monkeypatch.setattr(
        changes, "video_digest", lambda *_: pytest.fail("read the content of an input")
    )
    split = as_json()
    assert (split["nothing_to_do"], split["problems"]) == (True, [])
    assert split["convert"]["videos"] == {"read": 0, "of": 6, "kept": 6, "touched": 0}
    assert penn.everything() == before


def test_rows_and_shards_that_a_stream_lacks_are_counted(
    penn, into, network, small_shards, as_json
):
    penn.converted()  # 24 rows in shards of 16
    into.extract(penn.root)
    penn.edit("0003")
    penn.convert()
    (stream,) = as_json()["extract"]
    assert stream == {
        "stream": "resnet50",
        "why": "the split has changed",
        "identity": [],
        "shards": 1,
        "rows": 8,
    }
    into.extract(penn.root)
    penn.remove("0005")
    penn.convert()
    (plan,) = plan_splits([penn.recipe(StreamSpec())])
    assert plan.up_to_date, "a commit that only removes leaves a stream complete"


@pytest.fixture
def by_cfg(penn, luigi_cfg, ran):
    """What `plan` shows by a luigi.cfg: `by_cfg("amass", datasets="penn_action amass").out`."""

    def by_cfg(*words, code=0, **settings):
        luigi_cfg(**settings)
        return ran("plan", *words, code=code)

    return by_cfg


def test_real_data_and_an_untrained_network_are_a_problem_before_anything_is_converted(
    penn, by_cfg, into, network
):
    penn.without_marker()
    untrained = {"more": "[resnet50]\nweights = untrained:0"}
    for _ in ("before the conversion", "after it"):
        shown = by_cfg(penn.name, code=2, **untrained)
        assert "[resnet50] weights = untrained:0: random weights are for demo data" in shown.out
        penn.convert()
    into.extract(penn.root)  # by the command extract, which is allowed and marked
    by_cfg(penn.name, **untrained)  # nothing would be extracted, so nothing is refused


@pytest.fixture
def dances(site):
    """A dataset of a package whose module is not Python; the start of its error."""
    install(site, "dances", BROKEN, dances_reader="def videos(:\n")
    return "dataset 'dances' of package dances"


def test_a_broken_package_whose_rows_are_in_the_cache_does_not_end_status_nor_doctor(
    dances, penn, luigi_cfg, ran
):
    penn.converted()
    (penn.root / "penn_action").rename(penn.root / "dances")
    ran("gc", "--cache", penn.root)  # it forgets the old name
    # its raw folder is there, and cannot be listed
    shown = ran("status", "--cache", penn.root, "--json", code=1)
    assert [row["split"] for row in json.loads(shown.out)] == ["dances/train"]
    assert shown.err.startswith(f"! {dances}")
    luigi_cfg("penn_action dances")
    assert rejected_videos(cache.open(penn.root)["dances/train"])[0] == 0, "for the report"
    shown = ran("doctor", "--json", code=1)
    assert json.loads(shown.out)["examined"][0]["dataset"] == "penn_action"
    assert shown.err.startswith(f"! {dances}")


@pytest.mark.parametrize(
    "words", [("plan",), ("doctor",), ("convert", "penn_action", "train", "--cache", "cache")]
)
def test_a_folder_that_takes_long_to_list_is_no_silence(words, penn, luigi_cfg, ran, monkeypatch):
    luigi_cfg()
    raw = ("--raw", penn.raw) if words[0] == "convert" else ()
    monkeypatch.chdir(penn.raw.parent)
    assert " raw files" not in ran(*words, *raw).err
    monkeypatch.setattr(progress, "SLOW", 0.01)
    scan = os.scandir

    def is_waiting():
        return any(isinstance(thread, threading.Timer) for thread in threading.enumerate())

    def scan_late(*place):
        await_that(lambda: not is_waiting())  # until it has printed its line
        return scan(*place)

    monkeypatch.setattr(os, "scandir", scan_late)
    assert " raw files" in ran(*words, *raw).err


@pytest.mark.parametrize(
    "file", ["manifest.json", "tables/track_start-*/c/0", "features/resnet50/manifest.json"]
)
def test_a_damaged_split_is_a_problem_of_its_own(file, penn, network, luigi_cfg, ran):
    penn.converted("fast")
    penn.convert("test")
    (damaged,) = (penn.root / penn.name).glob(file)
    damaged.write_bytes(damaged.read_bytes()[:20])
    luigi_cfg()
    shown = ran("plan", code=2)
    assert "✗ " in shown.out
    assert str(damaged) in shown.out
    assert "penn_action/test" in shown.out, "the other split is planned all the same"
    (train, test) = json.loads(ran("plan", "--json", code=2).out)
    assert len(train["problems"]) == 1
    assert test["problems"] == []


def test_a_stream_to_import_is_no_work_for_extract(penn, plan, as_json, luigi_cfg):
    luigi_cfg(more="[features]\nstreams = mine\n[mine]\nkind = imported\ndim = 6")
    assert "import   mine: all rows of the conversion" in plan()
    penn.converted()
    shown = plan(code=2)
    assert "stream 'mine' is imported and cannot be extracted (not extracted before)" in shown
    assert f"import FILE {penn.name} --format arrays --as mine --cache" in shown
    assert "extract " not in shown
    assert as_json(code=2)["extract"][0]["why"] == ""
