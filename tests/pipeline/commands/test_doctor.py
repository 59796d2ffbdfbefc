"""`doctor`: from an empty raw folder to a complete download, by the names of files alone."""

import shutil
from dataclasses import dataclass

import pytest

from pipeline import datasets
from pipeline.datasets import RELEASES
from pipeline.datasets.base import Dataset, Release, ReleasePart, globs
from pipeline.datasets.releases.examination import BODY, examine
from pipeline.errors import RawDataError
from pipeline.files.raw import RawVideo
from pipeline.people import smpl_files
from tests.pipeline.commands.made_downloads import counts, look, touch
from tests.pipeline.datasets.by_hand import write_video
from tests.pipeline.files.made_clips import Clip, with_matrix


def problems(examination):
    return "\n".join(examination.mistakes)


@pytest.mark.parametrize("name", RELEASES)
def test_demo_data_are_complete_an_empty_folder_is_not_and_parts_are_those_of_splits(
    name, embedded, tmp_path
):
    found, dataset = look(name, embedded.raw(name)), datasets.get(name)
    assert found.stand_in
    assert found.usable == dataset.splits
    assert (found.missing, found.incomplete, problems(found)) == ((), (), "")
    assert {f.known for f in found.parts} == {None}, "compared with no release"
    for raw in (tmp_path, tmp_path / "absent"):
        found = look(name, raw)
        assert found.usable == ()
        assert {f.state for f in found.parts} <= {"missing", "left out"}
    assert any(not part.without for part in dataset.release.parts)
    for part in dataset.release.parts:
        assert part.source
        assert set(part.splits) <= set(dataset.splits)
        assert not any(
            "**" in pattern or pattern.startswith("/") for pattern in globs(part.patterns)
        )
    assert set(dataset.release.totals) <= {*dataset.splits}


def test_a_download_is_counted_by_names_alone_hidden_files_not_and_links_are_followed(tmp_path):
    disk = tmp_path / "disk"
    for number in range(1, 4):
        touch(disk / f"labels/{number:04d}.mat", disk / f"frames/{number:04d}/000001.jpg")
    touch(disk / "labels/._0001.mat", disk / "frames/.DS_Store", disk / "labels/x\x1b[31m[red].mat")
    (tmp_path / "raw").symlink_to(disk)
    found = look("penn_action", tmp_path / "raw")
    assert counts(found)["label files"] == (4, 2326, "incomplete")
    assert (found.usable, problems(found)) == (("train", "test"), "")


def test_a_split_whose_part_is_missing_is_the_only_one_that_cannot_be_used(tmp_path):
    touch(tmp_path / "sequenceFiles/train/a.pkl", tmp_path / "sequenceFiles/validation/b.pkl")
    touch(*(tmp_path / f"imageFiles/{name}/image_00000.jpg" for name in ("a", "b", "@eaDir")))
    found = look("3dpw", tmp_path)
    assert counts(found)["sequences' images"] == (2, 60, "incomplete")
    assert found.usable == ("train", "validation")
    assert [part.what for part in found.missing] == ["sequences of test"]


@pytest.mark.parametrize(
    "clips", ["keypoints/train/a/", "keypoints/train/a.mp4.json", "keypoints/train/b/a.mp4.json"]
)
def test_clips_of_kinetics_have_keypoints_in_any_layout(clips, tmp_path):
    video = "train/dance/a.mp4" if "dance" in clips else "train/a.mp4"
    touch(tmp_path / video, tmp_path / video.replace("a.", "b."))
    assert counts(look("kinetics", tmp_path))["clips of train with keypoints"] == (
        0,
        None,
        "missing",
    )
    if clips.endswith("/"):
        touch(tmp_path / clips / "a_000000000000_keypoints.json")
    else:
        touch(tmp_path / clips)
    assert counts(look("kinetics", tmp_path))["clips of train with keypoints"][0] == 1


def test_keypoints_of_one_s_own_clips_are_counted_and_one_file_is_read(tmp_path, types):
    doctor = "doctor videos --raw TMP"  # the folder that `prepare` takes
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", 2)
    types(doctor, "videos of train")
    assert set(counts(look("videos", tmp_path))) == {"videos of train"}
    (tmp_path / "keypoints").mkdir()
    for name in "ab":
        (tmp_path / f"keypoints/{name}.mp4.json").write_text('{"keypoints": []}')
    found = look("videos", tmp_path)
    assert counts(found)["videos of train with keypoints"] == (2, None, "invalid")
    assert problems(found).count("found an object with keypoints") == 2
    types(doctor, code=1)
    (tmp_path / "keypoints/a.mp4.json").write_text('[{"image_id": "0.jpg", "bbox": [1, 2, 3, 4]}]')
    assert counts(look("videos", tmp_path))["videos of train with keypoints"] == (2, None, "there")
    (tmp_path / "keypoints/b.mp4.json").unlink()
    assert problems(look("videos", tmp_path)) == ""
    assert types(doctor).count("prepare videos --raw") == 1


