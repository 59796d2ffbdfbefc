"""Videos that are gone, renamed or elsewhere: no row goes before its user says so."""

import errno
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_equal

import cache
from pipeline.cli.progress import silent
from pipeline.datasets.penn_action import PennAction
from pipeline.settings.options import DROP
from pipeline.settings.sections import load
from pipeline.steps.conversion import convert
from pipeline.steps.conversion.comparison import ReadReason
from pipeline.steps.sentences import problems_of

CONVERT = "convert penn_action/train --raw RAW/penn_action --cache CACHE"
STATUS = "status --cache CACHE"


def convert_step(penn):
    """What `prepare` and Luigi's task print of a conversion."""
    settings = load(Path("no luigi.cfg"), optional=True)
    return convert.run_conversion(penn.plan(), settings, silent)


@pytest.fixture
def status(types_json):
    """What `status` says of the split, whose state is a failure."""
    return lambda: types_json(STATUS, code=1)[0]


# --------------------------------------------------------------------------------------------------
# gone


def test_another_split_whose_folder_cannot_be_listed_stops_nothing(penn, types, monkeypatch):
    penn.converted()
    rows = penn.rows("kp_2d")
    penn.remove("0005")
    list_videos = PennAction.videos

    def videos(self, raw, split):
        if split == "test":
            raise PermissionError(errno.EACCES, "Permission denied", str(raw / split))
        return list_videos(self, raw, split)

    monkeypatch.setattr(PennAction, "videos", videos)
    types(CONVERT, "1 video missing from", "0005", code=1)
    assert_equal(penn.rows("kp_2d"), rows)


@pytest.mark.parametrize("emptied", [False, True])
def test_a_disk_of_pictures_that_is_not_mounted_takes_no_row(emptied, penn, types):
    penn.add("0007", "0008", "0009", "0010")
    penn.convert()
    for folder in (penn.raw / "frames").iterdir():
        shutil.rmtree(folder)
        if emptied:
            folder.mkdir()
    named = "7 videos missing from", "0001 (without frames/0001)"
    types(CONVERT, *named, "and 2 more: ", code=1)
    shown = types(f"{STATUS} --all", *named, code=1)
    assert shown.count(" missing: ") == 7
    assert len(penn.rows("bbox")) == 7


def test_other_label_files_in_the_place_of_the_old_ones_are_a_change(embedded, into, tmp_path):
    raw, root = embedded.copy("kinetics", tmp_path / "kinetics"), tmp_path / "cache"
    into.convert(root, raw, "kinetics")
    folder = next(path for path in (raw / "keypoints/train").iterdir() if path.is_dir())
    shutil.rmtree(folder)
    without_file = into.convert(root, raw, "kinetics").document["kept"]["missing"]
    assert [*without_file.values()] == [folder.relative_to(raw).as_posix()]
    folder.with_suffix(".json").write_text("[]")
    assert into.convert(root, raw, "kinetics").document["why"] == "1 changed video"


def test_other_columns_are_refused_while_a_video_is_gone(penn, types, monkeypatch):
    penn.converted()
    before = penn.split.manifest
    penn.remove("0005")
    monkeypatch.setattr(PennAction, "columns", lambda *_, **__: (*penn.split.columns, "kp_3d"))
    monkeypatch.setattr(PennAction, "version", PennAction.version + 1)
    types(CONVERT, "the columns change (version was", "0005", DROP, code=2)
    assert penn.split.manifest == before


# --------------------------------------------------------------------------------------------------
# turned bad


@pytest.mark.promise("rows kept")
def test_rows_of_a_video_that_turned_bad_stay_until_they_are_dropped(
    penn, reads, types, status, luigi_cfg
):
    luigi_cfg("penn_action", "[resnet50]\nweights = untrained:0")
    penn.converted()
    rows, good = penn.rows("kp_2d"), penn.label("0003").read_bytes()
    bad = good[:300]
    penn.label("0003").write_bytes(bad)
    types(f"{CONVERT} --strict", "--strict: nothing was saved in the cache", code=2)
    lost = "0003: 0 of 8 rows left (bad_label_file: "
    problem = f"penn_action/train: 1 video would lose rows; the rows are kept: {lost}"
    for read in ["0003"], []:  # it is read again only after a change
        reads.clear()
        shown = types(CONVERT, f"error: {problem}", "or delete their rows: ", DROP, code=1)
        assert ("rejected" in shown, reads.names) == (False, read)
    assert convert_step(penn).problems == problems_of(penn.plan()), "Luigi's task fails"
    types(f"{CONVERT} --strict", "--strict: its rows are of an earlier state", code=2)
    assert status()["unusable"].keys() == {"0003"}
    would_lose = status()["would_lose"]["0003"]
    assert (would_lose["before"], would_lose["now"]) == (8, 0)
    types(f"{STATUS} --all", f"error: {problem}", f"unusable: {lost}", code=1)
    types("plan penn_action/train --cache CACHE", f"error: {problem}")
    types(f"{CONVERT} --retry", lost, code=1)
    penn.label("0003").write_bytes(good)
    assert "0003" not in types(STATUS), "it may be good again"
    penn.label("0003").write_bytes(bad)
    for videos in (), ("0007",):
        penn.add(*videos)
        types(CONVERT, code=1)
    assert_equal(penn.rows("kp_2d"), rows | {"0007/0": rows["0001/0"]})
    penn.remove("0007")
    types(f"{CONVERT} {DROP}", "1 video read, 1 removed, 2 unchanged")
    assert penn.rows("bbox").keys() == {"0001/0", "0005/0"}


