"""Arrays of tracks are imported again after their split has changed."""

import shutil

import cv2
import numpy as np
import pytest

import cache


class Commands:
    """The commands of someone whose split of Penn Action changes, and arrays of 8 rows for each
    video.
    """

    def __init__(self, penn, folder, ran):
        penn.converted()
        self.penn, self.ran, self.file = penn, ran, folder / "x.npz"
        self.place = ["--cache", penn.root]

    def write(self, *videos, of="track_name", new=""):
        """A file of these videos. new: a video whose numbers are of its new images: half a unit
        more.
        """
        frames = [(video, frame) for video in videos for frame in range(8)]
        tracks = [f"{video}/0" for video, _ in frames]
        if of == "track":
            tracks = [videos.index(video) for video, _ in frames]
        x = np.array(
            [[1000 * int(video) + frame + (video == new) / 2] for video, frame in frames],
            np.float32,
        )
        keys = (
            {of: np.array(tracks), "frame": np.array([frame for _, frame in frames])} if of else {}
        )
        np.savez(self.file, x=x, **keys)

    def change(self, *, add=(), remove=()):
        self.penn.add(*add)
        self.penn.remove(*remove)
        self.ran("convert", self.penn.name, "--raw", self.penn.raw, *self.place, "--drop-removed")

    def replace(self, video):
        """Other images in a video's files."""
        for file in self.penn.frames(video).iterdir():
            cv2.imwrite(str(file), 255 - cv2.imread(str(file)))
        self.penn.frames(video).touch()
        self.change()

    def numbers(self, video):
        """What the stream has for a video: NaN without features."""
        numbers = self.penn.rows("features/mine")[f"{video}/0"].ravel().tolist()
        return numbers

    def types(self, *more, code=0):
        """What the import prints."""
        words = ("import", self.file, self.penn.name, *self.place, "--format", "arrays")
        return self.ran(*words, "--as", "mine", *more, code=code)

    def imports(self, *more, refused=False):
        """What is printed. Every number that the stream then has must be its video's and
        frame's.
        """
        printed = self.types(*more, code=2 if refused else 0)
        for track, row in self.penn.rows("features/mine").items() if not refused else ():
            expected = [1000 * int(track[:4]) + frame for frame in range(8)]
            assert np.isnan(row).all() or row.ravel().tolist() == expected, track
        return " ".join((printed.err if refused else printed.out).split())


def test_rows_of_new_tracks_arrive_by_track_name_whatever_came_and_went(penn, tmp_path, ran):
    lab = Commands(penn, tmp_path, ran)
    lab.write("0001", "0003", "0005", "0007")
    assert "found track 0007/0, frame 0 in row 24" in (printed := lab.imports(refused=True))
    assert "leave out rows of other tracks: --match tracks" in printed
    printed = lab.imports("--match", "tracks")
    assert (
        "24 of 24 rows" in printed
        and "8 rows not imported: the split does not have their tracks" in printed
    )
    lab.change(add=("0007",))
    assert "32 of 32 rows, matched by tracks" in lab.imports()
    lab.change(add=("0009",))
    printed = lab.imports()
    assert "32 of 40 rows" in printed and "8 rows without features" in printed
    lab.write("0001", "0003", "0007", "0009")
    assert "32 of 40 rows" in lab.imports()
    assert np.isnan(lab.numbers("0005")).all()
    lab.write("0009", "0007", "0001", "0003", "0005")
    assert "40 of 40 rows, matched by tracks" in lab.imports()
    lab.change(add=("0011",), remove=("0003", "0005"))
    lab.write("0001", "0003", "0005", "0007", "0009", "0011")
    printed = lab.imports("--match", "tracks")
    assert "32 of 32 rows, matched by tracks" in printed and "16 rows not imported" in printed
    assert "mine is up to date" in lab.imports("--match", "tracks")


@pytest.mark.parametrize(("of", "removed"), [("", "0001"), ("", "0005"), ("track", "0001")])
def test_positions_and_track_numbers_of_a_changed_split_are_refused_and_names_taken(
    of, removed, penn, tmp_path, ran
):
    lab = Commands(penn, tmp_path, ran)
    lab.write("0001", "0003", "0005", of=of)
    assert "24 of 24 rows" in lab.imports()
    lab.change(add=("0007",), remove=(removed,))
    printed = lab.imports(refused=True)
    assert (
        "the split has changed since 'mine' was imported" in printed
        and "Match by track names: add" in printed
    )
    lab.write("0001", "0003", "0005", "0007")
    assert "24 of 24 rows, matched by tracks" in lab.imports("--match", "tracks")


def refuse_old_images(lab, *more):
    """Import twice. What is printed names the replaced video 0005, whose rows have no features."""
    for _ in range(2):
        printed = " ".join(lab.types(*more, code=1).err.split())
        old = f"since the first import of {lab.file.name}, whose numbers are of the old images"
        assert f"{old}: 0005." in printed
        assert np.isnan(lab.numbers("0005")).all()


@pytest.mark.parametrize("of", ["track_name", ""])
def test_a_file_has_no_numbers_for_a_video_that_was_replaced_after_its_import(
    of, penn, tmp_path, ran
):
    """Neither by name nor by position: the last video keeps its place, so that only its images
    tell.
    """
    lab = Commands(penn, tmp_path, ran)
    lab.write("0001", "0003", "0005", of=of)
    assert "24 of 24 rows" in lab.imports()
    before = shutil.copytree(penn.frames("0005"), tmp_path / "before")
    lab.replace("0005")
    refuse_old_images(lab)
    shutil.copytree(before, penn.frames("0005"), dirs_exist_ok=True)
    lab.change()
    assert "24 of 24 rows" in lab.imports()
    lab.replace("0005")
    lab.write("0001", "0003", "0005", of=of, new="0005")
    lab.types()
    assert lab.numbers("0005") == [5000.5 + frame for frame in range(8)]
    assert lab.numbers("0001") == [1000 + frame for frame in range(8)]


def test_other_new_videos_of_a_file_are_taken_beside_one_that_was_replaced(
    penn, tmp_path, ran, monkeypatch
):
    monkeypatch.setattr(cache.write.split_writer, "ROWS_PER_SHARD", 8)
    monkeypatch.setattr(cache.write.split_writer, "ROWS_PER_CHUNK", 8)
    lab = Commands(penn, tmp_path, ran)
    shutil.rmtree(penn.root)
    penn.convert()
    lab.write("0001", "0003", "0005", "0007")
    lab.imports("--match", "tracks")
    penn.add("0007")
    lab.replace("0005")
    refuse_old_images(lab, "--match", "tracks")
    assert lab.numbers("0007") == [7000 + frame for frame in range(8)]
    lab.write("0001", "0003", "0005", "0007", new="0005")
    lab.types()
    assert lab.numbers("0005") == [5000.5 + frame for frame in range(8)]


def test_a_video_that_was_replaced_gets_no_number_of_a_file_that_was_imported_before_the_last(
    penn, tmp_path, ran
):
    lab = Commands(penn, tmp_path, ran)
    lab.write("0001", "0003", "0005")
    lab.imports()
    first = lab.file
    lab.file = tmp_path / "y.npz"
    lab.write("0001", "0003", "0005", new="0001")
    lab.types()
    assert lab.numbers("0001") == [1000.5 + frame for frame in range(8)]
    lab.replace("0005")
    lab.file = first
    refuse_old_images(lab)
    assert lab.numbers("0001") == [1000 + frame for frame in range(8)]
