"""A video that moves from one split of its dataset to another: it is committed there first, and let
go here afterwards, so that a kill leaves it in both and never in none.
"""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

import cache
from pipeline.steps.conversion_record import DROP
from tests.pipeline.datasets.label_files import edit_labels


@dataclass
class Place:
    """A raw folder of one dataset, with a video that moves, and a cache."""

    raw: Path
    root: Path
    dataset: str
    old: str
    new: str
    options: str = ""
    is_emptied: bool = False  # the old split, by the move; then it has no rows, which is a failure

    @property
    def both(self):
        return f"{self.dataset}/{self.old}", f"{self.dataset}/{self.new}"

    def move(self):
        raise NotImplementedError

    def back(self):
        raise NotImplementedError

    def convert(self, split):
        return f"convert {split} --raw RAW --cache CACHE {self.options}"

    def command(self, split):
        """`convert`, as a list."""
        return [
            *("convert", split, "--raw", self.raw, "--cache", self.root),
            *self.options.split(),
        ]

    def rows(self):
        """Number of rows of each person, of any name, in either split."""
        found = []
        opened = cache.open(self.root)
        for split in self.both:
            tracks = opened[split].tracks if split in opened.splits else ()
            found.append(Counter(track.stop - track.start for track in tracks))
        return found


class Penn(Place):
    """By the key `train` of its label."""

    def _label(self, train):
        edit_labels(self.raw / "labels/0001.mat", lambda label: label | {"train": train})

    def move(self):
        self._label(-1)

    def back(self):
        self._label(1)


class Emdb(Place):
    """By the keys of its label."""

    def _label(self, split):
        (file,) = self.raw.glob("P0/*/*.pkl")
        keys = {name: name == split for name in ("emdb1", "emdb2")}
        edit_labels(file, lambda label: label | keys)

    def move(self):
        self._label(self.new)

    def back(self):
        self._label(self.old)


class Folders(Place):
    """By the folders that its files are in."""

    def _move(self, old, new):
        for file in self.files:
            (self.raw / file.format(new)).parent.mkdir(parents=True, exist_ok=True)
            (self.raw / file.format(old)).rename(self.raw / file.format(new))

    def move(self):
        self._move(self.old, self.new)

    def back(self):
        self._move(self.new, self.old)


class Drawn(Place):
    """By the share of clips that the user draws."""

    def move(self):
        self.options += " --set videos.test=100"

    def back(self):
        self.options = self.options.removesuffix(" --set videos.test=100")


def split_clips(embedded, raw, *folders, names="ab"):
    """The embedded clips of Kinetics as one's own, in these folders below the raw folder."""
    source = embedded.raw("kinetics")
    for name, folder, split in zip(names, folders, ("train", "val"), strict=True):
        (raw / folder).mkdir(parents=True, exist_ok=True)
        (clip,) = source.glob(f"{split}/*/*.mp4")
        shutil.copy(clip, raw / folder / f"{name}.mp4")
        (keypoints,) = source.glob(f"keypoints/{split}/*")
        shutil.copytree(keypoints, raw / "keypoints" / folder / name)
    shutil.copy(source / "STAND_IN.json", raw)


OWN = "--set videos.min_frames=20"


def penn(embedded, raw, root):
    embedded.copy("penn_action", raw)
    return Penn(raw, root, "penn_action", "train", "test")


def emdb(embedded, raw, root):
    embedded.copy("emdb", raw)
    Emdb(raw, root, "emdb", "emdb2", "emdb1").move()
    return Emdb(raw, root, "emdb", "emdb1", "emdb2")


def own_clips(embedded, raw, root):
    split_clips(embedded, raw, "train", "train")
    place = Folders(raw, root, "videos", "train", "test", OWN)
    place.files = ["{}/a.mp4", "keypoints/{}/a"]
    return place


def drawn_clips(embedded, raw, root):
    split_clips(embedded, raw, "", "")
    # rows that the user leaves out are none that are lost
    fewer = f"{OWN} --set convert.max_fps=15"
    return Drawn(raw, root, "videos", "train", "test", fewer, is_emptied=True)


