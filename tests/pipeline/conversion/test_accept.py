"""`accept`: a person says that a difference does not matter; rows stay, and what was said stays readable."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import loadmat, savemat

import cache
from pipeline import datasets
from pipeline.__main__ import main
from pipeline.conversion import accepted, convert
from pipeline.conversion.differences import Difference, differing, replaced
from pipeline.datasets.penn_action import PennAction
from pipeline.errors import PipelineError
from pipeline.features.plan import is_current
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.maintenance import accept
from pipeline.maintenance.accept import Acceptance
from pipeline.maintenance.overview import plan_split
from pipeline.raw import changes
from pipeline.raw.stand_in import MARKER
from pipeline.settings.targets import Wanted, by_folders

NAME = "penn_action/train"
WHY = "checked by hand: the same numbers"


@pytest.fixture
def penn(embedded: Any, tmp_path: Path) -> Path:
    """A copy of the embedded Penn Action: videos 0001, 0003 and 0005 are of train, 8 frames each."""
    return embedded.copy("penn_action", tmp_path / "penn_action")


@pytest.fixture
def root(penn: Path, into: Any, tmp_path: Path) -> Path:
    """A cache of it."""
    into.convert(tmp_path / "cache", penn)
    return tmp_path / "cache"


def wanted(penn: Path, root: Path, stream: StreamSpec | None = None) -> Wanted:
    return by_folders("penn_action", "train", raw=penn, root=root, stream=stream)


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def accept_penn(penn: Path, root: Path, *more: object) -> int:
    return run("accept", "penn_action", "train", "--raw", penn, "--cache", root, *more)


def edit_label(penn: Path, name: str) -> None:
    """Move all joints by a pixel."""
    file = penn / f"labels/{name}.mat"
    label = {key: value for key, value in loadmat(file).items() if not key.startswith("__")}
    savemat(file, label | {"x": label["x"] + 1})


def weights(folder: Path, content: bytes) -> WeightsSpec:
    """A checkpoint's file: what is in it is nobody's business here."""
    (folder / "weights.pt").write_bytes(content)
    return WeightsSpec("file", str(folder / "weights.pt"))


def said(root: Path, stream: str | None = None) -> list[Any]:
    split = cache.open(root)[NAME]
    return [dict(r) for r in accepted.records(split.manifest if stream is None else split.stream_manifest(stream))]


def numbers(root: Path, into: Any) -> dict[str, np.ndarray]:
    return into.rows(root, NAME, "kp_2d")


@pytest.fixture
def raised(root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The version that the cache was made with; the reader is one further by now."""
    was = PennAction.version
    monkeypatch.setattr(PennAction, "version", was + 1)
    return was


