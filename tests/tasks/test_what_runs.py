"""A change costs what it touches: which tasks run after it, and which do not."""

from __future__ import annotations

import json
import shutil

import pytest

import cache
from pipeline.__main__ import main
from tasks import EvaluateVIBE, Synthesize, TrainVIBE
from tasks.settings import settings

WEIGHTS = "[features] stream"


def amass_motions(project):
    return sorted((project.folder / "raw/amass").rglob("*_poses.npz"))


def test_a_dataset_that_is_newly_enabled_is_all_that_is_converted_and_extracted(project, build) -> None:
    project.configure({"data": {"datasets": "3dpw amass penn_action"}})
    ran = build(project, "Data")
    assert ran.code == 0
    stages = [f"{stage} penn_action/{split}" for stage in ("convert", "extract") for split in ("test", "train")]
    assert sorted(ran.done[:-1]) == stages
    assert ran.done[-1] == "data 3 datasets"
    assert "· extract 3dpw/train up to date, nothing to do" in " ".join(ran.shown.split())


@pytest.mark.slow
def test_an_added_video_runs_its_splits_stages_and_what_depends_on_them(project, build) -> None:
    added = sorted((project.folder / "spare").iterdir())[0]
    shutil.copy2(added, project.folder / "raw/3dpw/sequenceFiles/train" / added.name)
    first = project.runs
    ran = build(project, "EvaluateVIBE")
    assert ran.code == 0, ran.shown
    stages = ["convert 3dpw/train", "extract 3dpw/train", "data 2 datasets", "train VIBE, tiny"]
    assert ran.done == stages
    assert "1 video read, 1 as before: 2 videos, " in ran.shown
    assert "why: 1 new video" in ran.shown
    assert next(line for line in ran.shown.splitlines() if "extract    3dpw/train" in line).split()[3:5] == [
        "24",
        "rows",
    ]
    assert len(project.runs) == 2, "the numbers may differ: another run, beside the old one"
    assert first[0] in project.runs
    assert build(project, "EvaluateVIBE").done == []


def test_a_removed_video_makes_everything_below_it_incomplete_although_all_files_are_there(project, within) -> None:
    within(project)
    assert EvaluateVIBE().complete()
    amass_motions(project)[0].unlink()
    within(project)
    assert not EvaluateVIBE().complete()
    assert (project.runs[0] / "results.csv").is_file()


def test_another_seed_of_the_embedded_data_makes_everything_incomplete(project, within) -> None:
    project.configure({"embedded": {"seed": "1"}})
    within(project)
    assert not Synthesize().complete()
    assert not EvaluateVIBE().complete()


def test_a_restored_video_is_recognised_by_its_content(project, build) -> None:
    motion = amass_motions(project)[0]
    content = motion.read_bytes()
    motion.unlink()
    motion.write_bytes(content)
    before = project.files()
    assert build(project, "EvaluateVIBE").done == []
    assert project.files() == before


def test_what_plan_tells_is_what_runs_and_what_was_accepted_does_not(project, build, capsys) -> None:
    settings_of = ("--config", str(project.cfg))
    project.configure({"amass": {"resampling": "decimate"}})
    added = sorted((project.folder / "spare").iterdir())[0]
    shutil.copy2(added, project.folder / "raw/3dpw/sequenceFiles/train" / added.name)
    assert main(["plan", *settings_of, "--json"]) == 0
    todo = {split["split"]: split for split in json.loads(capsys.readouterr().out)}
    assert [name for name, split in todo.items() if not split["nothing_to_do"]] == ["3dpw/train", "amass/train"]
    assert todo["3dpw/train"]["convert"]["new"] == [added.stem]
    assert todo["amass/train"]["convert"]["why"] == "parameters.resampling was slerp, is decimate"
    assert main(["accept", "amass/train", *settings_of, "--because", "30 fps already"]) == 0
    ran = build(project, "Data")
    assert ran.done == ["convert 3dpw/train", "extract 3dpw/train", "data 2 datasets"]
    assert main(["plan", *settings_of]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "nothing to do: 4 splits converted and extracted (training is not looked at)"
    )