def kinetics(embedded, raw, root):
    embedded.copy("kinetics", raw)
    (clip,) = (raw / "train").glob("*/*.mp4")
    place = Folders(raw, root, "kinetics", "train", "val", is_emptied=True)
    place.files = [f"{{}}/{clip.parent.name}/{clip.name}", f"keypoints/{{}}/{clip.stem}"]
    return place


def threedpw(embedded, raw, root):
    embedded.copy("3dpw", raw)
    (file,) = (raw / "sequenceFiles/train").iterdir()
    place = Folders(raw, root, "3dpw", "train", "test", is_emptied=True)
    place.files = [f"sequenceFiles/{{}}/{file.name}"]
    return place


PLACES = [penn, emdb, own_clips, drawn_clips, kinetics, threedpw]


@pytest.fixture(params=PLACES, ids=lambda place: place.__name__)
def place(request, embedded, tmp_path):
    return request.param(embedded, tmp_path / "raw", tmp_path / "cache")


def n_rows(place):
    return [sum(rows.elements()) for rows in place.rows()]


@pytest.mark.promise("moved")
def test_a_video_that_moves_is_in_the_new_split_before_it_leaves_the_old_one(place, types):
    old, new = place.both
    is_optional = place.dataset == "videos"
    types(place.convert(old))
    types(place.convert(new))
    leaks = "leaks --cache CACHE"
    before = place.rows()
    for split, change in ((old, place.move), (new, place.back)):
        other = new if split == old else old
        change()
        start = place.rows()
        is_empty = place.is_emptied if split == old else not (before[1] or is_optional)
        if split == old:  # its rows wait; on the way back, the other split is converted first
            for _ in range(2):
                shown = types(place.convert(split), f"convert {other}", code=1)
                assert DROP not in shown
                assert "missing from" not in shown
                assert "the rows are kept" in shown
                assert place.rows() == start
        types(place.convert(other))
        total = sum(n_rows(place))
        assert total > sum(before[0].elements()) + sum(before[1].elements()), "it is in both"
        types(leaks, "share", code=int(place.dataset != "emdb"))
        types(place.convert(split), code=int(is_empty))
        assert "share 1" not in types(leaks)
        for name in (other, split):
            types(place.convert(name), "up to date", code=int(is_empty and name == split))
        assert sum(n_rows(place)) == sum(before[0].elements()) + sum(before[1].elements())
    assert place.rows() == before
    assert cache.verify(place.root).ok


@pytest.mark.parametrize("make", [penn, own_clips])
def test_rows_stay_while_the_new_split_is_not_converted_in_this_cache(
    make, embedded, tmp_path, types
):
    place = make(embedded, tmp_path / "raw", tmp_path / "cache")
    old, new = place.both
    types(place.convert(old))
    before = place.rows()
    place.move()
    for _ in range(3):
        shown = types(place.convert(old), f"convert {new} --raw", "the rows are kept", code=1)
        assert DROP not in shown
        assert place.rows() == before
    types("status --cache CACHE", f"convert {new} --raw", code=1)
    types(f"{place.convert(old)} {DROP}")
    assert n_rows(place)[0] < sum(before[0].elements())


@pytest.mark.parametrize("make", [penn, own_clips])
def test_a_video_that_loses_rows_as_it_moves_keeps_those_of_the_old_split(
    make, embedded, tmp_path, types
):
    place = make(embedded, tmp_path / "raw", tmp_path / "cache")
    old, new = place.both
    types(place.convert(old))
    types(place.convert(new))
    before = place.rows()
    place.move()
    labelled = place.raw / ("frames/0001" if make is penn else "keypoints/test/a")
    aside = tmp_path / "aside"
    aside.mkdir()
    for file in sorted(labelled.iterdir())[-3:]:
        file.rename(aside / file.name)
    types(place.convert(new))
    n_left = n_rows(place)[1] - sum(before[1].elements())
    n_moved = n_left + 3
    lost = f"{n_left} of {n_moved} rows left (of another split)"
    for _ in range(2):
        types(place.convert(old), "would lose rows; the rows are kept", lost, DROP, code=1)
        assert place.rows()[0] == before[0]
    types("status --cache CACHE", lost, code=1)
    for file in aside.iterdir():
        file.rename(labelled / file.name)
    for split in (new, old):
        types(place.convert(split))
    assert n_rows(place)[0] == sum(before[0].elements()) - n_moved


