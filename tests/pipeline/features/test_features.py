"""Rows -> a feature stream: the right pixels of the right rows, each computed once, and what cannot
be is told.
"""

import shutil
from dataclasses import replace

import numpy as np
import torch

import cache
from pipeline.errors import PipelineError
from pipeline.features.committed import weights_of
from pipeline.features.spec import StreamSpec
from pipeline.features.streams import network
from pipeline.features.streams.network import ResNet50
from pipeline.features.weights import KINDS, WeightsSpec
from pipeline.files.raw.files import whole_file_digest
from pipeline.steps.extraction import extract
from pipeline.steps.extraction.plan import plan_extraction
from tests.raising import cache_refuses, pipeline_refuses

PENN = "penn_action/train"


def keep_a_little(penn):
    """Three frames of one video: the real network takes its time."""
    penn.remove(*(label.stem for label in (penn.raw / "labels").iterdir() if label.stem != "0001"))
    for picture in sorted(penn.frames("0001").iterdir())[3:]:
        picture.unlink()


def test_terms_are_recorded_not_compared(
    penn, into, types, tmp_path, small_backbone, small_resnet, monkeypatch
):
    torch.save(small_resnet().state_dict(), tmp_path / "weights.pt")
    keep_a_little(penn)
    penn.without_marker()
    penn.convert()
    given = {
        "weights": WeightsSpec("file", str(tmp_path / "weights.pt")),
        "device": "cpu",
        "batch_size": 3,
    }
    with monkeypatch.context() as patch:  # weights without terms
        patch.setattr(WeightsSpec, "terms", lambda _: {})
        into.extract(penn.root, **given)
    before = penn.split.open_stream("resnet50").manifest
    held = into.tree(penn.root)
    assert "licence" not in before["backbone"]
    assert not before["stand_in"] and not before["backbone"]["stand_in"]
    assert "standardisation" not in before["backbone"]
    assert before["identity"]["weights"].keys() == {"kind", "file_sha256"}
    moved = WeightsSpec(
        "file", str(shutil.copy(tmp_path / "weights.pt", tmp_path / "elsewhere.pt"))
    )
    # the content counts, not the path
    assert plan_extraction(penn.root, PENN, into.spec(weights=moved)).up_to_date
    types("status --cache CACHE", "licence not recorded")
    assert into.tree(penn.root) == held
    for video, text in (("0007", "not known"), ("0009", "another text")):
        network._loaded_network.cache_clear()
        monkeypatch.setitem(KINDS, "file", replace(KINDS["file"], licence=text))
        penn.add(video)
        penn.convert()
        assert into.extract(penn.root, **given).kept == 0
        now = penn.split.open_stream("resnet50").manifest
        assert now["identity"] == before["identity"]
        record = weights_of(penn.split, "resnet50")
        assert (record["licence"], record["source"]) == (text, "a file")
        assert record["sha256"] == whole_file_digest(tmp_path / "weights.pt")


def test_a_refused_extraction_leaves_no_folder(root, types, monkeypatch):
    def refuse(*_):
        raise PipelineError("the weights cannot be downloaded")

    monkeypatch.setattr(ResNet50, "load", refuse)
    before = sorted(root.rglob("*"))
    types(f"extract {PENN} --cache CACHE", "cannot be downloaded", code=2)
    assert sorted(root.rglob("*")) == before
    assert cache.verify(root).notes == []


def test_a_truncated_picture_is_marked_counted_and_kept_out_of_windows(penn, into, network):
    picture = penn.frames("0003") / "000003.jpg"
    good = picture.read_bytes()
    picture.write_bytes(good[:-50] + bytes(50))  # as a disk that fails gives it: the size is right
    penn.convert()
    done = into.extract(penn.root)
    assert (done.computed, done.problems) == (23, {"picture_truncated": 1})
    assert np.isnan(penn.rows("features/resnet50")["0003/0"][2]).all()
    split = penn.split
    (start,) = (track.start for track in split.tracks if track.name == "0003/0")
    windows = split.windows(2, 2, "resnet50")
    assert [w[0] - start for w in windows.tolist() if start <= w[0] < start + 8] == [0, 3, 5]
    assert np.isfinite(split.read(windows, stream="resnet50")["features"]).all()
    # It is tried again when it is asked for.
    picture.write_bytes(good)
    assert plan_extraction(penn.root, PENN, StreamSpec()).up_to_date
    done = into.extract(penn.root, replace=True)
    assert (done.computed, done.problems) == (24, {})
    assert plan_extraction(penn.root, PENN, StreamSpec()).up_to_date
    # There is nothing to discard where there is no stream, so a killed replacement goes on when it
    # is started again.
    new = plan_extraction(penn.root, PENN, StreamSpec(name="other"), replace=True)
    assert (new.replace, new.why) == (False, "not extracted before")


def test_a_stream_keeps_its_weights_and_others_go_beside_it(penn, root, into, network):
    into.extract(root)
    held = into.tree(root)
    other = WeightsSpec("untrained", "1")
    for changed in ({"weights": other}, {"precision": "exact"}):
        with pipeline_refuses(r"'resnet50' was extracted differently: .*--stream NAME.*--replace"):
            into.extract(root, **changed)
    assert into.tree(root) == held
    assert plan_extraction(root, PENN, into.spec()).up_to_date

    into.extract(root, weights=other, name="other")
    assert penn.split.streams == ("other", "resnet50")
    assert {path: data for path, data in into.tree(root).items() if path in held} == held

    spec = into.spec(weights=other)
    replacing = plan_extraction(root, PENN, spec, replace=True)
    assert (replacing.replace, replacing.why) == (True, "--replace")
    network.batches.clear()
    assert (extract.extract_together([replacing])[0].computed, len(network.batches)) == (24, 2)
    assert penn.split.open_stream("resnet50").manifest["identity"]["weights"]["argument"] == "1"
    assert cache.verify(root).ok


def test_a_stream_without_a_manifest_or_of_another_program_is_left_alone_and_can_be_replaced(
    penn, root, into, network
):
    into.extract(root)
    held = penn.rows("features/resnet50")
    (root / PENN / "features/resnet50/manifest.json").unlink()
    with cache_refuses("--replace"):
        into.extract(root)
    assert into.extract(root, replace=True).computed == 24
    found = penn.rows("features/resnet50")
    assert all(np.array_equal(found[track], rows) for track, rows in held.items())
    n_rows = penn.split.manifest["rows"]
    with cache.StreamWriter(
        root, PENN, "other", cache.StreamForm(2048), plan="of another program"
    ) as writer:
        writer.write(
            0,
            np.zeros((n_rows, 2048), np.float32),
            np.ones(n_rows),
            np.zeros((n_rows, 2), np.uint64),
        )
        writer.commit({})
    with pipeline_refuses(r"'other' has no recorded identity.*--replace"):
        into.extract(root, name="other")


def test_a_stream_is_not_discarded_for_one_that_cannot_be_made(
    root, into, tmp_path, monkeypatch, request
):
    real = ResNet50.load
    request.getfixturevalue("network")
    into.extract(root)
    held = into.tree(root)
    with pipeline_refuses("does not exist"):
        into.extract(
            root, weights=WeightsSpec("untrained", "1"), raw=tmp_path / "nowhere", replace=True
        )
    monkeypatch.setattr(ResNet50, "load", real)
    (tmp_path / "weights.pt").write_bytes(b"no checkpoint")
    with pipeline_refuses(r"weights\.pt"):
        into.extract(root, weights=WeightsSpec("file", str(tmp_path / "weights.pt")), replace=True)
    assert into.tree(root) == held
