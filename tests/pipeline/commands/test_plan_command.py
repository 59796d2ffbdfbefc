"""`plan`: what would run, and why. Nothing is written or computed."""

import json

import pytest

import cache
from pipeline.datasets.penn_action import PennAction
from pipeline.features.spec import StreamSpec
from pipeline.files.raw import changes
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.next_run import plan_runs
from tests.packages import BROKEN, install


@pytest.fixture
def as_json(penn, types_json, luigi_cfg):
    """What `plan` says of Penn Action's train split."""
    luigi_cfg()
    return lambda code=0: types_json("plan penn_action/train", code)[0]


@pytest.mark.promise("incremental")
def test_with_nothing_to_do_no_content_is_read_and_no_file_is_changed(
    penn, network, as_json, monkeypatch
):
    penn.converted("fast")
    before = penn.everything()
    # changed source code is no reason
    monkeypatch.setattr(PennAction, "read", lambda *_: pytest.fail("read a label"))
    monkeypatch.setattr(
        "pipeline.people.boxes.crop_person", lambda *_, **__: pytest.fail("computed something")
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
        "shards": 1,
        "rows": 8,
    }
    into.extract(penn.root)
    penn.remove("0005")
    penn.convert()
    (plan,) = plan_runs([penn.recipe(StreamSpec())])
    assert plan.up_to_date, "a commit that only removes leaves a stream complete"


def test_real_data_and_an_untrained_network_are_a_problem_before_anything_is_converted(
    penn, luigi_cfg, types, into, network
):
    penn.without_marker()
    luigi_cfg(more="[resnet50]\nweights = untrained:0")
    plan = "plan penn_action/train"
    types(f"{plan} --set resnet50.weights=spin:no.pt", "no.pt: file not found", code=2)
    for _ in ("before the conversion", "after it"):
        said = "[resnet50] weights = untrained:0: random weights are for demo data"
        types(plan, said, code=2)
        penn.convert()
    into.extract(penn.root)  # by the command extract, which is allowed and marked
    types(plan)  # nothing would be extracted, so nothing is refused


@pytest.fixture
def dances(site):
    """A dataset of a package whose module is not Python; the start of its error."""
    install(site, "dances", BROKEN, dances_reader="def videos(:\n")
    return "dataset 'dances' of package dances"


def test_a_broken_package_whose_rows_are_in_the_cache_does_not_end_status_nor_doctor(
    dances, penn, luigi_cfg, command_line
):
    penn.converted()
    (penn.root / "penn_action").rename(penn.root / "dances")
    command_line("gc --cache CACHE")  # it forgets the old name
    # its raw folder is there, and cannot be listed
    shown = command_line("status --cache CACHE --json", code=1)
    assert [row["split"] for row in json.loads(shown.out)] == ["dances/train"]
    assert shown.err.startswith(f"! {dances}")
    luigi_cfg("penn_action dances")
    assert ConversionRecord(cache.open(penn.root)["dances/train"]).n_rejected == 0, "for the report"
    planned = command_line("plan", code=2)
    assert "penn_action/test" in planned.out and planned.err.startswith(f"! {dances}")
    shown = command_line("doctor --json", code=1)
    assert json.loads(shown.out)["examined"][0]["dataset"] == "penn_action"
    assert shown.err.startswith(f"! {dances}")


@pytest.mark.parametrize(
    "file", ["manifest.json", "tables-*.npz", "features/resnet50/manifest.json"]
)
def test_a_damaged_split_is_a_problem_of_its_own(file, penn, network, luigi_cfg, types, types_json):
    penn.converted("fast")
    penn.convert("test")
    (damaged,) = (penn.root / penn.name).glob(file)
    damaged.write_bytes(damaged.read_bytes()[:20])
    luigi_cfg()
    # the other split is planned all the same
    types("plan", "error: ", str(damaged), "penn_action/test", code=2)
    (train, test) = types_json("plan", code=2)
    assert (len(train["problems"]), test["problems"]) == (1, [])


def test_a_stream_to_import_is_no_work_for_extract(penn, types, as_json, luigi_cfg):
    luigi_cfg(more="[features]\nstreams = mine\n[mine]\nkind = imported\ndim = 6")
    types("plan penn_action/train", "import mine: all rows of the conversion")
    penn.converted()
    refused = "stream 'mine' is imported and cannot be extracted (not extracted before)"
    advice = f"import FILE {penn.name} --format arrays --as mine --cache"
    assert "extract " not in types("plan penn_action/train", refused, advice, code=2)
    assert as_json(code=2)["extract"][0]["why"] == ""