@pytest.mark.parametrize("make", [penn, emdb])
def test_a_video_that_has_lost_its_label_has_not_moved(make, embedded, tmp_path, types):
    """The other split lists it, too, since labels alone say which splits a video is of."""
    place = make(embedded, tmp_path / "raw", tmp_path / "cache")
    types(place.convert(place.both[0]))
    (label,) = [*place.raw.glob("labels/0001.mat"), *place.raw.glob("P0/*/*.pkl")]
    label.unlink()
    shown = types(place.convert(place.both[0]), "the rows are kept", label.name, code=1)
    assert "moved to another split" not in shown


def test_a_copy_in_another_split_is_no_place_to_move_to(embedded, tmp_path, types):
    raw = tmp_path / "raw"
    split_clips(embedded, raw, "train", "train")
    shutil.copytree(raw / "train", raw / "test")
    shutil.copytree(raw / "keypoints/train", raw / "keypoints/test")
    place = Place(raw, tmp_path / "cache", "videos", "train", "test", OWN)
    for split in place.both:
        types(place.convert(split))
    before = place.rows()
    for frame in sorted((raw / "keypoints/train/a").iterdir())[-5:]:
        frame.unlink()
    for _ in range(2):
        types(place.convert("videos/train"), "1 video would lose rows", code=1)
        assert place.rows() == before


@pytest.mark.parametrize(("names", "first"), [("aa", "train"), ("ab", "test")])
def test_two_folders_that_are_exchanged_exchange_their_rows(
    names, first, embedded, tmp_path, types, run
):
    raw = tmp_path / "raw"
    split_clips(embedded, raw, "train", "test", names=names)
    for frame in sorted((raw / f"keypoints/test/{names[1]}").iterdir())[-5:]:
        frame.unlink()  # its video has fewer rows than the other one
    place = Place(raw, tmp_path / "cache", "videos", "train", "test", OWN)
    order = sorted(place.both, key=lambda split: not split.endswith(first))
    for split in order:
        types(place.convert(split))
    before = place.rows()
    assert before[0] != before[1]
    for expected in (before[::-1], before):
        for folder in (raw, raw / "keypoints"):
            (folder / "train").rename(folder / "aside")
            (folder / "test").rename(folder / "train")
            (folder / "aside").rename(folder / "test")
        for split in (*order, *order):  # some end with 1: they wait for the other one
            run(*place.command(split))
        for split in order:
            types(place.convert(split), "up to date")
        assert place.rows() == expected
        types("leaks --cache CACHE", "share 1" if names == "aa" else "share no", code=names == "aa")


def test_nights_end_quiet_after_a_video_has_moved_and_come_back(embedded, tmp_path, types, network):
    """By `prepare`, with features, which are computed for the rows that the new split has not had
    before.
    """
    place = penn(embedded, tmp_path / "raw", tmp_path / "cache")
    prepare = "prepare penn_action --raw RAW --cache CACHE"
    types(prepare, "24 rows computed")
    before = place.rows()
    place.move()
    types(prepare, "penn_action/test resnet50 extracted, 8 rows computed", code=1)
    types(prepare, "2 unchanged")
    types(prepare, "penn_action/train: up to date (2 videos, resnet50)")
    assert n_rows(place) == [16, 32]
    place.back()  # train comes first, and takes it before test lets it go
    types(prepare, "penn_action/train resnet50 extracted, 0 rows computed", "8 carried over")
    assert place.rows() == before
    types(prepare)
    types("verify --cache CACHE")


@pytest.mark.parametrize("loss", ["images", "all"])
def test_a_sequence_of_both_splits_keeps_its_rows_in_each(loss, embedded, tmp_path, types):
    """EMDB's own: what one split has is no reason to let it go in the other."""
    place = emdb(embedded, tmp_path / "raw", tmp_path / "cache")
    (file,) = place.raw.glob("P0/*/*.pkl")
    edit_labels(file, lambda label: label | {"emdb1": True, "emdb2": True})
    for split in place.both:
        types(place.convert(split))
    before = place.rows()
    if loss == "all":
        shutil.rmtree(file.parent)
    else:
        for image in sorted((file.parent / "images").iterdir())[2:]:
            image.unlink()
    for _ in range(2):
        for split in place.both:
            types(place.convert(split), "the rows are kept", code=1)
    assert place.rows() == before