@dataclass(frozen=True)
class Ninth(Dataset):
    """Declares no part of its release."""

    name = "ninth"
    splits = ("train", "test")
    version = 1
    release = Release(page="https://example.org")

    def columns(self, split, *, body):
        return ("frame_index",)

    def videos(self, raw, split):
        if not (raw / split).is_dir():
            raise RawDataError(
                raw / split, "folder", expected="CSV files", found="none", do="Record some."
            )
        return [
            RawVideo(file.stem, (file.relative_to(raw),))
            for file in sorted((raw / split).glob("*.csv"))
        ]

    def read(self, *_):
        raise AssertionError("read a label")


def test_a_dataset_that_declares_nothing_is_examined_by_what_its_reader_lists(tmp_path):
    touch(tmp_path / "train/a.csv", tmp_path / "train/b.csv")
    found = examine(Ninth(), tmp_path)
    assert counts(found) == {
        "videos of train": (2, None, "there"),
        "videos of test": (0, None, "missing"),
    }
    assert found.usable == ("train",)
    assert "expected CSV files, found none. Record some." in problems(found)

    class Broken(Ninth):
        def videos(self, raw, split):
            raise ZeroDivisionError("division by zero")

    assert "ninth cannot be examined: ZeroDivisionError" in problems(examine(Broken(), tmp_path))


def test_beside_a_complete_release_archives_may_stay(tmp_path):
    class Small(Ninth):
        release = Release(parts=(ReleasePart("tables", ("train/*.csv",), "the lab", known=2),))

    packed = []
    for file in ("x.zip", "train/a.csv", "train/b.csv"):
        touch(tmp_path / file)
        packed.append("still packed" in problems(examine(Small(), tmp_path)))
    assert packed == [True, True, False]


def test_archives_may_stay_beside_their_folders_where_nobody_knows_how_many_there_are(tmp_path):
    class Subsets(Ninth):
        release = Release(parts=(ReleasePart("tables", ("*/*.csv",), "all.zip and others"),))

    for file in ("SSM/a.csv", "images/scene_1/a.png", "P1/a.csv"):
        touch(tmp_path / file)
    for file in ("all.zip", "SSM_synced.tar.bz2", "images/scene_1_png.tar", "P1.zip", "P2.zip"):
        touch(tmp_path / file)
    messages = problems(examine(Subsets(), tmp_path)).splitlines()
    assert [line.split()[0].rpartition("/")[2] for line in messages if "packed" in line] == [
        "P2.zip"
    ]


def test_the_body_s_parts_are_the_files_that_a_body_needs(embedded, tmp_path):
    assert (examine(BODY, embedded.body).missing, examine(BODY, embedded.body).stand_in) == (
        (),
        True,
    )
    assert len(examine(BODY, tmp_path).missing) == len(smpl_files.missing(tmp_path)) == 4
    for file in sorted(embedded.body.iterdir()):
        shutil.copy(file, tmp_path)
        assert len(examine(BODY, tmp_path).missing) == len(smpl_files.missing(tmp_path))
    touch(tmp_path / "models" / "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl")
    assert "has its name in SMPL's archive. Rename it" in problems(examine(BODY, tmp_path))


def test_a_dataset_of_smplx_bodies_needs_their_files_and_smpl_s_not_yet(embedded, tmp_path, types):
    embedded.copy("rich", tmp_path / "raw/rich")
    (tmp_path / "body").mkdir()
    doctor = "doctor rich --raw TMP/raw --body TMP/body"
    told = types(doctor, "SMPLX_MALE.npz", "missing", "smpl-x.is.tue.mpg.de", code=1)
    assert "not needed yet" in told
    for gender in ("MALE", "FEMALE"):
        shutil.copy(embedded.body / f"SMPLX_{gender}.npz", tmp_path / "body")
    types(doctor, "prepare rich", "--body")
    shutil.rmtree(tmp_path / "body")
    for command in ("prepare", "convert"):
        split = "rich/val" if command == "convert" else "rich"
        place = f"{command} {split} --raw TMP/raw/rich --cache TMP/cache"
        types(place, "rich: its labels are bodies", "--body DIR", code=2)


def test_what_is_unusual_about_clips_is_named_by_their_first_frames(tmp_path, types):
    write_video(tmp_path / "a.mp4", 2)
    mirrored = with_matrix(Clip("a.mp4").encode(), "mirrored")
    for name in ("b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(mirrored)
    mirrored = "b.mp4 and 1 other clip: mirrored, as its header says"
    assert "a.mp4" not in types("doctor videos --raw TMP", mirrored)
