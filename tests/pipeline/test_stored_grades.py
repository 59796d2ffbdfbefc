"""Numbers of grades in `measures.npz`: given back as long as a track stays as it is."""

import io
import json
import zipfile

import numpy as np
import pytest

import cache
from cache.format.shard import crc32c
from cache.format.tables import Tables
from pipeline.grades import BLAZE_JOINTS, stored
from pipeline.grades.stored import StoredGrades
from pipeline.grades.words import MEASURES
from pipeline.steps.grading import copy_grades, store_grades
from tests.cache import toy
from tests.hostile import THINGS
from tests.trees import contents

SPLIT = "toy/train"
FILE = f"{SPLIT}/measures.npz"


def opened(root):
    return StoredGrades(cache.open(root)[SPLIT])


def is_outdated(root):
    return stored.are_outdated(cache.open(root)[SPLIT])


def tracks_of(root):
    return cache.open(root)[SPLIT].tracks


def fill(root):
    """Store the numbers that are not known: of each track its first row, and unknown ones; the
    names of these tracks.
    """
    grades, tracks = opened(root), tracks_of(root)
    new = ~grades.is_known
    grades.numbers[new, 0] = tracks.start[new] / 7
    grades.is_known[:] = True
    grades.write(is_complete=True)
    return [name for name, is_new in zip(tracks.names, new, strict=True) if is_new]


def known(root):
    """Names of the tracks whose numbers are stored; they are those that `fill` has stored."""
    grades, tracks = opened(root), tracks_of(root)
    is_known = grades.is_known
    np.testing.assert_array_equal(grades.numbers[is_known, 0], tracks.start[is_known] / 7)
    assert np.isnan(grades.numbers[:, 1:]).all()
    assert np.isnan(grades.numbers[~is_known]).all()
    return [name for name, taken in zip(tracks.names, is_known, strict=True) if taken]