def test_a_raised_version_is_accepted_without_reading_a_video(
    penn: Path, root: Path, raised: int, into: Any, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = numbers(root, into)
    monkeypatch.setattr(PennAction, "read", lambda *_: pytest.fail("no video may be read"))
    assert accept_penn(penn, root, "--because", WHY) == 0
    assert said(root) == [{"part": "version", "was": raised, "is": raised + 1, "because": WHY}]
    assert plan_split(wanted(penn, root)).nothing_to_do
    np.testing.assert_equal(numbers(root, into), before)
    assert cache.verify(root).ok


def test_a_stream_that_had_every_row_still_has_after_its_split_was_accepted(
    penn: Path, root: Path, into: Any, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    into.extract(root)
    before = (root / NAME / "features/resnet50/manifest.json").read_bytes()
    monkeypatch.setattr(PennAction, "version", PennAction.version + 1)
    assert accept_penn(penn, root, "--because", WHY) == 0
    assert plan_split(wanted(penn, root, StreamSpec())).nothing_to_do
    assert (root / NAME / "features/resnet50/manifest.json").read_bytes() == before


def test_a_parameter_is_accepted_by_its_name_and_the_others_stay(
    embedded: Any, into: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, root = embedded.raw("amass"), tmp_path / "cache"
    reader = type(datasets.get("amass"))
    monkeypatch.setattr(reader, "parameters", lambda self: {"fps": 25, "old": 1})
    into.convert(root, raw, "amass")
    monkeypatch.setattr(reader, "parameters", lambda self: {"fps": 30, "new": 2})
    amass = by_folders("amass", "train", raw=raw, root=root)
    accept.accept(accept.propose(amass, parts=["parameters.fps"]), WHY)
    assert cache.open(root)["amass/train"].manifest["reader"]["parameters"] == {"fps": 30, "old": 1}
    assert [str(d) for d in accept.propose(amass).parts] == [
        "parameters.new was not set, is 2",
        "parameters.old was 1, is not set",
    ]
    accept.accept(accept.propose(amass), WHY)
    assert plan_split(amass).nothing_to_do


def test_another_body_is_accepted_where_the_columns_stay(embedded: Any, into: Any, tmp_path: Path) -> None:
    body, root = tmp_path / "body", tmp_path / "cache"
    shutil.copytree(embedded.body, body)
    into.convert(root, embedded.raw("3dpw"), "3dpw", body=body)
    regressor = np.load(body / "J_regressor_extra.npy")
    np.save(body / "J_regressor_extra.npy", regressor.astype(np.float64) * (1 + 1e-9))
    here = by_folders("3dpw", "train", raw=embedded.raw("3dpw"), root=root, body=body)
    assert [d.part for d in accept.propose(here).parts] == ["body"]
    accept.accept(accept.propose(here), WHY)
    assert plan_split(here).nothing_to_do
    assert cache.open(root)["3dpw/train"].provenance["body"] == str(body.resolve())
    without = by_folders("3dpw", "train", raw=embedded.raw("3dpw"), root=root)
    with pytest.raises(PipelineError, match="columns stay the same"):
        accept.propose(without)


def test_changed_videos_count_as_what_lies_there_now(penn: Path, root: Path, into: Any) -> None:
    before = numbers(root, into)
    was = dict(zip(cache.open(root)[NAME].videos.names, cache.open(root)[NAME].videos.fingerprints, strict=True))
    for name in ("0003", "0004"):
        edit_label(penn, name)
    assert accept_penn(penn, root, "--because", WHY) == 0
    videos = {video.name: video for video in PennAction().videos(penn, "train")}
    assert said(root) == [
        {"part": f"video {name}", "was": was[name], "is": changes.video_digest(penn, videos[name]), "because": WHY}
        for name in ("0003", "0004")
    ]
    assert plan_split(wanted(penn, root)).nothing_to_do
    np.testing.assert_equal(numbers(root, into), before)
    assert cache.verify(root).ok
    edit_label(penn, "0003")
    assert convert.plan_conversion(PennAction(), "train", raw=penn, root=root).changed == ("0003",)


def test_only_the_videos_that_are_named_are_accepted(penn: Path, root: Path) -> None:
    for name in ("0001", "0003"):
        edit_label(penn, name)
    assert accept_penn(penn, root, "--video", "0003", "--because", WHY) == 0
    assert [record["part"] for record in said(root)] == ["video 0003"]
    assert convert.plan_conversion(PennAction(), "train", raw=penn, root=root).changed == ("0001",)


def test_named_parts_leave_changed_videos_to_the_conversion(penn: Path, root: Path, raised: int) -> None:
    edit_label(penn, "0003")
    assert accept_penn(penn, root, "--part", "version", "--because", WHY) == 0
    plan = convert.plan_conversion(PennAction(), "train", raw=penn, root=root)
    assert (plan.changed, plan.why) == (("0003",), "1 changed video")
    convert.convert(plan)
    assert [record["part"] for record in said(root)] == ["version"], "a later commit keeps what was said"


def test_changed_pictures_are_accepted_with_what_names_them_for_features(
    penn: Path, root: Path, into: Any, network: Any
) -> None:
    into.extract(root)
    features_before = into.rows(root, NAME, "features/resnet50")
    picture = penn / "frames/0003/000003.jpg"
    image = cv2.imread(str(picture))
    cv2.imwrite(str(picture), image, [cv2.IMWRITE_JPEG_QUALITY, 40])
    os.utime(penn / "frames/0003")  # in place, a picture changes no folder: then nobody looks
    assert accept_penn(penn, root, "--because", WHY) == 0
    assert [record["part"] for record in said(root)] == ["video 0003", "pixels of video 0003"]
    assert plan_split(wanted(penn, root, StreamSpec())).nothing_to_do
    np.testing.assert_equal(into.rows(root, NAME, "features/resnet50"), features_before)
    assert into.extract(root, replace=True).computed == 24, "the pictures that lie there now are those of the cache"


def test_pictures_of_another_size_are_not_accepted(penn: Path, root: Path) -> None:
    for picture in (penn / "frames/0003").iterdir():
        image = cv2.imread(str(picture))
        cv2.imwrite(str(picture), image[::2, ::2])
    os.utime(penn / "frames/0003")
    before = (root / NAME / "manifest.json").read_bytes()
    with pytest.raises(PipelineError, match="its boxes were made for"):
        accept.propose(wanted(penn, root))
    assert (root / NAME / "manifest.json").read_bytes() == before


def test_pictures_that_are_gone_are_not_accepted(penn: Path, root: Path) -> None:
    shutil.rmtree(penn / "frames/0003")
    with pytest.raises(PipelineError, match="put its pictures back"):
        accept.propose(wanted(penn, root))


@pytest.mark.parametrize("name", ["0001", "0005", "0003", "0009"])
def test_a_new_or_removed_video_is_refused_with_the_reason(name: str, penn: Path, root: Path) -> None:
    shutil.copy(penn / "labels/0001.mat", penn / "labels/0009.mat")
    shutil.copytree(penn / "frames/0001", penn / "frames/0009")
    (penn / "labels/0005.mat").unlink()
    shutil.rmtree(penn / "frames/0005")
    edit_label(penn, "0003")
    why = {"0001": "has not changed", "0005": "could never be made again", "0009": "is new: it must be converted"}
    if name in why:
        with pytest.raises(PipelineError, match=why[name]):
            accept.propose(wanted(penn, root), videos=[name])
    else:
        accept.accept(accept.propose(wanted(penn, root), videos=[name]), WHY)
    left = {"0003"} - {name}
    plan = convert.plan_conversion(PennAction(), "train", raw=penn, root=root)
    assert (set(plan.changed), plan.new, plan.removed) == (left, ("0009",), ("0005",))


def test_a_stand_in_is_never_accepted_as_real(penn: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (penn / MARKER).unlink()
    before = (root / NAME / "manifest.json").read_bytes()
    assert accept_penn(penn, root, "--because", WHY) == 2
    assert "a stand-in cannot count as real data" in capsys.readouterr().err
    assert (root / NAME / "manifest.json").read_bytes() == before


def test_without_a_reason_it_only_shows_what_differs(
    penn: Path, root: Path, raised: int, into: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = into.everything(root)
    assert accept_penn(penn, root) == 2
    told = capsys.readouterr()
    assert told.out == f"{NAME}: version was {raised}, is {raised + 1}\n"
    assert "--because TEXT" in told.err
    with pytest.raises(PipelineError, match="say why"):
        accept.accept(accept.propose(wanted(penn, root)), " \n")
    assert into.everything(root) == before


def test_with_nothing_to_accept_it_says_so(
    penn: Path, root: Path, into: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = into.everything(root)
    assert accept_penn(penn, root, "--because", WHY) == 2
    assert "nothing differs that could be accepted\n" in capsys.readouterr().err
    (penn / "labels/0005.mat").unlink()
    shutil.rmtree(penn / "frames/0005")
    assert accept_penn(penn, root, "--because", WHY) == 2
    assert "nothing differs that could be accepted; 1 removed video: that is to be converted" in capsys.readouterr().err
    assert accept_penn(penn, root, "--part", "version", "--because", WHY) == 2
    assert "'version' does not differ; what does: nothing" in capsys.readouterr().err
    assert into.everything(root) == before


def test_times_alone_are_remembered_without_a_commit(
    penn: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.utime(penn / "labels/0003.mat", ns=(1, 1))
    before = (root / NAME / "manifest.json").read_bytes()
    assert accept_penn(penn, root) == 0
    assert "times are remembered" in capsys.readouterr().out
    assert (root / NAME / "manifest.json").read_bytes() == before
    monkeypatch.setattr(changes, "video_digest", lambda *_: pytest.fail("nothing may be read any more"))
    assert plan_split(wanted(penn, root)).nothing_to_do


def test_what_was_accepted_is_told_by_status(
    penn: Path, root: Path, raised: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert accept_penn(penn, root, "--because", WHY) == 0
    capsys.readouterr()
    assert run("status", "--cache", root) == 0
    told = f"{NAME}: version was {raised}, is {raised + 1}: accepted, because {WHY}"
    assert f"· {told}\n" in capsys.readouterr().out
    assert run("status", "--cache", root, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["accepted"] == [told]


def test_records_go_with_the_rows_that_they_speak_of(
    penn: Path, root: Path, raised: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_label(penn, "0003")
    accept.accept(accept.propose(wanted(penn, root)), WHY)
    assert [record["part"] for record in said(root)] == ["version", "video 0003"]
    edit_label(penn, "0003")
    convert.convert(convert.plan_conversion(PennAction(), "train", raw=penn, root=root))
    assert [record["part"] for record in said(root)] == ["version"], "0003 came anew"
    monkeypatch.setattr(PennAction, "version", raised + 2)
    convert.convert(convert.plan_conversion(PennAction(), "train", raw=penn, root=root))
    assert said(root) == [], "all came anew"


def test_of_very_many_videos_one_record_speaks(penn: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "ONE_BY_ONE", 1)
    for name in ("0003", "0005"):
        edit_label(penn, name)
    accept.accept(accept.propose(wanted(penn, root)), WHY)
    (record,) = said(root)
    assert (record["part"], record["n_videos"], record["because"]) == ("videos", 2, WHY)
    assert record["was"] != record["is"]
    assert plan_split(wanted(penn, root)).nothing_to_do
    (told,) = accepted.in_words(cache.open(root)[NAME].manifest)
    assert told.startswith("2 videos was ")


# ------------------------------------------------------------------------------------------------------- unfinished


class Killed(BaseException):
    """What a kill looks like from inside."""


def kill_at(monkeypatch: pytest.MonkeyPatch, writer: type[Any], method: str, call: int) -> None:
    """End the process, as it were, at the n-th call of a writer's method."""
    original, calls = getattr(writer, method), iter(range(10**6))

    def killed(self: Any, *arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return original(self, *arguments, **named)

    monkeypatch.setattr(writer, method, killed)


def test_a_killed_conversion_is_not_thrown_away_unasked(
    penn: Path, into: Any, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "cache"
    for part in ("labels/0001.mat", "frames/0001"):
        shutil.move(penn / part, tmp_path / Path(part).name)
    into.convert(root, penn)
    for part in ("labels/0001.mat", "frames/0001"):
        shutil.move(tmp_path / Path(part).name, penn / part)
    for i in range(7, 10):  # so that a shard of 16 rows is finished
        shutil.copy(penn / "labels/0001.mat", penn / f"labels/{i:04d}.mat")
        shutil.copytree(penn / "frames/0001", penn / f"frames/{i:04d}")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, cache.SplitWriter, "commit", 0)
        into.convert(root, penn)
    edit_label(penn, "0003")
    journal = root / NAME / accept.WRITING / "journal.jsonl"
    before = journal.read_bytes()
    what = accept.propose(wanted(penn, root))
    with pytest.raises(PipelineError, match="a conversion was killed and has finished shards"):
        accept.accept(what, WHY)
    assert journal.read_bytes() == before
    accept.accept(what, WHY, discard_unfinished=True)
    assert not journal.exists()
    into.convert(root, penn)
    assert cache.verify(root).ok
    assert cache.open(root)[NAME].manifest["rows"] == 24 + 3 * 8


def test_a_commit_in_between_is_noticed(penn: Path, root: Path, into: Any, raised: int) -> None:
    what = accept.propose(wanted(penn, root))
    into.convert(root, penn)
    with pytest.raises(PipelineError, match="there has been a commit in the meantime"):
        accept.accept(what, WHY)
    assert said(root) == []


def test_an_acceptance_that_is_killed_has_changed_nothing(
    penn: Path, root: Path, raised: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_label(penn, "0003")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, cache.SplitWriter, "commit", 0)
        accept.accept(accept.propose(wanted(penn, root)), WHY)
    assert said(root) == []
    what = accept.propose(wanted(penn, root))
    assert ([d.part for d in what.parts], list(what.videos)) == (["version"], ["0003"])
    accept.accept(what, WHY)
    assert plan_split(wanted(penn, root)).nothing_to_do


# ---------------------------------------------------------------------------------------------------------- streams


def stream(penn: Path, root: Path, spec: StreamSpec, parts: tuple[str, ...] = ()) -> Acceptance:
    return accept.propose_for_stream(wanted(penn, root, spec), parts)


def test_a_checkpoint_that_was_saved_again_is_accepted(
    penn: Path, root: Path, into: Any, network: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = weights(tmp_path, b"one").identity()["file_sha256"]
    into.extract(root, weights=weights(tmp_path, b"one"))
    before = into.rows(root, NAME, "features/resnet50")
    backbone = cache.open(root)[NAME].stream_manifest("resnet50")["backbone"]
    spec = StreamSpec(stream=ResNet50(weights=weights(tmp_path, b"another")))
    assert plan_split(wanted(penn, root, spec)).problems
    arguments = ("--stream", "resnet50", "--weights", spec.stream.weights, "--because", WHY)
    assert accept_penn(penn, root, *arguments) == 0
    new = spec.stream.weights.identity()["file_sha256"]
    expected = [{"part": "weights.file_sha256", "was": old, "is": new, "because": WHY}]
    assert said(root, "resnet50") == expected
    manifest = cache.open(root)[NAME].stream_manifest("resnet50")
    assert (manifest["identity"], manifest["backbone"]) == (spec.identity(), backbone), "what made them stays said"
    assert capsys.readouterr().out.splitlines()[-1] == f"✓ {NAME}: nothing to do (3 videos, resnet50)"
    np.testing.assert_equal(into.rows(root, NAME, "features/resnet50"), before)
    network.batches.clear()
    edit_label(penn, "0003")
    into.convert(root, penn)
    into.extract(root, weights=spec.stream.weights)
    assert said(root, "resnet50") == expected, "a later commit keeps what was said"
    assert cache.verify(root).ok


def test_another_precision_and_version_are_accepted_one_by_one(
    penn: Path, root: Path, into: Any, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    into.extract(root)
    monkeypatch.setattr(ResNet50, "version", ResNet50.version + 1)
    spec = StreamSpec(stream=ResNet50(precision="exact"))
    accept.accept(stream(penn, root, spec, ("precision",)), WHY)
    assert [d.part for d in stream(penn, root, spec).parts] == ["version"]
    accept.accept(stream(penn, root, spec), WHY)
    assert plan_split(wanted(penn, root, spec)).nothing_to_do
    assert [record["part"] for record in said(root, "resnet50")] == ["precision", "version"]


def test_half_of_what_names_the_weights_is_not_accepted_alone(
    penn: Path, root: Path, into: Any, network: Any, tmp_path: Path
) -> None:
    into.extract(root, weights=WeightsSpec("torchvision", "IMAGENET1K_V2"))
    spec = StreamSpec(stream=ResNet50(weights=weights(tmp_path, b"the same tensors, in a file")))
    found = stream(penn, root, spec, ("weights.kind",))
    assert {d.part for d in found.parts} == {"weights.kind", "weights.argument", "weights.file_sha256"}
    accept.accept(found, WHY)
    assert cache.open(root)[NAME].stream_manifest("resnet50")["identity"] == spec.identity()


@pytest.mark.parametrize("now", ["untrained:1", "torchvision:IMAGENET1K_V2"])
def test_features_of_a_stand_in_are_never_those_of_another_network(
    now: str, penn: Path, root: Path, into: Any, network: Any
) -> None:
    into.extract(root)
    with pytest.raises(PipelineError, match="another network, whose features mean something else"):
        stream(penn, root, StreamSpec(stream=ResNet50(weights=WeightsSpec.parse(now))))


def test_another_kind_of_network_is_refused(
    penn: Path, root: Path, into: Any, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    into.extract(root)
    monkeypatch.setattr(ResNet50, "kind", "resnet101")
    with pytest.raises(PipelineError, match="kind was resnet50, is resnet101: that is another network"):
        stream(penn, root, StreamSpec(name="resnet50"))


def test_shards_of_a_killed_extraction_are_kept_and_the_stream_still_lags(
    penn: Path,
    into: Any,
    network: Any,
    small_shards: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    root, spec = tmp_path / "cache", StreamSpec(stream=ResNet50(weights=weights(tmp_path, b"one")))
    for part in ("labels/0001.mat", "frames/0001"):
        shutil.move(penn / part, tmp_path / Path(part).name)
    into.convert(root, penn)  # 16 rows: a shard
    into.extract(root, weights=spec.stream.weights)
    for part in ("labels/0001.mat", "frames/0001"):
        shutil.move(tmp_path / Path(part).name, penn / part)
    for i in (7, 9):  # with 0001 24 rows: two shards
        shutil.copy(penn / "labels/0001.mat", penn / f"labels/{i:04d}.mat")
        shutil.copytree(penn / "frames/0001", penn / f"frames/{i:04d}")
    into.convert(root, penn)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, cache.StreamWriter, "write", 1)
        into.extract(root, weights=spec.stream.weights)
    assert plan_split(wanted(penn, root, spec)).extractions[0].lacks.rows == 24

    again = StreamSpec(stream=ResNet50(weights=weights(tmp_path, b"saved again")))
    accept.accept(stream(penn, root, again), WHY)
    found = plan_split(wanted(penn, root, again))
    assert (found.problems, found.extractions[0].why) == ((), "the split has changed")
    assert found.extractions[0].lacks.rows == 8, "what the killed run had finished is committed, the rest is pending"
    assert not is_current(cache.open(root)[NAME], "resnet50")
    done = into.extract(root, weights=again.stream.weights)
    assert done.computed + done.carried == 8
    assert plan_split(wanted(penn, root, again)).nothing_to_do
    assert cache.verify(root).ok


def test_what_a_part_is_called_leads_back_to_it() -> None:
    before = {"version": 1, "parameters": {"fps": 25, "old": None, "same": 0}, "body": None}
    now = {"version": 2, "parameters": {"fps": 30, "new": [1], "same": 0}, "body": "ab"}
    found = differing(before, now)
    assert found == [
        Difference("body", None, "ab"),
        Difference("parameters.fps", 25, 30),
        Difference("parameters.new", None, [1]),
        Difference("version", 1, 2),
    ]
    assert differing(replaced(before, now, [d.part for d in found]), now) == []
