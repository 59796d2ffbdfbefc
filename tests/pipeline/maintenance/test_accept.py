"""`accept`: the user decides that a difference does not matter; rows stay, and the reason is recorded."""

from __future__ import annotations

import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cache
from pipeline import datasets
from pipeline.conversion.identity import accepted
from pipeline.conversion.plan import committed_split
from pipeline.datasets.penn_action import PennAction
from pipeline.errors import PipelineError
from pipeline.features.plan import is_current
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.maintenance.accept import Proposal, accept, propose, propose_for_stream
from pipeline.maintenance.overview import plan_split
from pipeline.raw import changes
from pipeline.settings.targets import Target

WHY = "checked by hand: the same numbers"


def proposal(target: Target) -> Proposal:
    return propose(committed_split(target.root, target.name), target)


def proposal_for_stream(penn: Any, spec: StreamSpec) -> Proposal:
    return propose_for_stream(penn.split, penn.target(spec))


def records(penn: Any, stream: str | None = None) -> list[Any]:
    return accepted(penn.split.manifest if stream is None else penn.split.stream_manifest(stream))


def weights(folder: Path, content: bytes) -> WeightsSpec:
    """A checkpoint's file: its content does not matter here."""
    (folder / "weights.pt").write_bytes(content)
    return WeightsSpec("file", str(folder / "weights.pt"))