@pytest.fixture
def root(tmp_path):
    """Seven tracks of five videos: a/0 in rows 0 to 10, b/0 to 17, b/1 to 37, d/0 to 107, ..."""
    toy.write(tmp_path / "cache", toy.videos())
    toy.write_stream(tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def measured(root):
    fill(root)
    return root


def test_numbers_are_read_to_the_bit_also_by_numpy(measured):
    assert opened(measured).is_current
    assert known(measured) == tracks_of(measured).names
    with np.load(measured / FILE) as arrays:
        np.testing.assert_array_equal(arrays["numbers"][:, 0], tracks_of(measured).start / 7)
        about = json.loads(arrays["about"].tobytes())
    digest = cache.open(measured)[SPLIT].manifest["digest"]
    assert about["commits"] == {"": digest, BLAZE_JOINTS: ""}
    assert about["form"][1:] == [*MEASURES]


def test_a_commit_leaves_the_numbers_of_all_other_videos(measured):
    toy.write(measured, [toy.video("b", 40, seed=5), toy.video("g", 6)], drop=["b", "f"])
    assert (opened(measured).is_current, is_outdated(measured)) == (False, True)
    assert known(measured) == ["a/0", "d/0", "e/0", "e/1"]
    assert fill(measured) == ["b/0", "g/0"]
    assert known(measured) == ["a/0", "d/0", "e/0", "e/1", "b/0", "g/0"]
    toy.write(measured, [], drop=["a", "b", "d", "e", "g", "c"])
    assert (known(measured), fill(measured)) == ([], [])
    assert opened(measured).is_current


def test_new_joints_of_a_track_make_its_numbers_unknown(measured):
    toy.write_stream(measured, stream="other")
    assert opened(measured).is_current, "they do not follow from this stream"
    toy.write_stream(measured, stream=BLAZE_JOINTS, shards=[0])  # rows 0 to 31
    assert is_outdated(measured)
    assert known(measured) == ["d/0", "e/0", "e/1", "f/0"]
    assert fill(measured) == ["a/0", "b/0", "b/1"]
    toy.write_stream(measured, stream=BLAZE_JOINTS)
    assert known(measured) == ["a/0", "b/0"]
    fill(measured)
    cache.delete_stream(measured, SPLIT, BLAZE_JOINTS)
    assert known(measured) == []


def test_rows_of_another_split_of_that_name_are_not_taken_for_the_same(measured, tmp_path):
    """As after somebody has removed a split, and converted again."""
    toy.write(tmp_path / "other", toy.videos(seed=1))
    toy.write(tmp_path / "same", toy.videos())
    for name, n_known in (("other", 0), ("same", 7)):
        (tmp_path / name / FILE).write_bytes((measured / FILE).read_bytes())
        assert opened(tmp_path / name).is_known.sum() == n_known
    (measured / SPLIT / "manifest.json").unlink()
    stored.announce(measured, SPLIT)
    toy.write(measured, toy.videos())
    assert known(measured) == []


def test_a_further_measure_or_another_version_makes_all_numbers_unknown(measured, monkeypatch):
    monkeypatch.setattr(stored, "_FORM", [*stored._FORM, "age"])
    grades = opened(measured)
    assert (grades.is_known.any(), grades.is_current) == (False, False)
    assert not is_outdated(measured), "no run has to begin for that"


def test_what_could_not_be_computed_is_unknown_and_the_file_current(root):
    grades = opened(root)
    grades.is_known[2:] = True
    grades.write(is_complete=True)
    assert opened(root).is_current
    assert opened(root).is_known.tolist() == [False, False, True, True, True, True, True]


def test_a_run_that_is_killed_before_the_numbers_are_stored_leaves_them_outdated(root):
    assert not is_outdated(root)
    stored.announce(root, SPLIT)
    assert is_outdated(root)
    grades = opened(root)
    grades.numbers[:3, 0] = tracks_of(root).start[:3] / 7
    grades.is_known[:3] = True
    grades.write(is_complete=False)
    assert is_outdated(root)
    assert known(root) == ["a/0", "b/0", "b/1"]
    assert fill(root) == ["d/0", "e/0", "e/1", "f/0"]
    assert opened(root).is_current
    before = contents(root)
    stored.announce(root, SPLIT)
    assert contents(root) == before, "the file is there"


def test_a_disk_of_features_that_is_not_mounted_leaves_nothing_to_finish(measured):
    toy.write_stream(measured, stream=BLAZE_JOINTS)
    fill(measured)
    (measured / SPLIT / "features").rename(measured.parent / "unmounted")
    grades = opened(measured)
    assert (grades.is_current, is_outdated(measured)) == (False, False)


def archive(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as into:
        for name, data in members.items():
            into.writestr(f"{name}.npy", data)
    return file.getvalue()


def with_arrays(data, **changed):
    """The file with other arrays, and a checksum that matches."""
    arrays = Tables.decode(np.frombuffer(data, np.uint8)) | changed
    made = Tables({name: np.asarray(array) for name, array in arrays.items()}).encode()
    return made + crc32c(made)


def with_json(data, text):
    return with_arrays(data, about=np.frombuffer(text, np.uint8))


HOSTILE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "text": lambda data: b"no file of NumPy",
    "compressed": lambda data: archive(about=b"0" * 10_000_000),
    "no JSON": lambda data: with_json(data, b"{"),
    "deep JSON": lambda data: with_json(data, b"[" * 100_000),
    "a list": lambda data: with_json(data, b"[]"),
    "no form": lambda data: with_json(data, b'{"commits": {}}'),
    "no commits": lambda data: with_json(data, b'{"form": []}'),
    "numbers": lambda data: with_json(data, b'{"commits": 1, "form": 2}'),
    "texts": lambda data: with_json(data, b'{"commits": "ab", "form": "abc"}'),
    "other keys": lambda data: with_arrays(data, track_key=np.zeros((7, 1), "<u8")),
    "fewer keys": lambda data: with_arrays(data, track_key=np.zeros((3, 2), "<u8")),
    "one number": lambda data: with_arrays(data, numbers=np.zeros((), "<f8")),
    "of no track": lambda data: with_arrays(
        data, track_key=np.zeros((0, 2), "<u8"), numbers=np.zeros((0, len(MEASURES)))
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_from_anywhere_counts_as_not_stored(what, measured):
    (measured / FILE).write_bytes(HOSTILE[what]((measured / FILE).read_bytes()))
    assert known(measured) == []
    assert not opened(measured).is_current
    assert cache.verify(measured).ok
    fill(measured)
    assert opened(measured).is_current


def test_each_changed_bit_is_noticed(measured):
    data = (measured / FILE).read_bytes()
    for bit in range(0, 8 * len(data), 997):
        (measured / FILE).write_bytes(toy.flipped(data, bit))
        assert known(measured) == []


@pytest.mark.parametrize("what", THINGS)
def test_another_thing_of_its_name_counts_as_not_stored(what, measured):
    (measured / FILE).unlink()
    THINGS[what](measured / FILE)
    assert known(measured) == []
    assert not is_outdated(measured)


def test_gc_keeps_the_file_of_a_split_and_removes_that_of_none(measured):
    before = contents(measured)
    assert cache.gc(measured, unfinished=True).removed == []
    assert contents(measured) == before
    toy.write(measured, [], drop=["a"])
    removed = cache.gc(measured, unfinished=True).removed
    assert removed == [key for key in before if f"{SPLIT}/tables-" in key]
    assert len(known(measured)) == 6, "those of the other videos are still used"
    (measured / SPLIT / "manifest.json").unlink()
    (measured / SPLIT / "frame_index/zarr.json").unlink()  # else its manifest would be missing
    assert FILE in cache.gc(measured, unfinished=True).removed
    assert not (measured / FILE).exists()


def test_verify_notes_numbers_that_are_not_used(measured, ran):
    words = ("verify", "--cache", measured, "--fast")
    assert "measures.npz" not in ran(*words).out
    data = (measured / FILE).read_bytes()
    (measured / FILE).write_bytes(toy.flipped(data, 8 * len(data) // 2))
    assert "measures.npz: damaged, or of an earlier commit: grades are" in ran(*words).out
    (measured / FILE).write_bytes(data)
    assert "measures.npz" not in ran(*words).out
    toy.write(measured, [], drop=["a"])
    assert "measures.npz: damaged, or of an earlier commit: grades are" in ran(*words).out


def test_a_copy_has_the_numbers_of_its_tracks_in_its_own_order(measured, tmp_path, ran):
    toy.add(measured, "b", 40, seed=5, drop=["b", "d"])
    toy.write_stream(measured, stream=BLAZE_JOINTS)
    fill(measured)
    to = tmp_path / "copy"
    ran("copy", SPLIT, "--cache", measured, "--to", to)
    assert opened(to).is_current
    first, second = (
        dict(zip(tracks_of(one).names, opened(one).numbers[:, 0].tolist(), strict=True))
        for one in (measured, to)
    )
    assert first == second
    assert tracks_of(to).names != tracks_of(measured).names
    before = contents(to)
    ran("copy", SPLIT, "--cache", measured, "--to", to)
    assert contents(to) == before


def test_a_copy_without_the_joints_has_no_numbers(measured, tmp_path, ran):
    toy.write_stream(measured, stream=BLAZE_JOINTS)
    fill(measured)
    ran("copy", SPLIT, "--cache", measured, "--to", tmp_path / "without", "--streams", "")
    assert not (tmp_path / "without" / FILE).exists()
    toy.write(measured, [], drop=["a"])  # the numbers are of an earlier commit
    ran("copy", SPLIT, "--cache", measured, "--to", tmp_path / "outdated")
    assert not (tmp_path / "outdated" / FILE).exists()


def test_an_object_store_keeps_them_too(measured, url):
    cache.copy_split(measured, SPLIT, url)
    copied = cache.open(url)[SPLIT]
    copy_grades(cache.open(measured)[SPLIT], copied)
    assert len(known(url)) == 7
    toy.write(url, [], drop=["a"])
    assert is_outdated(url)
    store_grades(url, SPLIT)
    assert opened(url).is_current
    removed = cache.gc(url, older_than=0).removed
    assert removed
    assert FILE not in removed
    assert len(known(url)) == 6