def test_other_training_settings_train_anew_and_keep_what_was_trained_before(project, build) -> None:
    kept = {path: path.read_bytes() for path in project.runs[0].rglob("*") if path.is_file()}
    project.configure({"train": {"lr_generator": "1e-3", "strides": "3dpw/train:2", "epochs": "1"}})
    ran = build(project, "EvaluateVIBE")
    assert ran.code == 0, ran.shown
    assert ran.done == ["train VIBE, tiny"]
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(project.runs) == 2
    new = next(folder for folder in project.runs if folder not in {path.parent for path in kept})
    config = json.loads((new / "config.json").read_text())["config"]
    assert (config["lr_generator"], config["strides"], config["epochs"]) == (1e-3, {"3dpw/train": 2}, 1)


def test_other_weights_are_refused_with_what_to_do(project, build) -> None:
    project.configure({"features": {"weights": "untrained:1"}})
    before = project.files()
    ran = build(project, "EvaluateVIBE")
    assert ran.code == 1
    assert len(ran.failures) == 3, "one line for each split that has pixels"
    assert all("untrained" in line and WEIGHTS in line and "--replace" in line for line in ran.failures)
    assert "Traceback" not in ran.shown
    assert project.files() == before


def test_other_weights_go_into_a_stream_of_another_name(project, build) -> None:
    project.configure({"features": {"weights": "untrained:1", "stream": "other"}})
    ran = build(project, "Data")
    assert ran.done == [*(f"extract 3dpw/{split}" for split in ran_splits(ran)), "data 2 datasets"]
    assert (project.folder / "cache/3dpw/train/features/resnet50").is_dir()
    assert (project.folder / "cache/3dpw/train/features/other").is_dir()


def ran_splits(ran) -> list[str]:
    names = [line.split("/")[1] for line in ran.done if line.startswith("extract")]
    assert sorted(names) == ["test", "train", "validation"]
    return names


def test_several_workers_of_luigi_find_what_the_others_have_done(project) -> None:
    shutil.rmtree(project.folder / "cache/amass")
    project.configure({"data": {"datasets": "amass 3dpw"}})
    ran = project.luigi("Data", "--workers", "2")
    assert ran.code == 0, ran.shown
    assert ran.done == ["convert amass/train", "data 2 datasets"]


def test_that_a_task_is_incomplete_is_not_remembered(project, within) -> None:
    within(project)
    motion = amass_motions(project)[0]
    away = motion.rename(project.folder / "away.npz")
    assert not TrainVIBE().complete()
    away.rename(motion)  # as a task that ran in another process would have mended it
    assert TrainVIBE().complete()


def test_a_task_asks_for_settings_only_when_it_is_asked(bare, within, tmp_path) -> None:
    within(bare)
    assert settings().paths.cache == tmp_path / "bare" / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pipeline.conversion.convert.plan_conversion", lambda *args, **kwargs: pytest.fail("nothing may be planned")
        )
        assert not EvaluateVIBE().complete(), "there is no embedded data yet: nothing below it needs to be looked at"


@pytest.mark.slow
def test_a_stream_of_crops_that_features_come_from_is_extracted_first(project, build, capsys) -> None:
    project.configure(
        {"features": {"stream": "other", "crops": "crops"}, "crops": {"quality": "90"}, "data": {"datasets": "3dpw"}}
    )
    assert main(["plan", "--config", str(project.cfg)]) == 0
    said = capsys.readouterr().out
    assert said.index("extract  crops: ") < said.index("extract  other: ")
    ran = build(project, "Data")
    assert ran.code == 0, ran.shown
    first, then = ran.done.index("extract 3dpw/train crops"), ran.done.index("extract 3dpw/train")
    assert first < then
    split = cache.open(project.folder / "cache")["3dpw/train"]
    assert split.stream_manifest("other")["identity"]["crops"] == {"kind": "crops", "version": 1, "quality": 90}
    assert build(project, "Data").done == []
    assert main(["plan", "--config", str(project.cfg)]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "nothing to do: 3 splits converted and extracted (training is not looked at)"
    )
