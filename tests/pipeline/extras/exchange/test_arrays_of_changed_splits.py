"""Arrays of tracks are imported again after their split has changed."""

import shutil

import cv2
import numpy as np
import pytest


class Commands:
    """The commands of someone whose split of Penn Action changes, and arrays of 8 rows for each
    video.
    """

    def __init__(self, penn, types):
        penn.converted()
        self.penn, self.types, self.file = penn, types, "x.npz"

    def write(self, *videos, named=True, new=""):
        """A file of these videos. new: a video whose numbers are of its new images: half a unit
        more.
        """
        frames = [(video, frame) for video in videos for frame in range(8)]
        x = [1000 * int(video) + frame + (video == new) / 2 for video, frame in frames]
        arrays = {"x": np.array(x, np.float32)[:, None]}
        if named:
            arrays["track_name"] = np.array([f"{video}/0" for video, _ in frames])
            arrays["frame"] = np.array([frame for _, frame in frames])
        np.savez(self.penn.root.parent / self.file, **arrays)

    def change(self, *, add=(), remove=()):
        self.penn.add(*add)
        self.penn.remove(*remove)
        convert = "convert penn_action/train --raw RAW/penn_action --cache CACHE"
        self.types(f"{convert} --drop-removed")

    def replace(self, video):
        """Other images in a video's files."""
        for file in self.penn.frames(video).iterdir():
            cv2.imwrite(str(file), 255 - cv2.imread(str(file)))
        self.penn.frames(video).touch()
        self.change()

    def numbers(self, video):
        """What the stream has for a video: NaN without features."""
        return self.penn.rows("features/mine")[f"{video}/0"].ravel().tolist()

    def run(self, *texts, code=0):
        """Import; what it prints."""
        place = f"import TMP/{self.file} penn_action/train --cache CACHE --format arrays --as mine"
        return self.types(place, *texts, code=code)

    def imports(self, *texts):
        """Import. Every number that the stream then has must be its video's and frame's."""
        self.run(*texts)
        for track, row in self.penn.rows("features/mine").items():
            expected = [1000 * int(track[:4]) + frame for frame in range(8)]
            assert np.isnan(row).all() or row.ravel().tolist() == expected, track


@pytest.fixture
def lab(penn, types):
    return Commands(penn, types)


def test_rows_of_new_tracks_arrive_by_track_name_whatever_came_and_went(lab):
    lab.write("0001", "0003", "0005", "0007")
    lab.run("expected at most the 24 rows of", "found 32", "rows of this split only", code=2)
    lab.change(add=("0007",))
    lab.imports("32 of 32 rows, matched by tracks")
    lab.change(add=("0009",))
    lab.imports("32 of 40 rows", "8 rows without features")
    lab.write("0001", "0003", "0007", "0009")
    lab.imports("32 of 40 rows")
    assert np.isnan(lab.numbers("0005")).all()
    lab.write("0009", "0007", "0001", "0003", "0005")
    lab.imports("40 of 40 rows, matched by tracks")
    lab.change(add=("0011",), remove=("0003", "0005"))
    lab.write("0001", "0007", "0009", "0011")
    lab.imports("32 of 32 rows, matched by tracks")
    lab.imports("mine is up to date")


@pytest.mark.parametrize("removed", ["0001", "0005"])
def test_positions_of_a_changed_split_are_refused_and_names_taken(removed, lab):
    lab.write("0001", "0003", "0005", named=False)
    lab.imports("24 of 24 rows")
    lab.change(add=("0007",), remove=(removed,))
    lab.run("the split has changed since 'mine' was imported", "Match by them: add", code=2)
    lab.write(*sorted({"0001", "0003", "0005", "0007"} - {removed}))
    lab.imports("24 of 24 rows, matched by tracks")


def refuse_old_images(lab):
    """Import twice. What is printed names the replaced video 0005, whose rows have no features."""
    for _ in range(2):
        old = f"since the first import of {lab.file}, whose numbers are of the old images: 0005."
        lab.run(old, code=1)
        assert np.isnan(lab.numbers("0005")).all()


@pytest.mark.parametrize("named", [True, False])
def test_a_file_has_no_numbers_for_a_video_that_was_replaced_after_its_import(named, lab, tmp_path):
    """Neither by name nor by position: the last video keeps its place, so that only its images
    tell.
    """
    lab.write("0001", "0003", "0005", named=named)
    lab.imports("24 of 24 rows")
    before = shutil.copytree(lab.penn.frames("0005"), tmp_path / "before")
    lab.replace("0005")
    refuse_old_images(lab)
    shutil.copytree(before, lab.penn.frames("0005"), dirs_exist_ok=True)
    lab.change()
    lab.imports("24 of 24 rows")
    lab.replace("0005")
    lab.write("0001", "0003", "0005", named=named, new="0005")
    lab.run()
    assert lab.numbers("0005") == [5000.5 + frame for frame in range(8)]
    assert lab.numbers("0001") == [1000 + frame for frame in range(8)]


def test_a_video_that_was_replaced_gets_no_number_of_a_file_that_was_imported_before_the_last(lab):
    lab.write("0001", "0003", "0005")
    lab.imports()
    lab.file = "y.npz"
    lab.write("0001", "0003", "0005", new="0001")
    lab.run()
    assert lab.numbers("0001") == [1000.5 + frame for frame in range(8)]
    lab.replace("0005")
    lab.file = "x.npz"
    refuse_old_images(lab)
    assert lab.numbers("0001") == [1000 + frame for frame in range(8)]
