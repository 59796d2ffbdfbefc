"""`doctor`: from an empty raw folder to a complete download, by the names of files alone."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline import datasets
from pipeline.accounting import Totals
from pipeline.commands.maintenance.examination_text import table
from pipeline.commands.maintenance.examine import Examination, examine, examine_body, mixtures
from pipeline.datasets.base import Dataset, Part, globs
from pipeline.errors import RawDataError
from pipeline.files.formats import smpl_files
from pipeline.files.raw import RawVideo
from pipeline.files.raw.stand_in import MARKER

EVERY = pytest.mark.parametrize("name", list(datasets.DATASETS))


@pytest.fixture
def doctor(ran: Any) -> Any:
    """What `doctor` prints; `code`: the exit code that it must have."""
    return lambda *words, code=1: str(ran("doctor", *words, code=code).out)


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def penn(raw: Path, n_videos: int = 3) -> Path:
    """Names as in the download; the files hold no label and no picture."""
    for number in range(1, n_videos + 1):
        touch(raw / f"labels/{number:04d}.mat", raw / f"frames/{number:04d}/000001.jpg")
    return raw


def look(name: str, raw: Path) -> Examination:
    return examine(datasets.get(name), raw)


def counts(examination: Examination) -> dict[str, tuple[int, int | None, str]]:
    return {found.part.what: (found.found, found.known, found.state) for found in examination.parts}


def problems(examination: Examination) -> str:
    return "\n".join(f"{problem.what}. {problem.do}" for problem in examination.mistakes)


@EVERY
def test_demo_data_are_complete_and_compared_with_no_release(name: str, embedded: Any) -> None:
    found = look(name, embedded.raw(name))
    assert found.stand_in
    assert found.usable == datasets.get(name).splits
    assert (found.missing, found.incomplete, problems(found)) == ((), (), "")
    assert {f.known for f in found.parts} == {None}


@EVERY
def test_of_an_empty_or_absent_folder_everything_is_missing(name: str, tmp_path: Path) -> None:
    for raw in (tmp_path, tmp_path / "absent"):
        found = look(name, raw)
        assert found.usable == ()
        assert {f.state for f in found.parts} <= {"missing", "left out"}


def test_a_download_is_counted_by_names_alone_hidden_files_not(tmp_path: Path) -> None:
    penn(tmp_path)
    touch(tmp_path / "labels/._0001.mat", tmp_path / "frames/.DS_Store", tmp_path / "labels/x\x1b[31m[red].mat")
    found = look("penn_action", tmp_path)
    assert counts(found)["label files"] == (4, 2326, "incomplete")
    assert (found.usable, problems(found)) == (("train", "test"), "")


def test_links_to_other_disks_are_followed_and_broken_ones_reported(tmp_path: Path) -> None:
    penn(tmp_path / "disk")
    (tmp_path / "raw").symlink_to(tmp_path / "disk")
    assert look("penn_action", tmp_path / "raw").usable == ("train", "test")
    shutil.rmtree(tmp_path / "disk")
    assert "Is that disk mounted?" in problems(look("penn_action", tmp_path / "raw"))


def test_a_split_whose_part_is_missing_is_the_only_one_that_cannot_be_used(tmp_path: Path) -> None:
    touch(tmp_path / "sequenceFiles/train/a.pkl", tmp_path / "sequenceFiles/validation/b.pkl")
    touch(*(tmp_path / f"imageFiles/{name}/image_00000.jpg" for name in "ab"))
    found = look("3dpw", tmp_path)
    assert found.usable == ("train", "validation")
    assert [f.part.what for f in found.missing] == ["sequences of test"]


@EVERY
def test_every_dataset_declares_its_release(name: str) -> None:
    dataset = datasets.get(name)
    assert any(not part.without for part in dataset.parts)
    for part in dataset.parts:
        assert part.what
        assert part.source
        assert part.patterns
        assert set(part.splits) <= set(dataset.splits)
        assert not any("**" in pattern or pattern.startswith("/") for pattern in globs(part.patterns))
    assert set(dataset.totals) <= {*dataset.splits, "all"}
    assert len(dataset.mistakes) <= 2


@pytest.mark.parametrize(
    ("place", "do"),
    [
        ("raw/penn_action/download/Penn_Action", "Move what is in"),
        ("raw/Penn_Action", "Move what is in"),
        ("raw", "Name the folder above: --raw"),  # as for `--raw` with the dataset's own folder
    ],
)
def test_a_download_that_is_one_folder_off_is_found(place: str, do: str, tmp_path: Path) -> None:
    penn(tmp_path / place)
    found = problems(look("penn_action", tmp_path / "raw/penn_action"))
    assert f"one folder off, in {tmp_path / place}. {do}" in found
    assert "packed" not in found
    for split in ("train", "validation", "test"):
        touch(tmp_path / f"sequenceFiles/{split}/a.pkl", tmp_path / "imageFiles/imageFiles/a/image_00000.jpg")
    assert f"sequences' pictures: one folder off, in {tmp_path / 'imageFiles'}" in problems(look("3dpw", tmp_path))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("x.tar.gz", "tar -xf x.tar.gz"),
        ("a b.7z", "7z x 'a b.7z'"),
        ("x.RAR", "unrar x x.RAR"),
        ("x.tar.gz.001", "cat x.tar.gz.0* | tar -xzf -"),
        ("x.7z.002", "7z x x.7z.001"),
    ],
)
def test_archives_are_reported_while_something_is_missing(name: str, command: str, tmp_path: Path) -> None:
    touch(tmp_path / name)
    found = problems(look("penn_action", tmp_path))
    assert f"{tmp_path / name} is still packed" in found
    assert command in found


def test_an_archive_beside_the_folder_is_found_by_its_official_name(tmp_path: Path, doctor: Any) -> None:
    touch(tmp_path / "Penn_Action.tar.gz", tmp_path / "holiday.zip")
    printed = doctor("penn_action", "--raw", tmp_path)
    assert f"{tmp_path / 'Penn_Action.tar.gz'} is still packed" in printed
    assert "holiday" not in printed
    assert "get     " not in printed  # what is there packed need not be downloaded again


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("posetrack", "images/bonn_mpii_test_v2_5sec/00001_mpii/1.jpg"),
        ("3dpw", "sequenceFiles/a.pkl"),
        ("insta_variety", "train/insta_variety_00.h5"),
        ("mpi_inf_3dhp", "TS1/annot_data.mat"),
        ("amass", "amass/SFU/0005/0005_Jogging001_poses.npz"),
        ("kinetics", "replacement/replacement_for_corrupted_k400/a.mp4"),
        ("h36m", "S1/MyPoseFeatures.tgz"),
    ],
)
def test_a_known_mistake_is_reported_with_what_to_do(name: str, file: str, tmp_path: Path) -> None:
    assert problems(look(name, tmp_path)) == ""
    touch(tmp_path / file)
    assert str(tmp_path / Path(file).parts[0]) in problems(look(name, tmp_path))


@dataclass(frozen=True)
class Ninth(Dataset):
    """Declares nothing of its release."""

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


def test_a_dataset_that_declares_nothing_is_examined_by_what_its_reader_lists(tmp_path: Path) -> None:
    touch(tmp_path / "train/a.csv", tmp_path / "train/b.csv")
    found = examine(Ninth(), tmp_path)
    assert counts(found) == {"videos of train": (2, None, "there"), "videos of test": (0, None, "missing")}
    assert found.usable == ("train",)
    assert "expected CSV files, found none. Record some." in problems(found)


def test_a_reader_that_fails_stops_no_other_examination(tmp_path: Path) -> None:
    class Broken(Ninth):
        def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
            raise ZeroDivisionError("division by zero")

    assert "ninth cannot be examined: ZeroDivisionError" in problems(examine(Broken(), tmp_path))


def test_totals_count_each_video_once_where_no_part_has_a_known_number(tmp_path: Path) -> None:
    class Counted(Ninth):
        parts: ClassVar[tuple[Part, ...]] = (Part("tables", ("train/*.csv",), "the lab"),)
        totals: ClassVar[Mapping[str, Totals]] = {"all": Totals(videos=3)}

    touch(*(tmp_path / file for file in ("train/a.csv", "train/b.csv", "test/b.csv")))
    assert counts(examine(Counted(), tmp_path))["videos"] == (2, 3, "incomplete")


def test_beside_a_complete_release_archives_may_stay_and_more_than_it_has_is_marked(tmp_path: Path) -> None:
    class Small(Ninth):
        parts: ClassVar[tuple[Part, ...]] = (Part("tables", ("train/*.csv",), "the lab", known=2),)

    found = []
    for file in ("x.zip", "train/a.csv", "train/b.csv", "train/c.csv"):
        touch(tmp_path / file)
        seen = examine(Small(), tmp_path)
        marked = "more than the release has" in " ".join(map(str, table([seen]).columns[-1].cells))
        found.append(("still packed" in problems(seen), marked))
    assert found == [(True, False), (True, False), (False, False), (False, True)]


def test_the_body_s_parts_are_the_files_that_a_body_needs(embedded: Any, tmp_path: Path) -> None:
    assert (examine_body(embedded.body).missing, examine_body(embedded.body).stand_in) == ((), True)
    assert len(examine_body(tmp_path).missing) == len(smpl_files.missing(tmp_path)) == 4
    for file in sorted(embedded.body.iterdir()):
        shutil.copy(file, tmp_path)
        assert len(examine_body(tmp_path).missing) == len(smpl_files.missing(tmp_path))
    touch(tmp_path / "models" / "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl")
    assert "has its name in SMPL's archive. Rename it" in problems(examine_body(tmp_path))


def test_demo_data_beside_real_data_are_reported(embedded: Any, tmp_path: Path) -> None:
    real = embedded.copy("3dpw", tmp_path / "3dpw")
    (real / MARKER).unlink()
    found, body = look("3dpw", real), examine_body(embedded.body)
    assert [m.what.startswith("3dpw is real, but the body in ") for m in mixtures([found], body)] == [True]
    (mixture,) = mixtures([found, look("amass", embedded.raw("amass"))], None)
    assert mixture.what == "amass: demo data, beside real 3dpw"
    assert list(mixtures([look("3dpw", embedded.raw("3dpw"))], body)) == []


def test_from_an_empty_raw_folder_to_a_converted_dataset_by_what_it_prints(
    embedded: Any, tmp_path: Path, doctor: Any, ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "my raw"
    raw.mkdir()
    first = doctor("penn_action", "--raw", raw)
    assert "get     Penn_Action.tar.gz" in first
    assert "from    http://dreamdragon.github.io/PennAction/" in first
    assert re.search("labels/<0001>.mat +label files", first)
    again = shlex.split(re.findall("When that is done: .* -m pipeline (.*)", first)[0])
    assert again == ["doctor", "penn_action", "--raw", str(raw)]
    embedded.copy("penn_action", raw / "penn_action")  # the download
    doctor("penn_action", "kinetics", "--raw", raw)
    train, test = re.findall(" -m pipeline (convert .*)", ran(*again).out)
    assert "penn_action train" in train
    ran(*shlex.split(test), "--workers", 1)
    assert (tmp_path / "data/cache/penn_action/test/manifest.json").is_file()


def test_names_of_files_cannot_steer_the_terminal(tmp_path: Path, doctor: Any) -> None:
    touch(tmp_path / "penn_action/\x1b]0;[red]x.zip")
    assert "\x1b" not in doctor("penn_action", "--raw", tmp_path)


def test_as_json_it_reports_the_same(embedded: Any, tmp_path: Path, doctor: Any) -> None:
    found = json.loads(doctor("3dpw", "--raw", tmp_path, "--body", embedded.body, "--json"))
    threedpw, body = found["examined"]
    assert (threedpw["dataset"], threedpw["usable"], body["dataset"]) == ("3dpw", [], "body")
    assert threedpw["parts"][0]["where"] == ["sequenceFiles/train/*.pkl"]
    assert found["mixtures"] == []


def test_a_body_is_missing_only_where_a_dataset_uses_it(
    embedded: Any, tmp_path: Path, doctor: Any, luigi_cfg: Any
) -> None:
    luigi_cfg("3dpw amass")
    embedded.copy("amass", tmp_path / "raw/amass")
    embedded.copy("3dpw", tmp_path / "raw/3dpw")
    doctor()
    assert "not needed to convert these" in doctor("amass", code=0)
    shutil.copytree(embedded.body, tmp_path / "body")
    doctor(code=0)
    (tmp_path / "body" / MARKER).unlink()
    assert "3dpw is demo data, but the body in" in doctor()


def test_what_make_data_will_make_is_not_missing(doctor: Any, luigi_cfg: Any) -> None:
    luigi_cfg("3dpw amass", "[embedded]\nenabled = true\n")
    printed = doctor(code=0)
    assert printed.count("`make data` makes demo data") == 3  # both datasets and the body
    assert "missing" not in printed


def test_no_command_mixes_real_data_and_a_demo_body(embedded: Any, tmp_path: Path, doctor: Any) -> None:
    for name in ("3dpw", "amass"):
        embedded.copy(name, tmp_path / name)
    printed = doctor("3dpw", "amass", "--raw", tmp_path, code=0)
    assert re.search("convert 3dpw train .*--body SMPL", printed), "a body that is not named has a place"
    assert re.search("convert amass train (?!.*--body)", printed)
    assert "SMPL: the folder of the body model" in printed
    for name in ("3dpw", "amass"):
        (tmp_path / name / MARKER).unlink()
    printed = doctor("3dpw", "amass", "--raw", tmp_path, "--body", embedded.body)
    assert re.search("convert amass train .*--cache data/cache", printed)
    assert "convert 3dpw" not in printed


def test_untrained_weights_beside_real_data_are_reported_first(
    embedded: Any, tmp_path: Path, doctor: Any, luigi_cfg: Any
) -> None:
    luigi_cfg("penn_action")
    (embedded.copy("penn_action", tmp_path / "raw/penn_action") / MARKER).unlink()
    assert "First, in luigi.cfg, set [features] weights = spin:FILE" in doctor(code=0)
    luigi_cfg("penn_action", "[features]\nweights = spin:model.pt\n")
    assert "First" not in doctor(code=0)


def test_clips_that_are_no_dataset_s_can_be_read_as_videos(tmp_path: Path, doctor: Any) -> None:
    touch(tmp_path / "kinetics/train/zumba/a.mp4", tmp_path / "holiday/beach/IMG_1.MOV", tmp_path / "holiday/b.WEBM")
    touch(tmp_path / "holiday/keypoints/b.json", tmp_path / "notes/a.txt", tmp_path / ".trash/c.mp4")
    said = " ".join(doctor("--raw", tmp_path).split())
    assert f"{tmp_path}/holiday: 2 clips of no dataset. They can be read as `videos`" in said
    assert f"convert videos train --raw {tmp_path}/holiday" in said
    assert f"detect {tmp_path}/holiday --out {tmp_path}/holiday/keypoints" in said
    assert said.count("of no dataset") == 1
    assert json.loads(doctor("--raw", tmp_path, "--json"))["unclaimed"] == {f"{tmp_path}/holiday": 2}


def test_clips_of_ones_own_may_be_named_by_their_own_folder(tmp_path: Path, doctor: Any) -> None:
    touch(tmp_path / "mine/a.mp4")
    found = " ".join(doctor("videos", "--raw", tmp_path / "mine", code=0).split())
    assert f"detect {tmp_path}/mine --out {tmp_path}/mine/keypoints" in found
    assert f"convert videos train --raw {tmp_path}/mine" in found
    assert "missing" not in found
    assert "no clip" not in found
    touch(tmp_path / "mine/b/photo of me.jpg", tmp_path / "mine/keypoints/a.mp4.json", tmp_path / "mine/.DS_Store")
    found = " ".join(doctor("videos", "--raw", tmp_path / "mine", code=0).split())
    assert "1 file below it is no clip: b/photo of me.jpg. Clips end in .mp4" in found
    (tmp_path / "none").mkdir()
    found = " ".join(doctor("videos", "--raw", tmp_path / "none").split())
    assert found.count("expected files that end in .mp4") == 1
    assert "get your own clips, or another folder: --raw DIR When" in found


def test_only_clips_of_no_dataset_count(tmp_path: Path, doctor: Any) -> None:
    for number, (files, found) in enumerate(
        (
            (["a.mp4", "sub/b.mp4"], {"": 2}),
            (["a.mp4", "kinetics/train/a/b.mp4", "own/c.mkv"], {"own": 1}),
            (["train/zumba/a.mp4"], {}),  # the folder of Kinetics itself
            (["videos/a.mp4"], {}),
            (["penn_action/labels/0001.mat"], {}),
        )
    ):
        raw = tmp_path / str(number)
        touch(*(raw / file for file in files))
        expected = {str(raw / folder): n for folder, n in found.items()}
        assert json.loads(doctor("--raw", raw, "--json"))["unclaimed"] == expected
