"""Numbers of grades that are stored after commits, and read in place of rows."""

import contextlib
import dataclasses
import re
import shutil

import numpy as np
import pytest

import cache
from pipeline import grades
from pipeline.extras.exchange.arrays import import_array
from pipeline.grades.stored import StoredGrades
from pipeline.grades.words import MEASURES
from pipeline.steps import grading
from tests.made_splits import track_of, write_split
from tests.trees import tree

NAME = "penn_action/train"
NOT_STORED = "grades not stored yet"


def measures_file(root, name=NAME):
    return root / name / "measures.npz"


def import_joints(root, tmp_path, name=NAME, n_rows=24):
    """A stream of BlazePose's joints, which shake."""
    joints = np.random.default_rng(0).normal(0, 0.3, (n_rows, 33, 4)).astype(np.float32)
    joints[..., 3] = 1
    np.save(tmp_path / "joints.npy", joints)
    return import_array(tmp_path / "joints.npy", root, name, grades.BLAZE_JOINTS)


@pytest.fixture
def forbidden(monkeypatch):
    """No grade is computed from stored rows."""

    def fail(*_):
        raise AssertionError("a grade was computed")

    monkeypatch.setattr(grading, "video_grades", fail)


@contextlib.contextmanager
def ends_early():
    """The run within ends between its commit and its measures."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoredGrades, "write", interrupt)
        yield


@pytest.mark.parametrize("name", ["penn_action", "3dpw", "amass"])
def test_tables_of_grades_are_those_of_the_rows_without_the_file(name, root, tmp_path, ran):
    copy = shutil.copytree(root, tmp_path / "copy")
    for option in ("--csv", "--tracks"):
        words = ("status", f"{name}/train", "--cache", copy, option)
        stored = ran(*words).out
        assert measures_file(copy, f"{name}/train").exists()
        measures_file(copy, f"{name}/train").rename(tmp_path / "taken")
        assert ran(*words).out == stored
        (tmp_path / "taken").rename(measures_file(copy, f"{name}/train"))


def test_stored_grades_are_read_without_rows(penn, types, ran):
    penn.converted()
    words = ("status", "--cache", penn.root, "--tracks")
    whole = ran(*words).out
    assert whole.count(",good,") == 3
    shutil.rmtree(penn.root / NAME / "kp_2d/c")
    assert ran(*words).out == whole
    measures_file(penn.root).unlink()
    types("status --cache CACHE --tracks", "no grades: ", code=1)


def test_a_changed_limit_changes_words_without_a_run(penn, types, types_json, monkeypatch):
    penn.converted()
    stricter = dataclasses.replace(MEASURES["visible_percent"], doubtful=95)
    monkeypatch.setitem(MEASURES, "visible_percent", stricter)
    types("status --cache CACHE", "penn_action/train: 3 tracks: 2 good, 1 doubtful")
    (split,) = types_json("status --cache CACHE")
    assert split["grades"] == {"good": 2, "doubtful": 1, "bad": 0, "unknown": 0}
    assert penn.plan().up_to_date


def test_what_is_not_known_is_not_good(tmp_path, types, ran):
    rows = {"frame_index": np.arange(20), "bbox": np.full((20, 4), 90.0, np.float32)}
    seen = rows | {"kp_2d": np.ones((20, 49, 3), np.float32)}
    tracks = [track_of("a/0", rows), track_of("a/1", seen)]
    root = tmp_path / "cache"
    write_split(root, "made/train", [(cache.VideoEntry(name="a"), tracks)])
    types("status --cache CACHE", f"made/train: {NOT_STORED}")
    grading.store_grades(root, "made/train")
    types("status --cache CACHE", "made/train: 2 tracks: 1 good, 1 unknown")
    assert re.search("a/0,20,,no joints", ran("status", "--cache", root, "--tracks").out)


def test_tracks_whose_rows_cannot_be_read_are_unknown(penn, types):
    penn.converted()
    measures_file(penn.root).unlink()
    shutil.rmtree(penn.root / NAME / "kp_2d/c")
    grading.store_grades(penn.root, NAME)
    types("status --cache CACHE", "penn_action/train: 3 tracks: 3 unknown")


@pytest.mark.parametrize("how", ["at once", "after a kill", "in parts"])
def test_a_conversion_stores_what_its_readers_have_graded(
    how, penn, small_shards, forbidden, tmp_path, run
):
    if how == "after a kill":
        done = []

        def end(n_done, *_):
            done.append(n_done)
            if n_done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            penn.convert(progress=end)
    elif how == "in parts":
        assert run("convert", NAME, *penn.places, "--part", "1/1") == 0
        assert not measures_file(penn.root).exists()
    penn.convert()
    assert grading.stored_words(penn.split) == {"good": 3, "doubtful": 0, "bad": 0, "unknown": 0}
    before = tree(penn.root)
    penn.add("0007")
    penn.remove("0005")
    penn.convert()
    assert grading.stored_words(penn.split)["good"] == 4
    assert before != tree(penn.root)


def test_what_readers_have_graded_is_what_rows_give(penn):
    penn.convert()
    stored = measures_file(penn.root).read_bytes()
    measures_file(penn.root).unlink()
    grading.store_grades(penn.root, NAME)
    assert measures_file(penn.root).read_bytes() == stored


@pytest.mark.parametrize("before", ["nothing", "a split", "a split without measures"])
def test_a_run_that_ends_before_it_has_stored_them_is_finished_by_the_next(
    before, penn, tmp_path, types
):
    if before != "nothing":
        penn.converted()
        penn.add("0007")
    if before == "a split without measures":
        measures_file(penn.root).unlink()
        penn.remove("0005")  # the second commit only drops a video
        penn.remove("0007")
    calm = type(penn)(penn.raw, tmp_path / "calm", None)
    if before != "nothing":
        shutil.copytree(penn.root, calm.root)
    command = "convert penn_action/train --raw RAW/penn_action --drop-removed --cache"
    types(f"{command} {calm.root}")
    with ends_early():
        types(f"{command} CACHE", "interrupted", code=130)
    assert penn.split.manifest == calm.split.manifest
    assert tree(penn.root) != tree(calm.root)
    types("status --cache CACHE", f"{NAME}: {NOT_STORED}", "a killed run left something to finish")
    types(f"{command} CACHE", "a killed run left something to finish")
    assert tree(penn.root) == tree(calm.root)
    types("status --cache CACHE", f"{len(penn.split.tracks)} tracks: ")


def test_a_cache_that_has_none_has_nothing_to_do(penn, into, types):
    penn.convert()
    measures_file(penn.root).unlink()
    before = into.everything(penn.root)
    assert penn.plan().up_to_date
    types("convert penn_action/train --raw RAW/penn_action --cache CACHE", "up to date")
    types("status --cache CACHE", f"{NAME}: {NOT_STORED}")
    assert into.everything(penn.root) == before


def test_joints_of_a_stream_are_graded_after_its_commit(tmp_path, types, ran):
    root = tmp_path / "cache"
    rows = {"frame_index": np.arange(40), "bbox": np.full((40, 4), 90.0, np.float32)}
    rows |= {"kp_2d": np.ones((40, 49, 3), np.float32)}
    first, second = (
        [(cache.VideoEntry(name=video), [track_of(f"{video}/0", rows)])] for video in "ab"
    )
    write_split(root, "made/train", first)
    import_joints(root, tmp_path, "made/train", 40)
    types("status --cache CACHE", "1 track: 1 bad")
    write_split(root, "made/train", second)  # without joints
    types("status --cache CACHE", NOT_STORED)
    grading.store_grades(root, "made/train")
    types("status --cache CACHE", "2 tracks: 1 good, 1 bad")

    words = ("status", "--cache", root, "--tracks")
    stored = ran(*words).out
    assert "mm in 3D" in stored
    measures_file(root, "made/train").unlink()
    assert ran(*words).out == stored


def test_an_import_of_joints_that_ends_early_is_finished_by_the_next(penn, tmp_path, types):
    penn.converted()
    calm = shutil.copytree(penn.root, tmp_path / "calm")
    import_joints(calm, tmp_path)
    with ends_early(), pytest.raises(KeyboardInterrupt):
        import_joints(penn.root, tmp_path)
    types("status --cache CACHE", NOT_STORED)
    import_joints(penn.root, tmp_path)
    assert tree(penn.root) == tree(calm)


def test_half_of_the_work_of_a_killed_run_is_not_done_again(penn, monkeypatch, types):
    penn.converted()
    measures_file(penn.root).unlink()
    computed = []

    def compute(split, tracks, source):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.extend(tracks)
        return grades.video_grades(split, tracks, source)

    monkeypatch.setattr(grading, "video_grades", compute)
    monkeypatch.setattr(grading, "WRITE_EVERY", -1.0)
    with pytest.raises(KeyboardInterrupt):
        grading.store_grades(penn.root, NAME)
    types("status --cache CACHE", NOT_STORED)
    computed.clear()
    monkeypatch.setattr(grading, "WRITE_EVERY", 1e9)
    grading.store_grades(penn.root, NAME)
    assert computed == [2]
    types("status --cache CACHE", "3 tracks: 3 good")


def test_a_busy_split_is_left_to_its_writer(penn):
    penn.converted()
    before = measures_file(penn.root).read_bytes()
    measures_file(penn.root).unlink()
    with penn.split.store.lock(f"{NAME}/.writing"):
        grading.store_grades(penn.root, NAME)
    assert not measures_file(penn.root).exists()
    grading.store_grades(penn.root, NAME)
    assert measures_file(penn.root).read_bytes() == before
