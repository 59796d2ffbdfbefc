"""What readers promise about damaged releases: each row has the label of its own image, or the
video is refused with a reason.

Subclasses of `ImageFolders` make releases of one dataset whose frames are images, and name the
damages that they refuse. An image is known by its content, whatever its name: so the label of each
kept row is compared with the row of the same image in the undamaged release.
"""

import re
import shutil
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

from pipeline import datasets
from pipeline.accounting import Accounting

N_FRAMES = 16

SHIFTED = "one too many in front, numbers one higher"
RENUMBERED = "every second one, numbered again"
HALF = "half of the labels"
Rows = dict[tuple[str, bytes], bytes]  # (track, content of the image) -> label


def images_in(folder):
    """Also if label files are beside them."""
    return sorted(file for file in folder.iterdir() if file.suffix in (".jpeg", ".jpg", ".png"))


class Images:
    """The images of a video, in order, which tests remove and renumber."""

    def __init__(self, folder):
        self.folder = folder
        self.files = images_in(folder)
        before, digits, self._suffix = re.fullmatch(
            # RICH's end with the camera's number
            r"(.*?)([0-9]+)((?:_[0-9]{2})?\.\w+)",
            self.files[0].name,
        ).groups()
        self._before, self._n_digits = before, len(digits)
        negative = 255 - cv2.imread(str(self.files[0]))
        self.other = cv2.imencode(self._suffix, negative)[1].tobytes()  # of no frame

    def number(self, file):
        return int(file.name.removeprefix(self._before).removesuffix(self._suffix))

    def path(self, number):
        return self.folder / f"{self._before}{number:0{self._n_digits}d}{self._suffix}"

    @property
    def first(self):
        return self.number(self.files[0])

    @property
    def last(self):
        return self.number(self.files[-1])

    def remove(self, *positions):
        for position in positions:
            self.files[position].unlink()

    def renumber(self, steps):
        """Number the images that are there without a gap, from so many after the first number."""
        contents = [file.read_bytes() for file in self.files if file.exists()]
        start = self.first + steps
        for file in images_in(self.folder):
            file.unlink()
        for i, content in enumerate(contents):
            self.path(start + i).write_bytes(content)

    def add(self, number):
        self.path(number).write_bytes(self.other)


def label_of(track, row):
    """All that a row has but for its number."""
    labels = {name: array for name, array in track.columns.items() if name != "frame_index"}
    return b"".join(array[row].tobytes() for array in labels.values())


def every_second(images):
    images.remove(*range(1, len(images.files), 2))
    images.renumber(0)


def too_many_and_higher(images):
    first = images.first
    images.renumber(1)
    images.add(first)


def twice_as_many(images):
    for number in range(images.last + 1, images.last + 1 + N_FRAMES):
        images.add(number)


def capitals(images):
    """An equal name in another case, of another image."""
    name = images.files[3].name
    (images.folder / name.upper().replace("IMG", "Img")).write_bytes(images.other)
    (images.folder / f"{Path(name).stem}.JPEG").write_bytes(images.other)


DAMAGES = {
    "none": lambda images: None,
    "first missing": lambda images: images.remove(0),
    "middle missing": lambda images: images.remove(7, 8),
    "last missing": lambda images: images.remove(-1),
    "more labels than images": lambda images: images.remove(-3, -2, -1),
    "numbers one higher": lambda images: images.renumber(1),
    "numbers one lower": lambda images: images.renumber(-1),
    "one too many at the end": lambda images: images.add(images.last + 1),
    "one too many in front": lambda images: images.add(images.first - 1),
    SHIFTED: too_many_and_higher,
    RENUMBERED: every_second,
    HALF: twice_as_many,
    "other case": capitals,
}
# impossible where numbers begin with 0
BELOW_0 = frozenset({"numbers one lower", "one too many in front"})
ANOTHER_START = BELOW_0 | {"numbers one higher"}
EXACT = {"one too many at the end", SHIFTED}