@pytest.fixture
def raised(penn: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """The version of the reader that made the cache; the reader has the next one by now."""
    penn.converted()
    was = PennAction.version
    monkeypatch.setattr(PennAction, "version", was + 1)
    return was


@pytest.fixture
def accept_penn(penn: Any, ran: Any) -> Any:
    """The command for Penn Action's train split, and what it prints."""
    return functools.partial(ran, "accept", "penn_action", "train", "--raw", penn.raw, "--cache", penn.root)


def test_a_raised_version_is_accepted_without_reading_a_video_and_streams_stay_complete(
    penn: Any, accept_penn: Any, ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    penn.converted("fast")
    stream = (penn.root / penn.name / "features/resnet50/manifest.json").read_bytes()
    before, was = penn.rows("kp_2d"), PennAction.version
    monkeypatch.setattr(PennAction, "version", was + 1)
    monkeypatch.setattr(PennAction, "read", lambda *_: pytest.fail("no video may be read"))
    accept_penn("--because", WHY)
    assert records(penn) == [{"part": "version", "was": was, "is": was + 1, "because": WHY}]
    assert plan_split(penn.target(StreamSpec())).up_to_date
    np.testing.assert_equal(penn.rows("kp_2d"), before)
    assert (penn.root / penn.name / "features/resnet50/manifest.json").read_bytes() == stream
    assert cache.verify(penn.root).ok
    (text,) = json.loads(ran("status", "--cache", penn.root, "--json").out)[0]["accepted"]
    assert text == f"{penn.name}: version was {was}, is {was + 1}: accepted, because {WHY}"


def test_all_parameters_are_accepted_together(penn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PennAction, "parameters", lambda self: {"fps": 25, "old": 1})
    penn.convert()
    monkeypatch.setattr(PennAction, "parameters", lambda self: {"fps": 30, "new": 2})
    what = proposal(penn.target())
    assert [difference.part for difference in what.differences] == [
        f"parameters.{key}" for key in ("fps", "new", "old")
    ]
    accept(what, WHY)
    assert penn.split.manifest["reader"]["parameters"] == {"fps": 30, "new": 2}
    assert plan_split(penn.target()).up_to_date


@pytest.mark.slow
def test_another_body_is_accepted_where_the_columns_stay(embedded: Any, into: Any, ran: Any, tmp_path: Path) -> None:
    body, root, raw = Path(shutil.copytree(embedded.body, tmp_path / "body")), tmp_path / "cache", embedded.raw("3dpw")
    into.convert(root, raw, "3dpw", body=body)
    regressor = np.load(body / "J_regressor_extra.npy")
    np.save(body / "J_regressor_extra.npy", regressor.astype(np.float64) * (1 + 1e-9))
    here = Target(datasets.get("3dpw"), "train", raw, root, body)
    accept(proposal(here), WHY)
    assert plan_split(here).up_to_date
    assert cache.open(root)["3dpw/train"].provenance["body"] == str(body.resolve())
    with pytest.raises(PipelineError, match="columns stay the same"):
        proposal(Target(datasets.get("3dpw"), "train", raw, root))
    shown = ran("convert", "3dpw", "train", "--raw", raw, "--cache", root, code=2)
    assert shown.err.startswith(f"error: {root / '3dpw/train'}: was made from demo data with")


def test_changed_videos_count_as_the_files_that_are_there_now(penn: Any, accept_penn: Any) -> None:
    penn.converted()
    before = penn.rows("kp_2d")
    for video in ("0003", "0004"):
        penn.edit(video)
    accept_penn("--because", WHY)
    (record,) = records(penn)
    assert (record["part"], record["n_videos"], record["names"]) == ("videos", 2, ["0003", "0004"])
    assert record["was"] != record["is"]
    videos = {video.name: video for video in PennAction().videos(penn.raw, "train")}
    assert penn.plan().digests()["0003"] == changes.video_digest(penn.raw, videos["0003"])
    assert plan_split(penn.target()).up_to_date
    np.testing.assert_equal(penn.rows("kp_2d"), before)
    assert cache.verify(penn.root).ok
    penn.edit("0003")
    assert penn.plan().changed == ("0003",)


def test_changed_pictures_are_accepted_and_features_stay(penn: Any, into: Any, network: Any, accept_penn: Any) -> None:
    penn.converted("fast")
    before = penn.rows("features/resnet50")
    picture = penn.frames("0003") / "000003.jpg"
    cv2.imwrite(str(picture), cv2.imread(str(picture)), [cv2.IMWRITE_JPEG_QUALITY, 40])
    os.utime(penn.frames("0003"))  # in place, a picture changes no folder
    accept_penn("--because", WHY)
    assert plan_split(penn.target(StreamSpec())).up_to_date
    np.testing.assert_equal(penn.rows("features/resnet50"), before)
    assert into.extract(penn.root, replace=True).computed == 24


def test_pictures_of_another_size_are_refused(penn: Any) -> None:
    penn.converted()
    before = penn.everything()
    for picture in penn.frames("0003").iterdir():
        cv2.imwrite(str(picture), cv2.imread(str(picture))[::2, ::2])
    os.utime(penn.frames("0003"))
    with pytest.raises(PipelineError, match="boxes"):
        proposal(penn.target())
    assert penn.everything() == before


def test_new_and_removed_videos_are_left_to_the_conversion(penn: Any) -> None:
    penn.converted()
    penn.add("0009")
    penn.remove("0005")
    penn.edit("0003")
    what = proposal(penn.target())
    assert list(what.videos) == ["0003"]
    accept(what, WHY)
    plan = penn.plan()
    assert (plan.changed, plan.new, [*plan.missing]) == ((), ("0009",), ["0005"])


def test_what_cannot_be_accepted_is_an_error_and_changes_nothing(
    penn: Any, raised: int, accept_penn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = penn.everything()
    first, second, *_ = accept_penn().out.splitlines()  # without a reason, the differences are shown
    assert first == f"{penn.name}: version was {raised}, is {raised + 1}"
    assert "--because TEXT" in second
    with pytest.raises(PipelineError, match="--because"):
        accept(proposal(penn.target()), " \n")
    monkeypatch.setattr(PennAction, "version", raised)
    assert "nothing differs" in accept_penn("--because", WHY, code=2).err
    penn.remove("0006")
    assert "1 removed video" in accept_penn("--because", WHY, code=2).err
    penn.without_marker()
    assert "real data" in accept_penn("--because", WHY, code=2).err
    assert penn.everything() == before


def test_times_alone_are_remembered_without_a_commit(
    penn: Any, accept_penn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    penn.converted()
    os.utime(penn.label("0003"), ns=(1, 1))
    before = (penn.root / penn.name / "manifest.json").read_bytes()
    assert "times are recorded" in accept_penn().out
    assert (penn.root / penn.name / "manifest.json").read_bytes() == before
    monkeypatch.setattr(changes, "video_digest", lambda *_: pytest.fail("no content may be read any more"))
    assert plan_split(penn.target()).up_to_date


def test_records_stay_until_all_rows_are_converted_again(
    penn: Any, raised: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(proposal(penn.target()), WHY)
    penn.edit("0003")
    penn.convert()
    assert [record["part"] for record in records(penn)] == ["version"]
    monkeypatch.setattr(PennAction, "version", raised + 2)
    penn.convert()
    assert records(penn) == []


# ------------------------------------------------------------------------------------------------------- unfinished


class Killed(BaseException):
    """What a kill looks like from inside."""


def kill_at(monkeypatch: pytest.MonkeyPatch, writer: type[Any], method: str, call: int) -> None:
    """Raise Killed at the n-th call of a writer's method."""
    original, calls = getattr(writer, method), iter(range(10**6))

    def killed(self: Any, *arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return original(self, *arguments, **named)

    monkeypatch.setattr(writer, method, killed)


def test_shards_of_a_killed_conversion_are_not_lost_by_accepting(
    penn: Any, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    penn.converted()
    penn.add("0007", "0008", "0009")  # so that a shard of 16 rows is finished
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, cache.SplitWriter, "commit", 0)
        penn.convert()
    penn.edit("0003")
    journal = penn.root / penn.name / ".writing/journal.jsonl"
    before, what = journal.read_bytes(), proposal(penn.target())
    with pytest.raises(PipelineError, match="gc --unfinished"):
        accept(what, WHY)
    assert journal.read_bytes() == before
    cache.gc(penn.root, unfinished=True)
    accept(what, WHY)
    penn.convert()
    assert cache.verify(penn.root).ok
    assert penn.split.manifest["rows"] == 24 + 3 * 8


def test_a_commit_in_between_is_noticed(penn: Any, raised: int) -> None:
    what = proposal(penn.target())
    penn.convert()
    with pytest.raises(PipelineError, match="committed in the meantime"):
        accept(what, WHY)
    assert records(penn) == []


def test_an_acceptance_that_is_killed_has_changed_nothing(
    penn: Any, raised: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    penn.edit("0003")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, cache.SplitWriter, "commit", 0)
        accept(proposal(penn.target()), WHY)
    assert records(penn) == []
    what = proposal(penn.target())
    assert ([difference.part for difference in what.differences], list(what.videos)) == (["version"], ["0003"])
    accept(what, WHY)
    assert plan_split(penn.target()).up_to_date


# ---------------------------------------------------------------------------------------------------------- streams


def test_a_checkpoint_that_was_saved_again_is_accepted(
    penn: Any, into: Any, network: Any, tmp_path: Path, accept_penn: Any
) -> None:
    penn.converted()
    old = weights(tmp_path, b"one").identity()["file_sha256"]
    into.extract(penn.root, weights=weights(tmp_path, b"one"))
    before, backbone = penn.rows("features/resnet50"), penn.split.stream_manifest("resnet50")["backbone"]
    spec = StreamSpec(stream=ResNet50(weights=weights(tmp_path, b"another")))
    assert plan_split(penn.target(spec)).problems
    accept_penn("--stream", "resnet50", "--weights", spec.stream.weights, "--because", WHY)
    new = spec.stream.weights.identity()["file_sha256"]
    expected = [{"part": "weights.file_sha256", "was": old, "is": new, "because": WHY}]
    assert records(penn, "resnet50") == expected
    manifest = penn.split.stream_manifest("resnet50")
    assert (manifest["identity"], manifest["backbone"]) == (spec.identity(), backbone), "the network's record stays"
    assert plan_split(penn.target(spec)).up_to_date
    np.testing.assert_equal(penn.rows("features/resnet50"), before)
    penn.edit("0003")
    penn.convert()
    into.extract(penn.root, weights=spec.stream.weights)
    assert records(penn, "resnet50") == expected, "a later commit keeps them"
    assert cache.verify(penn.root).ok


def test_precision_version_and_another_name_of_the_weights_are_accepted(
    penn: Any, into: Any, network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    penn.converted()
    into.extract(penn.root, weights=WeightsSpec("torchvision", "IMAGENET1K_V2"))
    monkeypatch.setattr(ResNet50, "version", ResNet50.version + 1)
    spec = StreamSpec(stream=ResNet50(precision="exact", weights=weights(tmp_path, b"the same tensors, in a file")))
    what = proposal_for_stream(penn, spec)
    expected = {"precision", "version", "weights.kind", "weights.argument", "weights.file_sha256"}
    assert {difference.part for difference in what.differences} == expected
    accept(what, WHY)
    assert plan_split(penn.target(spec)).up_to_date
    assert penn.split.stream_manifest("resnet50")["identity"] == spec.identity()


def test_features_of_an_untrained_network_or_of_another_kind_never_count_as_those_of_another(
    penn: Any, into: Any, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    penn.converted("fast")
    for now in ("untrained:1", "torchvision:IMAGENET1K_V2"):
        with pytest.raises(PipelineError, match="another network"):
            proposal_for_stream(penn, StreamSpec(stream=ResNet50(weights=WeightsSpec.parse(now))))
    monkeypatch.setattr(ResNet50, "kind", "resnet101")
    with pytest.raises(PipelineError, match=r"kind was resnet50, is resnet101.*another network"):
        proposal_for_stream(penn, StreamSpec(name="resnet50"))


def test_shards_of_a_killed_extraction_are_kept_and_the_stream_still_lacks_the_others(
    penn: Any, into: Any, network: Any, small_shards: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = StreamSpec(stream=ResNet50(weights=weights(tmp_path, b"one")))
    penn.remove("0005")
    penn.convert()  # 16 rows: a shard
    into.extract(penn.root, weights=spec.stream.weights)
    penn.add("0007", "0009", "0011")  # 24 rows: two shards
    penn.convert()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, cache.StreamWriter, "write", 1)
        into.extract(penn.root, weights=spec.stream.weights)
    assert plan_split(penn.target(spec)).extractions[0].lacks.rows == 24

    again = StreamSpec(stream=ResNet50(weights=weights(tmp_path, b"saved again")))
    accept(proposal_for_stream(penn, again), WHY)
    found = plan_split(penn.target(again))
    assert (found.problems, found.extractions[0].lacks.rows) == ([], 8)
    assert not is_current(penn.split, "resnet50")
    done = into.extract(penn.root, weights=again.stream.weights)
    assert done.computed + done.carried == 8
    assert plan_split(penn.target(again)).up_to_date
    assert cache.verify(penn.root).ok
