"""`doctor`: from an empty raw folder to a download that is all there, by names alone."""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline import datasets
from pipeline.__main__ import main
from pipeline.datasets.base import Dataset, RawVideo
from pipeline.datasets.release import Mistake, Part, Totals
from pipeline.doctor import examine as doctor
from pipeline.doctor.examine import examine, examine_body, mixtures
from pipeline.doctor.examined import by_extension, where
from pipeline.errors import RawDataError
from pipeline.raw import listing as raw_names
from pipeline.raw.stand_in import MARKER
from pipeline.smpl import assets

OURS = ("penn_action", "kinetics", "3dpw", "amass")
SAMPLES = Path(__file__).parents[3].parent / "shared" / "data"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def penn(raw: Path, n_videos: int = 3) -> Path:
    """Names as in the download; what the files hold is no label and no picture."""
    for number in range(1, n_videos + 1):
        touch(raw / f"labels/{number:04d}.mat", raw / f"frames/{number:04d}/000001.jpg")
    return raw


def look(name: str, raw: Path) -> doctor.Examination:
    return examine(datasets.get(name), raw)


def counts(examination: doctor.Examination) -> dict[str, tuple[int, int | None, str]]:
    return {found.part.what: (found.found, found.known, found.state) for found in examination.parts}


def told(examination: doctor.Examination) -> str:
    return "\n".join(f"{mistake.what}. {mistake.do}" for mistake in examination.mistakes)


def forbid_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **_: Any) -> Any:
        raise AssertionError(f"opened {arguments[0]}")

    for place in ("builtins.open", "io.open", "os.open", "pathlib.Path.open"):
        monkeypatch.setattr(place, refuse)


# ------------------------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("name", OURS)
def test_embedded_data_are_all_there_and_compared_with_no_release(name: str, embedded: Any) -> None:
    found = look(name, embedded.raw(name))
    assert found.stand_in
    assert found.usable == datasets.get(name).splits
    assert (found.missing, found.incomplete, told(found)) == ((), (), "")
    assert {f.known for f in found.parts} == {None}