class ImageFolders:
    """The contract of a dataset whose frames are images; a subclass fills in what follows."""

    dataset: ClassVar[str]
    split: ClassVar[str] = "train"
    video: ClassVar[str]
    images: ClassVar[str]  # the video's folder of images, below the raw folder
    n_videos: ClassVar[int] = 1  # of the release
    refused: ClassVar[frozenset[str]]  # damages for which the video is refused
    undecided: ClassVar[frozenset[str]] = frozenset()  # damages that leave no trace in the numbers
    first: ClassVar[int] = 0  # number of the first image
    # width and height, where files of the release do not state it; the demo's images are smaller
    released_size: ClassVar[tuple[int, int] | None] = None
    states_size: ClassVar[bool] = True

    def write(self, demo, takes, raw):
        """Write an undamaged release of a demo dataset, which other classes read too."""
        shutil.copytree(demo, raw)

    @pytest.fixture(autouse=True)
    def set_body(self, embedded):
        """The body model that the reader needs."""
        self.body = embedded.model(self.dataset)

    @pytest.fixture
    def release(self, demo_data, tmp_path_factory):
        """An undamaged release. Only to be read."""
        if type(self) not in _RELEASES:
            key = self.dataset, self.n_videos
            if key not in _DEMO:
                demo = tmp_path_factory.mktemp("demo") / self.dataset
                takes = demo_data.dataset(
                    self.dataset, demo, n_videos=self.n_videos, n_frames=N_FRAMES
                )
                _DEMO[key] = demo, takes
            _RELEASES[type(self)] = tmp_path_factory.mktemp("release") / self.dataset
            self.write(*_DEMO[key], _RELEASES[type(self)])
        return _RELEASES[type(self)]

    def read(self, raw):
        """The tracks and the account of the video."""
        report = Accounting()
        tracks = [
            track
            for track in datasets.get(self.dataset).tracks(raw, self.split, self.body, report)
            if track.video == self.video
        ]
        report.video(self.video).check()
        return tracks, report.video(self.video)

    def rows(self, tracks):
        found = {}
        for track in tracks:
            for i, frame in enumerate(track.frame_index.tolist()):
                found[track.name, track.frames.path(frame).read_bytes()] = label_of(track, i)
        assert len(found) == sum(len(track.frame_index) for track in tracks)
        return found

    def pytest_generate_tests(self, metafunc):
        if "damage" in metafunc.fixturenames:
            impossible = self.undecided if self.first else self.undecided | BELOW_0
            metafunc.parametrize("damage", [name for name in DAMAGES if name not in impossible])

    def test_each_row_has_its_own_image_s_label_or_the_video_is_refused(
        self, damage, release, tmp_path
    ):
        truth = self.rows(self.read(release)[0])
        raw = Path(shutil.copytree(release, tmp_path / self.dataset))
        images = Images(raw / self.images)
        assert images.first == self.first
        DAMAGES[damage](images)
        self.judge(raw, truth, damage)

    def judge(self, raw, truth, damage):
        tracks, account = self.read(raw)
        if damage in self.refused:
            assert (tracks, account.set_aside) == ([], "frame_count_mismatch"), account
            assert str(raw / self.images) in account.message
            return
        assert account.set_aside == "", account.message
        present = {file.read_bytes() for file in (raw / self.images).iterdir()}
        expected = {key: label for key, label in truth.items() if key[1] in present}
        assert self.rows(tracks) == expected
        if len(expected) < len(truth):
            assert account.dropped["no_picture"] == len(truth) - len(expected)

    def test_images_at_nine_tenths_of_their_size_are_refused_by_their_size(self, release, tmp_path):
        raw = Path(shutil.copytree(release, tmp_path / self.dataset))
        if self.released_size:
            (raw / "STAND_IN.json").unlink()
        files = Images(raw / self.images).files
        size = self.released_size or cv2.imread(str(files[0])).shape[1::-1]
        for share in (1, 0.9):
            width, height = (round(share * side) for side in size)
            grey = np.full((height, width, 3), 90, np.uint8)
            for file in files:
                file.write_bytes(cv2.imencode(file.suffix, grey)[1].tobytes())
            _, account = self.read(raw)
            is_refused = share < 1 and self.states_size
            assert account.set_aside == ("other_picture_size" if is_refused else ""), account
            assert not is_refused or f"{width} x {height}" in account.message

    def test_damaged_images_and_those_of_another_size_are_problems_of_their_frames(
        self, release, tmp_path
    ):
        raw = Path(shutil.copytree(release, tmp_path / self.dataset))
        files = Images(raw / self.images).files
        resized, cut = files[N_FRAMES // 2 :], files[2]
        for file in resized:
            halved = cv2.resize(cv2.imread(str(file)), None, fx=0.5, fy=0.5)
            cv2.imwrite(str(file), halved)
        cut.write_bytes(cut.read_bytes()[:-40])
        n_damaged = 0
        for track in self.read(raw)[0]:
            for frame in track.frames.read(track.frame_index.tolist()):
                file = track.frames.path(frame.index)
                assert (frame.kind == "other_picture_size") == (file in resized), file
                assert (frame.image is None) == (file in resized or file == cut), file
                n_damaged += file == cut
        assert n_damaged > 0


_DEMO = {}
_RELEASES = {}
