"""`accept`: the user decides that what differs of a stream does not matter; features stay, the reason is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline.commands.accept import accept, acceptable
from pipeline.commands.maintenance.overview import plan_split
from pipeline.conversion.identity import accepted
from pipeline.errors import PipelineError
from pipeline.features.plan import is_current
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import WeightsSpec

WHY = "checked by hand: the same numbers"


def records(penn: Any) -> list[Any]:
    return accepted(penn.split.stream_manifest("resnet50"))


def weights(folder: Path, content: bytes) -> WeightsSpec:
    """A checkpoint's file: its content does not matter here."""
    (folder / "weights.pt").write_bytes(content)
    return WeightsSpec("file", str(folder / "weights.pt"))


@pytest.fixture
def accept_penn(penn: Any, ran: Any) -> Any:
    """The command for a stream of Penn Action's train split, and what it prints."""

    def run(spec: StreamSpec, *options: str, code: int = 0) -> Any:
        own = ("--raw", penn.raw, "--cache", penn.root, "--stream", spec.name, "--weights", spec.stream.weights)
        return ran("accept", "penn_action", "train", *own, *options, code=code)

    return run


def test_a_checkpoint_that_was_saved_again_is_accepted(
    penn: Any, into: Any, network: Any, tmp_path: Path, accept_penn: Any, ran: Any
) -> None:
    penn.converted()
    old = weights(tmp_path, b"one").identity()["file_sha256"]
    into.extract(penn.root, weights=weights(tmp_path, b"one"))
    before, backbone = penn.rows("features/resnet50"), penn.split.stream_manifest("resnet50")["backbone"]
    spec = StreamSpec(stream=ResNet50(weights=weights(tmp_path, b"another")))
    assert plan_split(penn.target(spec)).problems
    before_commit = penn.everything()
    document = json.loads(accept_penn(spec, "--json").out)
    assert ("weights.file_sha256 was" in document["differs"][0], document["accepted"]) == (True, [])
    accept_penn(spec, "--because", " ", code=2)
    assert penn.everything() == before_commit
    accept_penn(spec, "--because", WHY)
    new = spec.stream.weights.identity()["file_sha256"]
    expected = [{"part": "weights.file_sha256", "was": old, "is": new, "because": WHY}]
    assert records(penn) == expected
    manifest = penn.split.stream_manifest("resnet50")
    assert (manifest["identity"], manifest["backbone"]) == (spec.identity(), backbone), "the network's record stays"
    assert plan_split(penn.target(spec)).up_to_date
    np.testing.assert_equal(penn.rows("features/resnet50"), before)
    (text,) = json.loads(ran("status", "--cache", penn.root, "--json").out)[0]["accepted"]
    assert text.endswith(f"accepted, because {WHY}")
    assert "nothing" in accept_penn(spec, "--because", WHY, code=2).err
    penn.edit("0003")
    penn.convert()
    into.extract(penn.root, weights=spec.stream.weights)
    assert records(penn) == expected, "a later commit keeps them"
    assert cache.verify(penn.root).ok


def test_precision_version_and_another_name_of_the_weights_are_accepted(
    penn: Any, into: Any, network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    penn.converted()
    into.extract(penn.root, weights=WeightsSpec("torchvision", "IMAGENET1K_V2"))
    monkeypatch.setattr(ResNet50, "version", ResNet50.version + 1)
    spec = StreamSpec(stream=ResNet50(precision="exact", weights=weights(tmp_path, b"the same tensors, in a file")))
    split = penn.split
    differences = acceptable(split, spec)
    expected = {"precision", "version", "weights.kind", "weights.argument", "weights.file_sha256"}
    assert {difference.part for difference in differences} == expected
    accept(split, spec, differences, WHY)
    with pytest.raises(PipelineError, match="committed in the meantime"):
        accept(split, spec, differences, WHY)
    assert plan_split(penn.target(spec)).up_to_date
    assert penn.split.stream_manifest("resnet50")["identity"] == spec.identity()


def test_features_of_an_untrained_network_or_of_another_kind_never_count_as_those_of_another(
    penn: Any, into: Any, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    penn.converted("fast")
    for now in ("untrained:1", "torchvision:IMAGENET1K_V2"):
        with pytest.raises(PipelineError, match="another network"):
            acceptable(penn.split, StreamSpec(stream=ResNet50(weights=WeightsSpec.parse(now))))
    monkeypatch.setattr(ResNet50, "kind", "resnet101")
    with pytest.raises(PipelineError, match=r"kind was resnet50, is resnet101.*another network"):
        acceptable(penn.split, StreamSpec(name="resnet50"))


def test_shards_of_a_killed_extraction_are_kept_and_the_stream_still_lacks_the_others(
    penn: Any, into: Any, network: Any, small_shards: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = StreamSpec(stream=ResNet50(weights=weights(tmp_path, b"one")))
    penn.remove("0005")
    penn.convert()  # 16 rows: a shard
    into.extract(penn.root, weights=spec.stream.weights)
    penn.add("0007", "0009", "0011")  # 24 rows: two shards
    penn.convert()
    left, write = [1], cache.StreamWriter.write
    with monkeypatch.context() as patch, pytest.raises(IndexError):  # as if killed before the second shard
        patch.setattr(cache.StreamWriter, "write", lambda *shard: write(*shard) if left.pop() else None)
        into.extract(penn.root, weights=spec.stream.weights)
    assert plan_split(penn.target(spec)).extractions[0].lacks.rows == 24

    again = StreamSpec(stream=ResNet50(weights=weights(tmp_path, b"saved again")))
    accept(penn.split, again, acceptable(penn.split, again), WHY)
    found = plan_split(penn.target(again))
    assert (found.problems, found.extractions[0].lacks.rows) == ([], 8)
    assert not is_current(penn.split, "resnet50")
    done = into.extract(penn.root, weights=again.stream.weights)
    assert done.computed + done.carried == 8
    assert plan_split(penn.target(again)).up_to_date
    assert cache.verify(penn.root).ok
