"""From raw files to evaluated part dynamics: its embedding, its streams, its training, in their order."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import cache

SMALL = {"hidden_size": "8", "batch_size": "2", "iterations": "2", "epochs": "1"}
SPLITS = ("3dpw/test", "3dpw/train", "3dpw/validation")


@pytest.mark.slow
def test_one_command_trains_the_embedding_extracts_by_it_trains_and_evaluates(project, build, tasks_command) -> None:
    own = {"datasets_2d": "", "strides": "3dpw/train:4", "seqlen": "6", "regressor_size": "8", "width": "8"}
    project.configure(
        {
            "pose_embedding": SMALL | {"poses_3d": "", "validation": "", "eval_poses": "10"},
            "part_dynamics": SMALL | own | {"delta": "2", "baseline": "false"},
        }
    )
    ran = build(project, "EvaluatePartDynamics")
    assert ran.code == 0, ran.shown
    streams = [f"extract {split} {name}" for split in SPLITS for name in ("homography", "pr_vipe")]
    assert sorted(ran.done[:-1]) == sorted([*streams, "train Pr-VIPE"])
    assert ran.done[-1] == "train Part dynamics, partdyn-embedded"
    (folder,) = (run for run in project.runs if run.name.startswith("partdyn"))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["stand_in"]
    assert metrics["reads"] == ["resnet50", "pr_vipe", "homography"]
    assert metrics["3dpw/test"]["keypoints"] == "detected"  # 3DPW's are
    with (folder / "results.csv").open() as rows:
        assert "Part dynamics, keypoints detected" in {row["model"] for row in csv.DictReader(rows)}

    opened = cache.open(project.folder / "cache")
    identities = {name: opened["3dpw/train"].stream_manifest(name)["identity"] for name in ("pr_vipe", "homography")}
    assert identities["pr_vipe"]["weights"]["kind"] == "file"
    windows = opened["3dpw/train"].windows(1, 1, streams=("pr_vipe", "homography"))
    read = opened["3dpw/train"].read(windows, streams=("pr_vipe",), fields=("pr_vipe", "pr_vipe_ok"))
    assert np.isfinite(read["pr_vipe"]).all()
    assert read["pr_vipe_ok"].any()

    again = build(project, "EvaluatePartDynamics")
    assert again.done == []
    # Another embedding: all rows of its stream, none of the homographies, and another run.
    project.configure({"pose_embedding": {"seed": "1"}})
    other = build(project, "EvaluatePartDynamics")
    assert [word for word in other.done if "homography" in word] == []
    assert sum("pr_vipe" in word for word in other.done) == 3
    assert sum(run.name.startswith("partdyn") for run in project.runs) == 2
    # The command and a split of the cache.
    place = ("--cache", str(project.folder / "cache"), "--checkpoint", str(folder / "best.pt"))
    code, shown = tasks_command(project, "predict", "3dpw/test", *place)
    assert code != 0
    assert "expected pr_vipe as those that" in " ".join(shown.split())