def of_most_pictures(change):
    def lose(penn, video):
        for picture in sorted(penn.frames(video).iterdir())[2:]:
            content = picture.read_bytes()
            picture.unlink()
            change(picture, content)

    return lose


LOSSES = {
    "most pictures deleted": of_most_pictures(lambda picture, _: None),
    "most pictures cut": of_most_pictures(
        lambda picture, content: picture.write_bytes(content[: len(content) // 2])
    ),
    "fewer frames labelled": lambda penn, video: penn.edit(
        video, lambda visible: visible * (np.arange(len(visible)) < 2)[:, None], "visibility"
    ),
    "of the other split": lambda penn, video: penn.edit(video, lambda _: -1, "train"),
}


@pytest.mark.promise("rows kept")
@pytest.mark.parametrize("loss", LOSSES)
def test_rows_that_a_video_would_lose_stay_until_they_are_dropped(loss, penn, reads, types, status):
    penn.converted("exact")
    columns = ("kp_2d", "features/resnet50")
    digest, rows = penn.split.manifest["digest"], [penn.rows(column) for column in columns]
    names = ["0001", "0003", "0005"]
    for name in names:
        LOSSES[loss](penn, name)
    types(f"{CONVERT} --strict", "0001: ", code=2)
    for read in names, []:
        reads.clear()
        kept = ["3 videos would lose rows; the rows are kept: 0001: ", DROP]
        if loss == "of the other split":
            kept = [
                "3 videos moved to another split; the rows are kept",
                "convert penn_action/test",
            ]
        types(CONVERT, *kept, code=1)
        assert sorted(reads.names) == read
        assert_equal([penn.rows(column) for column in columns], rows)
    assert status()["unusable"].keys() == {*names}
    types(f"{CONVERT} {DROP}", code=int(loss == "of the other split"))
    assert penn.split.manifest["digest"] != digest


def replace(picture, content):
    """Write an image as another file, as tools that unpack do."""
    picture.unlink()
    picture.write_bytes(content)


def damaged(penn, name):
    """Damages two images of a video. Returns them and what they held."""
    pictures = sorted(penn.frames(name).iterdir())[2:4]
    good = [picture.read_bytes() for picture in pictures]
    for picture, content in zip(pictures, good, strict=True):
        replace(picture, content[: len(content) // 2])
    return pictures, good


@pytest.mark.parametrize("extract", ["", "extract penn_action/train --cache CACHE"])
def test_one_repaired_image_of_two_is_no_loss(extract, penn, types, network):
    """Two images are damaged from the start. Corrected labels come with the repair."""
    pictures, good = damaged(penn, "0003")
    types(CONVERT)
    if extract:
        types(extract, "2 rows without features", code=1)
    before = penn.rows("kp_2d")["0003/0"]
    replace(pictures[0], good[0])
    penn.edit("0003")
    types(CONVERT, "1 changed video")
    x = penn.rows("kp_2d")["0003/0"][..., 0]
    is_seen = before[..., 2] > 0
    assert_equal(x[is_seen], before[..., 0][is_seen] + 1)
    types(CONVERT, "up to date")
    if extract:
        types(extract, "1 row without features", code=1)
        replace(pictures[0], good[0][:-999])
        types(CONVERT, "would lose rows; the rows are kept: 0003: 6 of 8 rows left", code=1)
        replace(pictures[0], good[0])
    replace(pictures[1], good[1])
    types(CONVERT)
    if extract:
        types(extract)
    assert problems_of(penn.plan()) == []


def test_an_image_damaged_before_features_were_computed_is_no_loss_when_another_is_repaired(
    penn, types, network
):
    penn.converted()
    types("extract penn_action/train --cache CACHE")
    penn.add("0007")  # of which the stream has no row
    pictures, good = damaged(penn, "0007")
    types(CONVERT)
    replace(pictures[0], good[0])
    penn.edit("0007")
    types(CONVERT, "1 changed video")
    types(CONVERT, "up to date")
    labels = penn.rows("kp_2d")
    assert not np.array_equal(labels["0007/0"], labels["0001/0"]), "they are the corrected ones"


def test_fewer_people_are_no_loss_if_detect_has_found_them(embedded, into, types, tmp_path):
    raw, root = embedded.copy("kinetics", tmp_path / "raw"), tmp_path / "cache"
    shutil.rmtree(raw / "keypoints")
    types("detect RAW --out RAW/keypoints --detector demo")
    into.convert(root, raw, "kinetics")

    def n_rows():
        return sum(map(len, into.rows(root, "kinetics/train", "bbox").values()))

    for by_detect in (True, False):
        before = n_rows()
        for file in (raw / "keypoints/train").rglob("*.json"):
            head, middle, tail = re.split(
                r"(?<=\"annotations\": \[)|(?=\n\],\n\"cat)", file.read_text()
            )
            people = middle.split(",\n")
            head = head if by_detect else head.replace("pipeline detect", "another tool")
            file.write_text(head + ",\n".join(people[:-2]) + tail)
        done = into.convert(root, raw, "kinetics").document
        assert (bool(done["kept"]["unusable"]), n_rows() < before) == (not by_detect, by_detect)
        assert "rows of unchanged files" not in str(done["notes"])


def test_after_the_repair_of_a_video_that_turned_bad_nothing_is_computed(
    penn, reads, into, types, network
):
    penn.converted("exact")
    good, digest = penn.label("0003").read_bytes(), penn.split.manifest["digest"]
    for other_work in False, True:
        penn.label("0003").write_bytes(good[:300])
        types(CONVERT, code=1)
        assert penn.split.manifest["digest"] == digest
        if other_work:
            penn.edit("0001")
        penn.label("0003").write_bytes(good)
        reads.clear()
        types(CONVERT, *(() if other_work else ["new file times of 1 video recorded"]))
        assert (reads.names, problems_of(penn.plan())) == (["0001"] * other_work, [])
    n_moved = into.extract(penn.root, precision="exact").computed
    assert n_moved == 8, "those of 0001, whose boxes have moved"
    assert cache.verify(penn.root).ok


# --------------------------------------------------------------------------------------------------
# renamed


def rename(penn, *pairs):
    for pair in pairs:
        old, new = pair.split()
        penn.label(old).rename(penn.label(new))
        penn.frames(old).rename(penn.frames(new))


@pytest.mark.promise("moved")
def test_a_renamed_video_takes_the_new_name_and_is_no_removal(penn, types):
    penn.add(*(f"002{number}" for number in range(6)))
    penn.convert()
    before = penn.rows("kp_2d")
    rename(penn, "0005 0009")
    types(CONVERT, "renamed 0005 -> 0009", "(why: 1 renamed video)")
    assert_equal(
        penn.rows("kp_2d"), {name.replace("0005", "0009"): of for name, of in before.items()}
    )
    assert penn.plan().up_to_date
    assert cache.verify(penn.root).ok
    rename(penn, *(f"002{number} 003{number}" for number in range(6)))
    details = convert_step(penn).details
    assert [*details[1:6]] == [f"renamed 002{number} -> 003{number}" for number in range(5)]
    assert re.match("and 1 more: .* -m pipeline status --csv", details[6])


@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_clip_that_loses_rows_as_it_is_renamed_leaves_those_of_its_old_name(
    is_dropped, embedded, into, types, tmp_path
):
    raw, root = embedded.copy("kinetics", tmp_path / "raw"), tmp_path / "cache"
    convert = "convert kinetics/train --raw RAW --cache CACHE"
    (clip,) = (raw / "train").rglob("*.mp4")
    labels = raw / "keypoints/train" / clip.stem
    types(convert)
    before = into.rows(root, "kinetics/train", "bbox")
    clip.rename(clip.with_stem("renamed"))
    labels = labels.rename(labels.with_name("renamed"))
    (tmp_path / "aside").mkdir()
    for file in sorted(labels.iterdir())[-1:]:
        file.rename(tmp_path / "aside" / file.name)
    for _ in range(2):
        types(convert, clip.stem, "the rows are kept", DROP, code=1)
        after = into.rows(root, "kinetics/train", "bbox")
        assert_equal({name: after[name] for name in before}, before)
    if is_dropped:
        types(f"{convert} {DROP}")
    else:
        for file in (tmp_path / "aside").iterdir():
            file.rename(labels / file.name)
        types(convert, "(why: 1 renamed video)")
    after = into.rows(root, "kinetics/train", "bbox")
    assert after.keys() == {name.replace(clip.stem, "renamed") for name in before}
    n_gone = sum(map(len, before.values())) - sum(map(len, after.values()))
    assert (n_gone > 0) == is_dropped


def test_copies_are_paired_in_order_of_names_and_a_name_that_was_taken_is_no_obstacle(penn):
    penn.add("0007", "0008")  # with 0001, three of the same content
    penn.convert()
    rename(penn, "0001 0020", "0007 0010", "0003 0001")
    plan = penn.plan()
    assert plan.renamed == {"0001": "0003", "0010": "0007"}, "0001 is another video now"
    assert {item.video.name: item.reason for item in plan.items} == {
        "0001": ReadReason.RENAMED,
        "0010": ReadReason.RENAMED,
        "0020": ReadReason.NEW,
    }
    assert (plan.removed, plan.losses) == ((), {})
    assert penn.convert().problems == []
    assert [*penn.rows("bbox")] == ["0005/0", "0008/0", "0001/0", "0010/0", "0020/0"]


# ------------------------------------------------------------------------------------------------
# another raw folder


@pytest.mark.promise("moved")
def test_the_same_videos_elsewhere_are_taken_as_moved(penn, reads, into, network, types, tmp_path):
    penn.converted()
    reads.clear()
    before = into.tree(penn.root)
    moved = penn.raw.rename(tmp_path / "moved")
    convert = "convert penn_action/train --raw TMP/moved --cache CACHE"
    types(convert, "recorded the new raw folder")
    assert (reads.names, into.tree(penn.root)) == ([], before)
    assert penn.split.provenance["raw"] == str(moved.resolve())
    assert into.extract(penn.root).computed == 24, "the pictures are where they are recorded"
    assert "raw folder" not in types(convert)


@pytest.fixture
def other(penn, tmp_path):
    """A copy of the raw folder of a converted split, and a command that converts it."""
    penn.converted()
    return penn.elsewhere(tmp_path / "other")


OTHER = "convert penn_action/train --raw TMP/other/penn_action --cache CACHE"


@pytest.mark.promise("moved")
@pytest.mark.parametrize("same_names", [False, True])
def test_a_folder_of_other_videos_is_refused(same_names, penn, other, types):
    before = penn.everything()
    for number in range(1, 7):
        other.edit(f"000{number}")
        if not same_names:
            rename(other, f"000{number} 100{number}")
    types(OTHER, str(penn.raw), "--cache", DROP, code=2)
    assert penn.everything() == before
    types(f"{OTHER} {DROP}")
    assert penn.rows("bbox").keys() == {f"{'0' if same_names else '1'}00{n}/0" for n in (1, 3, 5)}
    assert penn.split.provenance["raw"] == str(other.raw.resolve())


def test_a_folder_that_moved_may_have_lost_a_video_and_got_one(penn, other, types):
    other.remove("0003")
    other.add("0009")
    types(OTHER, "1 video read", "1 video missing from", code=1)
    assert penn.rows("bbox").keys() == {"0001/0", "0003/0", "0005/0", "0009/0"}


def test_a_part_of_the_videos_elsewhere_leaves_the_others_and_the_recorded_folder(
    penn, other, types
):
    before = penn.everything()
    other.remove("0005")
    types(OTHER, "0005", code=1)
    assert penn.everything() == before


@pytest.mark.promise("never mixed")
@pytest.mark.parametrize("is_demo", [True, False])
def test_no_split_of_demo_data_is_written_beside_real_data_nor_the_reverse(
    is_demo, penn, other, types
):
    shutil.rmtree(penn.root)
    (other if is_demo else penn).without_marker()
    other.convert("train")
    before = penn.everything()
    penn_test = "convert penn_action/test --raw RAW/penn_action --cache"
    types(f"{penn_test} TMP/copied")
    types(f"{penn_test} CACHE", "share a cache", code=2)
    types("prepare penn_action --raw RAW/penn_action --cache CACHE", code=2)
    types("copy --cache TMP/copied --to CACHE", code=2)
    assert penn.everything() == before


# --------------------------------------------------------------------------------------------------
# empty splits


def no_joint_visible(penn):
    for name in ("0001", "0003", "0005"):
        penn.edit(name, np.zeros_like, "visibility")


EMPTY = {
    "no_visible_joint": no_joint_visible,
    "bad_label_file": lambda penn: penn.spoil("0001", "0003", "0005"),
}


@pytest.mark.promise("verified")
@pytest.mark.parametrize("why", EMPTY)
@pytest.mark.parametrize("had_rows", [False, True])
def test_a_split_without_a_row_is_a_failure_everywhere(why, had_rows, penn, types):
    if had_rows:
        penn.converted()
    EMPTY[why](penn)
    types(f"{CONVERT} {DROP if had_rows else ''}", code=1)
    said = "error: penn_action/train: no rows: none of 3 videos could be used"
    for _ in range(2):  # also when it was converted before
        types(CONVERT, said, why, code=1)
    types("extract penn_action/train --cache CACHE", why, code=1)
    assert penn.split.streams == ()