@pytest.mark.parametrize("name", OURS)
def test_of_an_empty_or_absent_folder_everything_is_missing(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for raw in (tmp_path / "empty", tmp_path / "absent"):
        found = look(name, raw)
        assert found.usable == ()
        assert {f.state for f in found.parts} <= {"missing", "left out"}
        assert len(found.missing) >= 1
    assert "empty is empty" in told(look(name, tmp_path / "empty"))


def test_a_full_penn_action_is_examined_by_names_and_no_label_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = datasets.get("penn_action")
    (tmp_path / "labels").mkdir()
    for number in range(1, 2327):
        (tmp_path / f"labels/{number:04d}.mat").touch()
        (tmp_path / f"frames/{number:04d}").mkdir(parents=True)
    with monkeypatch.context() as patch:
        forbid_opening(patch)
        found = examine(dataset, tmp_path)
    assert counts(found) == {
        "label files": (2326, 2326, "there"),
        "videos with pictures": (0, 2326, "missing"),
    }
    assert found.usable == ()
    assert "2,326 of 2,326 folders in frames/ are empty, first 0001" in told(found)
    for number in range(1, 2327):
        (tmp_path / f"frames/{number:04d}/000001.jpg").touch()
    with monkeypatch.context() as patch:
        forbid_opening(patch)
        found = examine(dataset, tmp_path)
    assert (found.missing, found.incomplete, told(found)) == ((), (), "")


@pytest.mark.slow
def test_a_quarter_of_a_million_entries_in_one_folder_are_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "kinetics"
    touch(raw / "train/a.mp4", raw / "keypoints/train/a/a.json", raw / "val/a.mp4", raw / "keypoints/val/a/a.json")
    many = [Entry(f"{number:06d}.mp4", raw / "train") for number in range(250_000)]
    looks: list[str] = []
    original = os.scandir

    class Listing(list[Any]):
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def scandir(folder: Any) -> Any:
        looks.append(str(folder))
        return Listing(many) if Path(folder) == raw / "train" else original(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    found = counts(look("kinetics", raw))
    assert found["clips of train"] == (250_000, None, "there")
    # once a pattern (four extensions, with and without class folders), and a few times for what is known to go wrong
    assert looks.count(str(raw / "train")) <= 12


class Entry:
    """Of a folder's listing; it may not be looked at beyond its name and kind."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.path = name, f"{folder}/{name}"

    def is_dir(self) -> bool:
        return False

    def is_file(self) -> bool:
        return True

    def stat(self) -> Any:
        raise AssertionError(f"looked at {self.path}")


def test_an_incomplete_download_is_usable_and_told(tmp_path: Path) -> None:
    found = look("penn_action", penn(tmp_path))
    assert counts(found)["label files"] == (3, 2326, "incomplete")
    assert found.usable == ("train", "test")


def test_a_split_whose_part_is_missing_is_the_only_one_that_cannot_be_used(tmp_path: Path) -> None:
    touch(tmp_path / "sequenceFiles/train/a.pkl", tmp_path / "sequenceFiles/validation/b.pkl")
    touch(*(tmp_path / f"imageFiles/{name}/image_00000.jpg" for name in "ab"))
    found = look("3dpw", tmp_path)
    assert found.usable == ("train", "validation")
    assert [f.part.what for f in found.missing] == ["sequences of test"]


def test_the_release_s_own_list_says_how_many_clips_there_should_be(tmp_path: Path) -> None:
    rows = "label,youtube_id,time_start,time_end,split\n" + "x,abc,0,10,train\n" * 7
    touch(tmp_path / "annotations/train.csv", tmp_path / "train/squat/abc_000000_000010.mp4", tmp_path / "val/v.mp4")
    (tmp_path / "annotations/train.csv").write_text(rows)
    (tmp_path / "annotations/val.csv").write_text("<html>not found</html>\n" * 9)
    found = counts(look("kinetics", tmp_path))
    assert found["clips of train"] == (1, 7, "incomplete")
    assert found["clips of val"] == (1, 19_906, "incomplete")  # of an HTML page nothing is counted


@pytest.mark.skipif(not (SAMPLES / "kinetics/val.csv").is_file(), reason="the real list is not here")
def test_the_real_list_has_the_rows_that_are_known(tmp_path: Path) -> None:
    touch(tmp_path / "val/v.mp4")
    (tmp_path / "annotations").mkdir()
    shutil.copy(SAMPLES / "kinetics/val.csv", tmp_path / "annotations/val.csv")
    assert counts(look("kinetics", tmp_path))["clips of val"][1] == 19_906


def test_known_numbers_of_parts_and_totals_agree() -> None:
    penn_action, threedpw = datasets.get("penn_action"), datasets.get("3dpw")
    assert {part.known for part in penn_action.parts} == {penn_action.totals["all"].videos} == {1258 + 1068}
    by_split = {part.splits[0]: part.known for part in threedpw.parts if part.splits}
    assert by_split == {split: totals.videos for split, totals in threedpw.totals.items()}


@pytest.mark.parametrize("name", list(datasets.DATASETS))
def test_every_dataset_says_what_its_release_consists_of(name: str) -> None:
    dataset = datasets.get(name)
    assert dataset.parts
    for part in dataset.parts:
        assert part.what
        assert part.source
        assert part.patterns
        assert set(part.splits) <= set(dataset.splits)
        assert not any("**" in pattern or pattern.startswith("/") for pattern in part.patterns)
    assert any(not part.without for part in dataset.parts)
    assert set(dataset.totals) <= {*dataset.splits, "all"}


# ------------------------------------------------------------------------- mistakes with any download


@pytest.mark.parametrize("between", ["Penn_Action", "download/Penn_Action"])
def test_unpacked_too_deep_is_told_with_the_folder_to_move(between: str, tmp_path: Path) -> None:
    raw = tmp_path / "penn_action"
    penn(raw / between)
    said = told(look("penn_action", raw))
    assert f"label files and videos with pictures lie in {raw / between}: unpacked too deep" in said
    assert f"Move all that is in {raw / between} to {raw}." in said
    for path in (raw / between).iterdir():
        path.rename(raw / path.name)  # as it says
    assert look("penn_action", raw).usable == ("train", "test")


def test_a_folder_with_other_capitals_is_told(tmp_path: Path) -> None:
    penn(tmp_path)
    (tmp_path / "labels").rename(tmp_path / "Labels")
    said = told(look("penn_action", tmp_path))
    assert f"{tmp_path / 'Labels'} is there, 'labels' is its name in the release. Rename it to labels." in said
    assert "too deep" not in said


def test_the_raw_folder_itself_may_be_spelt_otherwise(tmp_path: Path) -> None:
    penn(tmp_path / "Penn_Action")
    said = told(look("penn_action", tmp_path / "penn_action"))
    assert said == f"there is {tmp_path / 'Penn_Action'}, but no penn_action/ beside it. Rename it to penn_action."


def test_the_dataset_s_own_folder_given_for_the_one_that_holds_it_is_told(tmp_path: Path) -> None:
    penn(tmp_path / "penn_action")
    said = told(look("penn_action", tmp_path / "penn_action/penn_action"))
    assert f"{tmp_path / 'penn_action'} itself holds penn_action" in said
    assert f"--raw {tmp_path}." in said


@pytest.mark.parametrize(
    "name", ["Penn_Action.tar.gz", "labels/all.zip", "x.7z", "x.RAR", "x.tgz", "x.tar.aa", "x.7z.001", "x.tar.gz.001"]
)
def test_archives_that_are_still_packed_are_told_while_something_is_missing(name: str, tmp_path: Path) -> None:
    touch(tmp_path / name)
    assert f"{tmp_path / name} is still packed" in told(look("penn_action", tmp_path))
    penn(tmp_path, n_videos=2326)
    assert told(look("penn_action", tmp_path)) == ""  # all is there: whoever keeps the archive may


def test_an_archive_beside_the_folder_is_found_by_its_official_name(tmp_path: Path) -> None:
    touch(tmp_path / "Penn_Action.tar.gz", tmp_path / "holiday.zip")
    said = told(look("penn_action", tmp_path / "penn_action"))
    assert f"{tmp_path / 'Penn_Action.tar.gz'} is still packed" in said
    assert "holiday" not in said


def test_an_unfinished_download_is_told(tmp_path: Path) -> None:
    touch(tmp_path / "Penn_Action.tar.gz.part")
    assert "is an unfinished download. Finish downloading." in told(look("penn_action", tmp_path))


def test_an_empty_folder_of_the_release_is_told(tmp_path: Path) -> None:
    penn(tmp_path)
    shutil.rmtree(tmp_path / "labels")
    (tmp_path / "labels").mkdir()
    assert f"{tmp_path / 'labels'} is empty. What belongs there comes with Penn_Action.tar.gz." in told(
        look("penn_action", tmp_path)
    )


def test_what_may_not_be_read_is_told_and_not_called_missing_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    penn(tmp_path)
    original = os.scandir

    def scandir(folder: Any) -> Any:
        if Path(folder) == tmp_path / "labels":
            raise PermissionError(13, "Permission denied", str(folder))
        return original(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    said = told(look("penn_action", tmp_path))
    assert f"{tmp_path / 'labels'} cannot be read: Permission denied" in said
    assert "is empty" not in said


def test_a_link_to_a_disk_that_is_not_mounted_and_a_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert f"is a link to {tmp_path / 'nowhere'}, which is not there. Is that disk mounted?" in told(
        look("penn_action", tmp_path / "link")
    )
    touch(tmp_path / "file")
    assert "is no folder" in told(look("penn_action", tmp_path / "file"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be reached" in told(look("penn_action", tmp_path / "loop"))


def test_links_to_other_disks_are_followed(tmp_path: Path) -> None:
    penn(tmp_path / "disk")
    (tmp_path / "raw").mkdir()
    for name in ("labels", "frames"):
        (tmp_path / "raw" / name).symlink_to(tmp_path / "disk" / name)
    assert look("penn_action", tmp_path / "raw").usable == ("train", "test")


def test_real_data_that_bear_the_marker_of_stand_ins_are_told(tmp_path: Path) -> None:
    penn(tmp_path, n_videos=2326)
    touch(tmp_path / MARKER)
    said = told(look("penn_action", tmp_path))
    assert "marks this as embedded stand-in data, but it is as large as the release" in said


def test_files_that_a_desktop_leaves_behind_are_not_counted(tmp_path: Path) -> None:
    penn(tmp_path)
    touch(tmp_path / "labels/._0001.mat", tmp_path / "frames/.DS_Store")
    assert counts(look("penn_action", tmp_path))["label files"][0] == 3
    assert told(look("penn_action", tmp_path)) == ""


# -------------------------------------------------------------------- mistakes with one download


def test_penn_action_pictures_that_were_not_unpacked_and_names_without_partner(tmp_path: Path) -> None:
    penn(tmp_path)
    (tmp_path / "frames/0002/000001.jpg").unlink()
    touch(tmp_path / "labels/0007.mat", tmp_path / "frames/0008/000001.jpg")
    said = told(look("penn_action", tmp_path))
    assert "1 of 4 folders in frames/ are empty, first 0002" in said
    assert "1 label file has no folder in frames/, first 0007.mat" in said
    assert "1 folder in frames/ has no label file, first 0008" in said


def kinetics(raw: Path) -> Path:
    for split in ("train", "val"):
        for clip in ("a", "b"):
            touch(
                raw / split / f"squat/{clip}.mp4", raw / f"keypoints/{split}/{clip}/{clip}_000000000000_keypoints.json"
            )
    return raw


def test_kinetics_clips_without_keypoints_and_keypoints_without_clip(tmp_path: Path) -> None:
    kinetics(tmp_path)
    assert told(look("kinetics", tmp_path)) == ""
    shutil.rmtree(tmp_path / "keypoints/train/b")
    touch(tmp_path / "keypoints/train/squat/squat.json")
    said = told(look("kinetics", tmp_path))
    assert "1 of 2 clips of train have no keypoints, first b. They are counted as no_keypoints" in said
    assert "1 folder in keypoints/train belongs to no clip, first squat" in said


@pytest.mark.parametrize("name", ["alphapose-results.json", "000000_keypoints.json", "squat/a.json"])
def test_kinetics_keypoints_that_are_named_otherwise(name: str, tmp_path: Path) -> None:
    kinetics(tmp_path)
    shutil.rmtree(tmp_path / "keypoints/train/a")
    touch(tmp_path / "keypoints/train/a" / name)
    first = Path(name).parts[0]
    assert f"keypoints/train/a/ holds {first}. Expected a_<12 digits>_keypoints.json (OpenPose) or a.json" in told(
        look("kinetics", tmp_path)
    )


def test_kinetics_clips_that_replace_corrupted_ones_and_were_left_where_they_were_unpacked(tmp_path: Path) -> None:
    kinetics(tmp_path)
    (tmp_path / "replacement").mkdir()  # the mirror's script makes it
    assert told(look("kinetics", tmp_path)) == ""
    touch(tmp_path / "replacement/replacement_for_corrupted_k400/a.mp4")
    assert "Move them over the clips of the same names in train/, and remove that folder." in told(
        look("kinetics", tmp_path)
    )


def test_3dpw_pictures_without_sequences_and_the_other_way_round(tmp_path: Path) -> None:
    touch(tmp_path / "imageFiles/a/image_00000.jpg")
    assert "there are imageFiles, but no sequenceFiles" in told(look("3dpw", tmp_path))
    touch(*(tmp_path / f"sequenceFiles/{split}/{split}.pkl" for split in ("train", "validation", "test")))
    assert "3 sequences have no folder in imageFiles/, first test" in told(look("3dpw", tmp_path))
    (tmp_path / "imageFiles/train").mkdir()
    assert "1 of 2 folders in imageFiles/ are empty, first train" in told(look("3dpw", tmp_path))


def test_3dpw_without_its_split_folders_or_as_a_copy_for_python_3(tmp_path: Path) -> None:
    touch(tmp_path / "sequenceFiles/a.pkl", tmp_path / "sequenceFiles_py3/train/a.pkl")
    touch(tmp_path / "sequenceFiles.zip")
    said = told(look("3dpw", tmp_path))
    assert "1 sequence lies in sequenceFiles/ itself, first a.pkl: the split is not known" in said
    assert "sequenceFiles_py3/ is not read" in said
    assert "sequenceFiles.zip/ is not read" not in said


def test_amass_subsets_that_are_packed_of_both_kinds_or_without_motions(tmp_path: Path) -> None:
    touch(tmp_path / "CMU/01/01_01_poses.npz", tmp_path / "CMU/01/shape.npz")
    assert told(look("amass", tmp_path)) == ""
    touch(tmp_path / "CMU.tar.bz2")
    assert told(look("amass", tmp_path)) == ""  # unpacked, and kept
    touch(tmp_path / "KIT.tar.bz2", tmp_path / "CMU/01/01_01_stageii.npz", tmp_path / "SFU/0005/neutral_stagei.npz")
    said = told(look("amass", tmp_path))
    assert "1 subset looks still packed, first KIT.tar.bz2" in said
    assert "CMU/ holds SMPL-H's (*_poses.npz) and SMPL-X's (*_stageii.npz) files" in said
    assert "SFU/ holds no motions, only stagei.npz and shape.npz" in said


def test_amass_subsets_with_a_folder_more_are_told_with_where_to_move_them(tmp_path: Path) -> None:
    touch(tmp_path / "amass/SFU/0005/0005_Jogging001_poses.npz", tmp_path / "CMU/CMU/01/01_01_poses.npz")
    said = told(look("amass", tmp_path))
    inner, subset = tmp_path / "amass", tmp_path / "CMU"
    assert f"the subsets lie in {inner}: unpacked too deep. Move all that is in {inner} to {tmp_path}." in said
    assert f"the subset CMU lies in {subset}/CMU: unpacked too deep. Move all that is in {subset}/CMU to" in said


def test_amass_as_smpl_x_is_a_note(tmp_path: Path) -> None:
    touch(tmp_path / "CMU/01/01_01_stageii.npz")
    found = look("amass", tmp_path)
    assert found.usable == ("train",)
    assert "which is SMPL-X unless it was chosen as SMPL+H. Nothing to do" in told(found)


# ------------------------------------------------------------------------- datasets of other packages


@dataclass(frozen=True)
class Ninth(Dataset):
    """Says nothing of its release."""

    name: ClassVar[str] = "ninth"
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    version: ClassVar[int] = 1
    page: ClassVar[str] = "https://example.org"

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        return ("frame_index",)

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        if not (raw / split).is_dir():
            raise RawDataError(raw / split, "folder", expected="CSV files", found="none", do="Record some.")
        return [RawVideo(file.stem, (file.relative_to(raw),)) for file in sorted((raw / split).glob("*.csv"))]

    def read(self, *_: Any) -> Any:
        raise AssertionError("read a label")


def test_a_dataset_that_says_nothing_of_its_release_is_examined_by_its_reader(tmp_path: Path) -> None:
    touch(tmp_path / "train/a.csv", tmp_path / "train/b.csv")
    found = examine(Ninth(), tmp_path)
    assert counts(found) == {"videos of train": (2, None, "there"), "videos of test": (0, None, "missing")}
    assert found.usable == ("train",)
    assert "expected CSV files, found none. Record some." in told(found)


def test_a_reader_that_fails_spoils_no_other_examination(tmp_path: Path) -> None:
    class Broken(Ninth):
        parts: ClassVar[tuple[Part, ...]] = (Part("tables", ("*.csv",), "the lab"),)

        def mistakes(self, raw: Path) -> Iterator[Mistake]:
            raise ZeroDivisionError("division by zero")

    found = examine(Broken(), tmp_path)
    assert "looking at ninth failed: ZeroDivisionError: division by zero" in told(found)


def test_a_dataset_that_cannot_say_how_large_its_release_is_is_told_and_counted_all_the_same(tmp_path: Path) -> None:
    class Broken(type(datasets.get("penn_action"))):  # type: ignore[misc]
        def known(self, raw: Path, part: Part) -> int | None:
            raise ZeroDivisionError("division by zero")

    touch(tmp_path / "labels/0001.mat")
    found = examine(Broken(), tmp_path)
    assert told(found).count("looking at penn_action failed: ZeroDivisionError: division by zero") == 1
    assert [(part.found, part.known) for part in found.parts] == [(1, None), (0, None)]


# ------------------------------------------------------------------------------------ the body model


def test_the_body_s_parts_are_the_files_that_a_body_needs(embedded: Any, tmp_path: Path) -> None:
    assert examine_body(embedded.body).missing == ()
    assert examine_body(embedded.body).stand_in
    lacking = examine_body(tmp_path)
    assert len(lacking.missing) == len(assets.missing(tmp_path)) == 4
    for file in sorted(embedded.body.iterdir()):
        shutil.copy(file, tmp_path)
        assert len(examine_body(tmp_path).missing) == len(assets.missing(tmp_path))


@pytest.mark.parametrize("folder", ["", "models"])
def test_smpl_under_the_name_of_its_archive_is_told_with_the_right_name(folder: str, tmp_path: Path) -> None:
    file = tmp_path / folder / "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl"
    touch(file)
    assert f"Move it to {tmp_path / 'SMPL_NEUTRAL.pkl'}." in told(examine_body(tmp_path))


def test_stand_ins_and_the_real_thing_together_are_told(embedded: Any, tmp_path: Path) -> None:
    real = embedded.copy("3dpw", tmp_path / "3dpw")
    (real / MARKER).unlink()
    found, body = look("3dpw", real), examine_body(embedded.body)
    (mixture,) = mixtures([found], body)
    assert mixture.what.startswith("3dpw is real, but the body in ")
    (mixture,) = mixtures([found, look("amass", embedded.raw("amass"))], None)
    assert mixture.what == "amass: stand-ins, beside real 3dpw"
    assert list(mixtures([look("3dpw", embedded.raw("3dpw"))], body)) == []


# --------------------------------------------------------------------------------------- the command


def test_from_an_empty_raw_folder_to_a_converted_dataset_by_what_it_prints(
    embedded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "my raw"
    raw.mkdir()
    assert run("doctor", "penn_action", "--raw", raw) == 1
    first = capsys.readouterr().out
    assert "get     Penn_Action.tar.gz" in first
    assert "from    http://dreamdragon.github.io/PennAction/" in first
    assert re.search("labels/<0001>.mat +label files", first)
    again = re.findall("When that is done: .* -m pipeline (.*)", first)[0]

    assert shlex.split(again) == ["doctor", "penn_action", "--raw", str(raw)]
    embedded.copy("penn_action", raw / "penn_action")  # the download
    assert run("doctor", "penn_action", "kinetics", "--raw", raw) == 1
    assert "-m pipeline doctor penn_action kinetics --raw" in capsys.readouterr().out, "as it was typed"
    assert run(*shlex.split(again)) == 0
    commands = re.findall(" -m pipeline (convert .*)", capsys.readouterr().out)
    assert len(commands) == 2
    for line in commands:
        assert run(*shlex.split(line)) == 0
    assert (tmp_path / "data/cache/penn_action/test/manifest.json").is_file()


def configuration(folder: Path, datasets: str, embedded: str = "false") -> Path:
    file = folder / "luigi.cfg"
    file.write_text(
        f"[paths]\nraw = raw\nbody = body\ncache = cache\nruns = runs\n"
        f"[data]\ndatasets = {datasets}\n[embedded]\nenabled = {embedded}\n"
    )
    return file


def test_luigi_cfg_says_what_is_enabled_and_where_it_lies(
    embedded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(configuration(tmp_path, "penn_action amass")))
    embedded.copy("penn_action", tmp_path / "raw/penn_action")
    assert run("doctor") == 1
    told = capsys.readouterr().out
    assert "amass" in told
    assert "kinetics" not in told
    assert "Or take out of [data] datasets what you do not have, and: make data" in told
    assert run("doctor", "penn_action") == 0
    assert capsys.readouterr().out.endswith("Next, unless `plan` has nothing to do: make data\n")


def test_a_missing_body_counts_where_a_dataset_uses_it(
    embedded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(configuration(tmp_path, "3dpw amass")))
    for name in ("3dpw", "amass"):
        embedded.copy(name, tmp_path / "raw" / name)
    assert run("doctor") == 1
    assert run("doctor", "amass") == 0
    shutil.copytree(embedded.body, tmp_path / "body")
    assert run("doctor") == 0
    (tmp_path / "body" / MARKER).unlink()
    capsys.readouterr()
    assert run("doctor") == 1
    assert "3dpw is a stand-in, but the body in" in capsys.readouterr().out


def test_a_body_that_no_enabled_dataset_is_converted_with_is_not_missing(
    embedded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(configuration(tmp_path, "penn_action")))
    embedded.copy("penn_action", tmp_path / "raw/penn_action")
    (tmp_path / "raw/penn_action" / MARKER).unlink()
    assert run("doctor") == 0
    told = capsys.readouterr().out
    assert "body in" in told
    assert "not needed to convert these; training and prediction need it" in told
    assert told.count("not needed yet") == 6, "every part of the body"
    assert "SMPL_python" not in told.partition("not needed to convert")[2]
    assert "weights = spin:FILE, torchvision:NAME or file:FILE" in told
    assert run("doctor", "--json") == 0
    body = json.loads(capsys.readouterr().out)["examined"][-1]
    assert "missing" not in {part["state"] for part in body["parts"]}


def test_a_part_that_is_left_out_says_what_is_lost_without_it(
    embedded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("doctor", "3dpw", "--raw", tmp_path, "--body", tmp_path)
    assert "left out (without it: no evaluation with male actors' own bodies)" in capsys.readouterr().out


def test_what_make_data_will_make_is_not_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(configuration(tmp_path, "3dpw amass", embedded="true")))
    assert run("doctor") == 0
    told = capsys.readouterr().out
    assert told.count("`make data` makes a stand-in") == 3  # both datasets and the body
    assert "will be made" in told
    assert "missing" not in told
    assert told.endswith("Next, unless `plan` has nothing to do: make data\n")


def test_as_json_it_says_the_same(embedded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "3dpw", "--raw", tmp_path, "--body", embedded.body, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    threedpw, body = found["examined"]
    assert (threedpw["dataset"], threedpw["usable"], body["dataset"]) == ("3dpw", [], "body")
    assert threedpw["parts"][0]["where"] == ["sequenceFiles/train/*.pkl"]
    assert found["mixtures"] == []


def test_without_settings_it_asks_where_the_data_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    assert run("doctor") == 2
    assert "or say where the data lie: --raw DIR" in capsys.readouterr().err
    assert run("doctor", "penn", "--raw", tmp_path) == 2
    assert "no dataset is called 'penn'" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------- by names


@pytest.mark.parametrize("pattern", ["*/*.txt", "a/*", "a/*/", "*/", "a/x.txt", "*", "a/b/*.txt", "z/*", "[ab]/x.*"])
def test_globs_match_what_pathlib_s_do(pattern: str, tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a/x.txt", "a/y.TXT", "a/b/z.txt", "b/x.txt", "c")))
    found = sorted(Path(path) for path in raw_names.find(tmp_path, pattern, {}))
    expected = sorted(tmp_path.glob(pattern.rstrip("/")))
    assert found == [path for path in expected if path.is_dir() or not pattern.endswith("/")]


def test_forms_that_differ_by_extension_are_told_together() -> None:
    assert by_extension(()) == []
    assert by_extension(("a", "b")) == ["a", "b"]
    assert by_extension(("a/*/", "b/*.mp4", "b/*.avi")) == ["a/*/", "b/*.{mp4,avi}"]
    assert where(doctor.Found(Part("x", ("a", "b"), "y"), 0, None)) == "a, ..."


def test_names_of_strangers_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    penn(tmp_path / "penn_action")
    (tmp_path / "penn_action/frames/\x1b[31m[red]").mkdir()
    np.save(tmp_path / "penn_action/\x1b]0;x.npy", np.zeros(1))
    run("doctor", "penn_action", "--raw", tmp_path)
    assert "\x1b" not in capsys.readouterr().out


# ---------------------------------------------------------------------------- what strangers met


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    run("doctor", *arguments)
    return capsys.readouterr().out


def h36m(raw: Path, *subjects: str) -> Path:
    for subject in subjects:
        touch(
            raw / subject / "Videos/Walking.54138969.mp4",
            raw / subject / "MyPoseFeatures/D2_Positions/Walking.54138969.cdf",
            raw / subject / "MyPoseFeatures/D3_Positions_mono/Walking.54138969.cdf",
        )
    return raw


@pytest.mark.parametrize("others", [(), ("S5",)])
def test_other_capitals_below_a_subject_are_told_and_not_an_archive_to_unpack(
    others: tuple[str, ...], tmp_path: Path
) -> None:
    h36m(tmp_path, "S1", *others)
    (tmp_path / "S1/Videos").rename(tmp_path / "S1/videos")
    said = told(look("h36m", tmp_path))
    assert said == f"{tmp_path / 'S1/videos'} is there, 'Videos' is its name in the release. Rename it to Videos."


def test_what_is_missing_is_to_be_got_beside_what_is_only_misspelt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    h36m(tmp_path / "h36m", "S1")
    (tmp_path / "h36m/S1/Videos").rename(tmp_path / "h36m/S1/videos")
    said = shown(capsys, "h36m", "--raw", tmp_path)
    assert "Videos_S9.tgz, Videos_S11.tgz" in said
    assert "Videos_S1.tgz" not in said


def test_human36m_s_picture_folders_may_be_spelt_in_either_way(tmp_path: Path) -> None:
    h36m(tmp_path, "S1")
    touch(tmp_path / "S1/images/S1_Walking.54138969/000001.jpg")
    assert "images" not in told(look("h36m", tmp_path))


def test_other_capitals_are_told_where_the_name_has_a_wildcard(tmp_path: Path) -> None:
    for sequence in ("s1/Seq1", "S2/seq2", "S3/Seq1"):
        touch(tmp_path / sequence / "annot.mat")
    said = told(look("mpi_inf_3dhp", tmp_path))
    assert f"{tmp_path / 's1'} is there, 'S1' is its name in the release. Rename it to S1." in said
    assert f"{tmp_path / 'S2/seq2'} is there, 'Seq2' is its name in the release" in said


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("3dpw", "sequenceFiles/val", "validation"),
        ("kinetics", "validation", "val"),
        ("posetrack", "images/training", "train"),
    ],
)
def test_a_split_under_another_usual_name_is_told(name: str, wrong: str, right: str, tmp_path: Path) -> None:
    touch(tmp_path / wrong / "a.pkl", tmp_path / wrong / "b/a.mp4")
    assert f"{tmp_path / wrong} is there, {right!r} is its name in the release. Rename it to {right}." in told(
        look(name, tmp_path)
    )


def test_kinetics_keypoints_without_the_folder_of_their_split_are_told(tmp_path: Path) -> None:
    kinetics(tmp_path)
    shutil.rmtree(tmp_path / "keypoints/val")
    (tmp_path / "val/squat/b.mp4").rename(tmp_path / "val/squat/c.mp4")
    touch(tmp_path / "keypoints/c/c.json")
    said = told(look("kinetics", tmp_path))
    assert "1 folder lies in keypoints/ itself, first c, which is a clip of val" in said
    assert "Move the folders of val's clips into keypoints/val/." in said


def test_kinetics_keypoints_are_compared_with_the_clips_there(tmp_path: Path) -> None:
    kinetics(tmp_path)
    shutil.rmtree(tmp_path / "keypoints/train/b")
    assert counts(look("kinetics", tmp_path))["clips of train with keypoints"] == (1, 2, "incomplete")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "annotations/train.csv is not the release's list"),
        ("label,youtube_id\nx,a\n", "annotations/train.csv lists 1 clip, and 2 are there: not used"),
    ],
)
def test_a_list_that_broke_off_is_told_and_not_believed(text: str, words: str, tmp_path: Path) -> None:
    kinetics(tmp_path)
    touch(tmp_path / "annotations/train.csv")
    (tmp_path / "annotations/train.csv").write_text(text)
    found = look("kinetics", tmp_path)
    assert counts(found)["clips of train"] == (2, None, "there")
    assert words in told(found)


def test_more_than_the_release_has_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    penn(tmp_path / "penn_action", n_videos=2327)
    assert "more than the release has" in shown(capsys, "penn_action", "--raw", tmp_path)


def test_posetrack_pictures_are_compared_with_the_annotations(tmp_path: Path) -> None:
    touch(*(tmp_path / f"annotations/train/{name}.json" for name in "abcd"))
    touch(*(tmp_path / f"images/train/{name}/000000.jpg" for name in "abc"))
    found = look("posetrack", tmp_path)
    assert counts(found)["training pictures"] == (3, 4, "incomplete")
    assert "images/train has no pictures of 1 of 4 annotated sequences, the first is d" in told(found)


def test_an_archive_in_pieces_is_told_once_with_the_command_that_joins_it(tmp_path: Path) -> None:
    touch(*(tmp_path / f"posetrack18_images.tar.{end}" for end in ("aa", "ab")))
    found = look("posetrack", tmp_path)
    assert told(found).count("still packed") == 1
    assert "posetrack18_images.tar.aa and 1 more are still packed" in told(found)
    assert "cat posetrack18_images.tar.a? | tar -xf -; and look again" in told(found)
    assert "unzip" not in told(found)


def test_posetrack_2017_is_told_alone(tmp_path: Path) -> None:
    touch(tmp_path / "images/bonn_mpii_test_v2_5sec/00001_mpii/1.jpg")
    (tmp_path / "annotations/train").mkdir(parents=True)
    (mistake,) = look("posetrack", tmp_path).mistakes
    assert mistake.what.endswith("is of PoseTrack 2017")


def test_a_folder_in_a_folder_of_its_name_is_told_alone_and_can_be_moved_as_it_says(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        touch(tmp_path / f"sequenceFiles/{split}/{split}.pkl")
        touch(tmp_path / f"imageFiles/imageFiles/{split}/image_00000.jpg")
    (mistake,) = look("3dpw", tmp_path).mistakes
    source, target = re.fullmatch("Move all that is in (.*) to (.*)\\.", mistake.do).groups()  # type: ignore[union-attr]
    assert (source, target) == (str(tmp_path / "imageFiles/imageFiles"), str(tmp_path / "imageFiles"))
    for folder in list(Path(source).iterdir()):
        folder.rename(Path(target) / folder.name)
    Path(source).rmdir()
    assert look("3dpw", tmp_path).usable == ("train", "validation", "test")


def test_what_lies_there_packed_is_not_to_be_got_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path / "3dpw/sequenceFiles.zip")
    said = shown(capsys, "3dpw", "--raw", tmp_path)
    assert "nothing of it is unpacked yet" in said
    assert f"Unpack in {tmp_path / '3dpw'}: unzip sequenceFiles.zip; and look again." in said
    assert "get     imageFiles.zip" in said
    assert "get     sequenceFiles.zip" not in said


@dataclass(frozen=True)
class Counted(Ninth):
    """Knows how many videos there are, and not how many files of each part."""

    parts: ClassVar[tuple[Part, ...]] = (Part("tables", ("train/*.csv",), "the lab"),)
    totals: ClassVar[Mapping[str, Totals]] = {"train": Totals(videos=3)}


def test_totals_without_a_known_number_of_any_part_show_what_is_incomplete(tmp_path: Path) -> None:
    touch(tmp_path / "train/a.csv", tmp_path / "train/b.csv")
    found = examine(Counted(), tmp_path)
    assert counts(found)["videos of train"] == (2, 3, "incomplete")


def test_totals_over_all_splits_count_each_video_once(tmp_path: Path) -> None:
    class Over(Counted):
        totals: ClassVar[Mapping[str, Totals]] = {"all": Totals(videos=3)}

    touch(*(tmp_path / file for file in ("train/a.csv", "train/b.csv", "test/b.csv")))
    assert counts(examine(Over(), tmp_path))["videos"] == (2, 3, "incomplete")


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_a_raw_folder_that_is_none_is_told_as_such(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    if kind == "file":
        touch(raw)
    assert run("doctor", "penn_action", "--raw", raw) == 2
    said = capsys.readouterr().err
    assert ("there is no such folder (a typo?)" if kind == "absent" else "is a file") in said


def test_the_dataset_s_own_folder_as_raw_folder_is_answered_with_the_right_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    penn(tmp_path / "penn_action")
    for names in (("penn_action",), ()):
        assert run("doctor", *names, "--raw", tmp_path / "penn_action") == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "is penn_action's own folder" in said.err
        assert said.err.rstrip().endswith(f"--raw {tmp_path}")


@pytest.mark.parametrize("name", list(datasets.DATASETS))
def test_the_layout_is_whole_and_for_people(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / name
    said = shown(capsys, name, "--raw", tmp_path)
    listing = said.partition(f"so that {raw}/ holds")[2].partition("When that is done")[0]
    assert listing
    assert not re.search(r"\[[!0-9]|, \.\.\.", listing)
    for part in datasets.get(name).parts:
        for form in part.shown or by_extension(part.patterns):
            assert form in listing


def test_every_subject_of_human36m_and_where_the_rest_comes_from_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = shown(capsys, "h36m", "--raw", tmp_path, "--body", tmp_path)
    assert "{S1,S5,S6,S7,S8}/Videos/<action>.<camera>.mp4" in said
    assert "Videos_S9.tgz, Videos_S11.tgz" in said
    assert "Release-v1.1" in said
    assert "github.com/mks0601/I2L-MeshNet_RELEASE" in said
    assert "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl, renamed to SMPL_NEUTRAL.pkl" in said
    assert "basicmodel_f_lbs_10_207_0_v1.1.0.pkl, renamed to SMPL_FEMALE.pkl" in said


def test_no_command_uses_a_body_that_conversion_refuses(
    embedded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("3dpw", "amass"):
        (embedded.copy(name, tmp_path / name) / MARKER).unlink()
    said = shown(capsys, "3dpw", "amass", "--raw", tmp_path, "--body", embedded.body)
    assert "is real, but the body in" in said
    assert "convert amass train" in said
    assert "convert 3dpw" not in said


def test_real_data_are_not_led_into_a_cache_of_stand_ins(
    embedded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stand_in, real = embedded.copy("penn_action", tmp_path / "made/penn_action"), tmp_path / "raw/penn_action"
    assert run("convert", "penn_action", "train", "--raw", stand_in, "--cache", "data/cache") == 0
    assert "--cache data/cache" in shown(capsys, "penn_action", "--raw", stand_in.parent)
    (embedded.copy("penn_action", real) / MARKER).unlink()
    said = shown(capsys, "penn_action", "--raw", real.parent)
    assert "--cache data/cache_real" in said
    assert "data/cache holds stand-ins, penn_action/train for one: no training takes both" in said


def test_untrained_weights_beside_real_data_are_told_before_make_data_refuses_them(
    embedded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = configuration(tmp_path, "penn_action")
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(file))
    (embedded.copy("penn_action", tmp_path / "raw/penn_action") / MARKER).unlink()
    said = shown(capsys)
    assert "First, in luigi.cfg, set [features] weights = spin:FILE" in said
    assert said.endswith("Then: make data\n")
    file.write_text(file.read_text() + "[features]\nweights = spin:model.pt\n")
    assert shown(capsys).endswith("Next, unless `plan` has nothing to do: make data\n")


def test_a_command_for_each_kind_of_archive() -> None:
    assert doctest.testmod(raw_names).failed == 0
