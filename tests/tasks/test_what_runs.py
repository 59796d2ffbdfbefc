"""A change costs what it touches: which tasks run after it, and which do not."""

import json
import shutil

import pytest

from pipeline.__main__ import main
from tasks import EvaluateVIBE, Synthesize, TrainVIBE
from tests.results import read_file


def motion_of(project):
    return sorted((project.folder / "raw/amass").rglob("*_poses.npz"))[0]


def add_video(project):
    added = sorted((project.folder / "spare").iterdir())[0]
    shutil.copy2(added, project.folder / "raw/3dpw/sequenceFiles/train" / added.name)
    return added


@pytest.mark.promise("incremental")
def test_of_a_new_dataset_alone_everything_runs(project, build):
    motion_of(project).touch()
    project.configure("[data]\ndatasets = 3dpw amass penn_action")
    ran = build(project, "Data")
    assert ran.code == 0
    stages = [
        f"{stage} penn_action/{split}"
        for stage in ("convert", "extract")
        for split in ("test", "train")
    ]
    assert sorted(ran.done[:-1]) == stages
    assert ran.done[-1] == "data 3 datasets"
    assert "· extract 3dpw/train up to date" in ran.words
    assert "· convert amass/train new file times of 1 video" in ran.words


def results(folder):
    return read_file(folder / "metrics.json")


def test_splits_with_nothing_to_do_succeed_when_demo_data_is_made_again(project, build):
    before = project.files()
    shutil.rmtree(project.folder / "raw/amass")
    ran = build(project, "Data")
    assert (ran.code, ran.failures, ran.done) == (
        0,
        [],
        ["synthesize embedded data", "data 2 datasets"],
    ), ran.shown
    assert "convert 3dpw/train up to date" in ran.words
    assert {name for name, status in project.files().items() if before.get(name) != status} <= {
        name
        for name in before
        if "amass/" in name and name.count("/") <= 3  # file times
    }


def test_without_streams_data_are_tracks_alone_and_a_training_says_that_it_reads_one(
    project, build
):
    project.configure("[data]\ndatasets = 3dpw penn_action\n[features]\nstreams =")
    ran = build(project, "Data")
    assert ran.code == 0, ran.shown
    assert sorted(ran.done) == [
        "convert penn_action/test",
        "convert penn_action/train",
        "data 2 datasets",
    ]
    assert "extract" not in ran.words
    failure = build(project, "TrainVIBE").shown
    assert "[features] streams: is empty, and models read the first stream" in failure


@pytest.mark.promise("one recipe")
def test_completeness_follows_the_raw_files_and_is_asked_again(project, within):
    within(project)
    assert EvaluateVIBE().complete()
    within(project)
    motion = motion_of(project)
    away = motion.rename(project.folder / "away.npz")
    assert not TrainVIBE().complete()
    assert not EvaluateVIBE().complete()
    assert (project.runs[0] / "results.csv").is_file()
    away.rename(motion)  # as a task in another process would restore it
    assert TrainVIBE().complete()
    project.configure("[embedded]\nseed = 1")
    within(project)
    assert not Synthesize().complete()
    assert not EvaluateVIBE().complete()


@pytest.mark.promise("one recipe")
def test_plan_lists_what_runs_and_why(project, build, within, capsys):
    within(project)
    project.configure("[amass]\nresampling = decimate")
    added = add_video(project)
    assert main(["plan", "--json"]) == 0
    todo = {split["split"]: split for split in json.loads(capsys.readouterr().out)}
    assert [name for name, split in todo.items() if not split["nothing_to_do"]] == [
        "3dpw/train",
        "amass/train",
    ]
    assert todo["3dpw/train"]["convert"]["new"] == [added.stem]
    assert todo["amass/train"]["convert"]["why"] == "parameters.resampling was slerp, is decimate"
    done = ["convert 3dpw/train", "convert amass/train", "data 2 datasets", "extract 3dpw/train"]
    assert sorted(build(project, "Data").done) == done
    assert main(["plan"]) == 0
    assert "4 splits" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.promise("one recipe")
def test_commands_by_hand_and_tasks_find_each_others_work_up_to_date(
    project, build, capsys, monkeypatch
):
    def by_hand(command, split, *more):
        raw = (
            ("--raw", str(project.folder / "raw" / split.partition("/")[0]))
            if command == "convert"
            else ()
        )
        assert main([command, split, "--cache", str(project.folder / "cache"), *raw, *more]) == 0
        return capsys.readouterr().out

    project.configure("[amass]\nresampling = decimate")
    assert build(project, "Convert", dataset="amass", split="train").done == ["convert amass/train"]
    assert "up to date, " in by_hand("convert", "amass/train")
    assert "up to date, " in by_hand("convert", "3dpw/train"), "with the body of luigi.cfg"
    assert "resnet50 is up to date" in by_hand("extract", "3dpw/train")
    assert "converted" in by_hand("convert", "amass/train", "--set", "amass.resampling=slerp")
    monkeypatch.setenv("PIPELINE_SET", "amass.resampling=slerp")
    ran = build(project, "Data")
    assert (ran.code, ran.done) == (0, [])


@pytest.mark.slow
def test_several_workers_of_luigi_see_what_the_others_have_done(project):
    shutil.rmtree(project.folder / "cache/amass")
    project.configure("[data]\ndatasets = amass 3dpw")
    ran = project.luigi("Data", "--workers", "2")
    assert ran.code == 0, ran.shown
    assert ran.done == ["convert amass/train", "data 2 datasets"]


def test_nothing_is_planned_below_what_is_missing(bare, within, monkeypatch):
    within(bare)
    fail = lambda *args, **kwargs: pytest.fail("there is no embedded data yet")  # noqa: E731
    monkeypatch.setattr("tasks.data.plan_conversion", fail)
    assert not EvaluateVIBE().complete()


def test_a_training_by_hand_warns_of_rows_that_are_not_extracted_and_of_2d_labels_alone(
    project, build, tasks_command
):
    add_video(project)
    build(project, "Convert", dataset="3dpw", split="train")
    project.configure("[vibe]\ndatasets_2d = 3dpw/train\ndatasets_3d =\nprior = none")
    code, shown = tasks_command(project, "train")
    assert code == 0
    assert "rows not extracted yet, and so not trained on: " in shown
    assert "depth is not learned" in shown
