"""Videos that are gone, renamed or elsewhere: no row goes before its user says so."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from numpy.testing import assert_equal

import cache
from pipeline.conversion.committed import DROP
from pipeline.datasets.penn_action import PennAction
from pipeline.recipe import steps

# --------------------------------------------------------------------------------------------------
# gone


def convert_step(penn):
    """What `prepare` and Luigi's task print of a conversion."""
    return steps.convert(penn.plan(), penn.recipe().settings, lambda *_: None)


def test_rows_of_a_video_that_is_gone_stay_until_they_are_dropped(penn, ran, by_command):
    penn.converted()
    rows, before = penn.rows("kp_2d"), penn.everything()
    penn.remove("0005")
    for _ in range(2):
        shown = by_command(code=1)
        assert "✗ penn_action/train: 1 video missing from" in shown
        assert "0005" in shown
        assert DROP in shown
    assert penn.everything() == before
    plan = penn.plan()
    assert (plan.up_to_date, plan.missing) == (True, {"0005": ""})
    assert "1 video missing from" in ran("status", "--cache", penn.root, code=1).out
    (status,) = json.loads(ran("status", "--cache", penn.root, "--json", code=1).out)
    assert status["missing"] == {"0005": ""}
    assert "1 video missing from" in status["problems"][0]
    assert "1 removed" in by_command(DROP)
    assert_equal(penn.rows("kp_2d"), {name: of for name, of in rows.items() if name != "0005/0"})
    assert "up to date" in by_command()
    assert cache.verify(penn.root).ok


@pytest.mark.parametrize("emptied", [False, True])
def test_a_disk_of_pictures_that_is_not_mounted_takes_no_row(emptied, penn, ran, by_command):
    penn.add("0007", "0008", "0009", "0010")
    penn.convert()
    before = penn.everything()
    for folder in (penn.raw / "frames").iterdir():
        shutil.rmtree(folder)
        if emptied:
            folder.mkdir()
    shown = by_command(code=1)
    assert "7 videos missing from" in shown
    assert "0001 (without frames/0001)" in shown
    assert "and 2 more: " in shown
    shown = ran("status", "--all", "--cache", penn.root, code=1).out
    assert "✗ penn_action/train: 7 videos missing from" in shown
    assert "0001 (without frames/0001)" in shown
    assert shown.count("missing: ") == 7
    assert len(penn.rows("bbox")) == 7
    after = {name: of for name, of in penn.everything().items() if name.endswith("manifest.json")}
    assert after.keys() <= before.keys()


def test_other_label_files_in_the_place_of_the_old_ones_are_a_change(embedded, into, tmp_path):
    raw, root = embedded.copy("kinetics", tmp_path / "kinetics"), tmp_path / "cache"
    into.convert(root, raw, "kinetics")
    folder = next(path for path in (raw / "keypoints/train").iterdir() if path.is_dir())
    other = raw / "keypoints/train" / f"{folder.name}.json"
    shutil.rmtree(folder)
    missing = into.convert(root, raw, "kinetics").plan.missing
    assert [*missing.values()] == [folder.relative_to(raw).as_posix()]
    other.write_text("[]")
    assert into.convert(root, raw, "kinetics").plan.why == "1 changed video"


def test_other_columns_are_refused_while_a_video_is_gone(penn, by_command, monkeypatch):
    penn.converted()
    digest = penn.split.manifest["digest"]
    penn.remove("0005")
    monkeypatch.setattr(PennAction, "columns", lambda *_, **__: (*penn.split.columns, "kp_3d"))
    monkeypatch.setattr(PennAction, "version", PennAction.version + 1)
    shown = by_command(code=2)
    assert "the columns change (version was" in shown
    assert "0005" in shown
    assert DROP in shown
    assert penn.split.manifest["digest"] == digest


# --------------------------------------------------------------------------------------------------
# turned bad


def test_rows_of_a_video_that_turned_bad_stay_until_they_are_dropped(
    penn, reads, ran, by_command, luigi_cfg
):
    luigi_cfg("penn_action", "[resnet50]\nweights = untrained:0")
    penn.converted()
    rows, before = penn.rows("kp_2d"), penn.label("0003").read_bytes()
    penn.label("0003").write_bytes(before[:300])
    assert "--strict: nothing was committed" in by_command("--strict", code=2)
    problem = (
        "penn_action/train: 1 video would lose rows; the rows are kept: 0003: bad_label_file: "
    )
    for read in ["0003"], []:  # it is read again only after a change
        reads.clear()
        shown = by_command(code=1)
        assert f"✗ {problem}" in shown
        assert f"or delete their rows: {sys.executable} -m pipeline convert {penn.name}" in shown
        assert ("rejected" in shown, reads.names) == (False, read)
    problems = convert_step(penn).problems
    assert problems == [*penn.plan().kept_lines], "Luigi's task fails"
    assert "--strict: its rows are of an earlier state" in by_command("--strict", code=2)
    (status,) = json.loads(ran("status", "--cache", penn.root, "--json", code=1).out)
    assert status["unusable"].keys() == {"0003"}
    assert f"✗ {problem}" in ran("status", "--cache", penn.root, code=1).out
    shown = ran("status", "--cache", penn.root, "--all", code=1).out
    assert "unusable: 0003: bad_label_file: " in shown
    assert f"✗ {problem}" in ran("plan", penn.name, "--cache", penn.root).out
    assert "0003: bad_label_file" in by_command("--retry", code=1)
    bad = penn.label("0003").read_bytes()
    penn.label("0003").write_bytes(before)
    assert "0003" not in ran("status", "--cache", penn.root).out, "it may be good again"
    penn.label("0003").write_bytes(bad)
    by_command(code=1)
    penn.add("0007")
    by_command(code=1)
    assert_equal(penn.rows("kp_2d"), rows | {"0007/0": rows["0001/0"]})
    penn.remove("0007")
    assert "1 video read, 1 removed, 2 unchanged" in by_command(DROP)
    assert penn.rows("bbox").keys() == {"0001/0", "0005/0"}


def most_pictures_deleted(penn, video):
    for picture in sorted(penn.frames(video).iterdir())[2:]:
        picture.unlink()


def most_pictures_empty(penn, video):
    for picture in sorted(penn.frames(video).iterdir())[2:]:
        picture.unlink()
        picture.touch()


def most_pictures_cut(penn, video):
    for picture in sorted(penn.frames(video).iterdir())[2:]:
        content = picture.read_bytes()
        picture.unlink()
        picture.write_bytes(content[: len(content) // 2])


def fewer_frames_labelled(penn, video):
    penn.edit(video, lambda visible: visible * (np.arange(len(visible)) < 2)[:, None], "visibility")


def of_the_other_split(penn, video):
    penn.edit(video, lambda _: -1, "train")


@pytest.mark.parametrize(
    "lose",
    [
        most_pictures_deleted,
        most_pictures_empty,
        most_pictures_cut,
        fewer_frames_labelled,
        of_the_other_split,
    ],
)
def test_rows_that_a_video_would_lose_stay_until_they_are_dropped(lose, penn, reads, run, ran):
    penn.converted("exact")
    digest = penn.split.manifest["digest"]
    rows, features = penn.rows("kp_2d"), penn.rows("features/resnet50")
    names = "0001", "0003", "0005"
    for name in names:
        lose(penn, name)
    convert_train = "convert", penn.name, *penn.places
    assert "0001: " in ran(*convert_train, "--strict", code=2).err
    for read in [*names], []:
        reads.clear()
        shown = ran(*convert_train, code=1).out
        assert sorted(reads.names) == read
        assert "3 videos would lose rows; the rows are kept: 0001: " in shown
        assert DROP in shown
        assert_equal(penn.rows("kp_2d"), rows)
        assert_equal(penn.rows("features/resnet50"), features)
    (status,) = json.loads(ran("status", "--cache", penn.root, "--json", code=1).out)
    assert status["unusable"].keys() == {*names}
    run(*convert_train, DROP)
    assert penn.split.manifest["digest"] != digest


@pytest.mark.parametrize("by_detect", [True, False])
def test_fewer_people_are_no_loss_if_detect_has_found_them(
    by_detect, embedded, into, ran, tmp_path
):
    raw, root = embedded.copy("kinetics", tmp_path / "kinetics"), tmp_path / "cache"
    shutil.rmtree(raw / "keypoints")
    ran("detect", raw, "--out", raw / "keypoints", "--detector", "demo")
    into.convert(root, raw, "kinetics")
    rows = n_rows(into, root)
    for file in (raw / "keypoints/train").rglob("*.json"):
        head, middle, tail = re.split(
            r"(?<=\"annotations\": \[)|(?=\n\],\n\"cat)", file.read_text()
        )
        people = middle.split(",\n")
        head = head if by_detect else head.replace("pipeline detect", "another tool")
        file.write_text(head + ",\n".join(people[:-2]) + tail)
    unusable = into.convert(root, raw, "kinetics").plan.unusable
    assert bool(unusable) != by_detect
    assert (n_rows(into, root) < rows) == by_detect


def n_rows(into, root):
    return sum(map(len, into.rows(root, "kinetics/train", "bbox").values()))


def test_after_the_repair_of_a_video_that_turned_bad_nothing_is_computed(
    penn, reads, into, by_command, network
):
    penn.converted("exact")
    before, digest = penn.label("0003").read_bytes(), penn.split.manifest["digest"]
    penn.label("0003").write_bytes(before[:300])
    by_command(code=1)
    assert penn.split.manifest["digest"] == digest
    penn.label("0003").write_bytes(before)
    reads.clear()
    assert "new file times of 1 video recorded" in by_command()
    assert reads.names == []
    assert penn.plan().problems == []
    penn.label("0003").write_bytes(before[:300])
    by_command(code=1)
    penn.edit("0001")  # with other work beside it
    penn.label("0003").write_bytes(before)
    reads.clear()
    by_command()
    assert (reads.names, penn.plan().problems) == (["0001"], [])
    assert into.extract(penn.root, precision="exact").computed == 8, (
        "those of 0001, whose boxes have moved"
    )
    assert cache.verify(penn.root).ok


# --------------------------------------------------------------------------------------------------
# renamed


def rename(penn, *pairs):
    for pair in pairs:
        old, new = pair.split()
        penn.label(old).rename(penn.label(new))
        penn.frames(old).rename(penn.frames(new))


def test_a_renamed_video_takes_the_new_name_and_is_no_removal(penn, by_command):
    penn.add(*(f"002{number}" for number in range(6)))
    penn.convert()
    before = penn.rows("kp_2d")
    rename(penn, "0005 0009")
    shown = by_command()
    assert "renamed 0005 -> 0009" in shown
    assert "(why: 1 renamed video)" in shown
    assert_equal(
        penn.rows("kp_2d"), {name.replace("0005", "0009"): of for name, of in before.items()}
    )
    assert penn.plan().up_to_date
    assert cache.verify(penn.root).ok
    rename(penn, *(f"002{number} 003{number}" for number in range(6)))
    details = convert_step(penn).details
    assert [*details[1:6]] == [f"renamed 002{number} -> 003{number}" for number in range(5)]
    assert re.match("and 1 more: .* -m pipeline status --csv", details[6])


def test_copies_are_paired_in_order_of_names_and_a_name_that_was_taken_is_no_obstacle(penn):
    penn.add("0007", "0008")  # with 0001, three of the same content
    penn.convert()
    rename(penn, "0001 0020", "0007 0010", "0003 0001")
    plan = penn.plan()
    assert plan.renamed == {"0001": "0003", "0010": "0007"}, "0001 is another video now"
    assert (plan.new, plan.changed, plan.removed, dict(plan.missing)) == (("0020",), (), (), {})
    done = penn.convert()
    assert done.problems == ()
    assert penn.rows("bbox").keys() == {
        f"{name}/0" for name in ("0001", "0005", "0008", "0010", "0020")
    }


# ------------------------------------------------------------------------------------------------
# another raw folder


def test_the_same_videos_elsewhere_are_taken_as_moved(
    penn, reads, into, network, by_command, tmp_path
):
    penn.converted()
    reads.clear()
    before = into.tree(penn.root)
    moved = penn.raw.rename(tmp_path / "elsewhere")
    assert "recorded the new raw folder" in by_command(raw=moved)
    assert (reads.names, into.tree(penn.root)) == ([], before)
    assert penn.split.provenance["raw"] == str(moved.resolve())
    assert into.extract(penn.root).computed == 24, "the pictures are where they are recorded"
    assert "raw folder" not in by_command(raw=moved)


@pytest.mark.parametrize("same_names", [False, True])
def test_a_folder_of_other_videos_is_refused(same_names, penn, by_command, tmp_path):
    penn.converted()
    before = penn.everything()
    other = penn.elsewhere(tmp_path / "other")
    for name in ("0001", "0002", "0003", "0004", "0005", "0006"):
        other.edit(name)
        if not same_names:
            rename(other, f"{name} 1{name[1:]}")
    shown = by_command(raw=other.raw, code=2)
    assert str(penn.raw) in shown
    assert "--cache" in shown
    assert DROP in shown
    assert penn.everything() == before
    by_command(DROP, raw=other.raw)
    assert penn.rows("bbox").keys() == {f"{'0' if same_names else '1'}00{n}/0" for n in (1, 3, 5)}
    assert penn.split.provenance["raw"] == str(other.raw.resolve())


def test_a_part_of_the_videos_elsewhere_leaves_the_others_and_the_recorded_folder(
    penn, by_command, tmp_path
):
    penn.converted()
    before = penn.everything()
    part = penn.elsewhere(tmp_path / "part")
    part.remove("0005")
    assert "0005" in by_command(raw=part.raw, code=1)
    assert penn.everything() == before


@pytest.mark.parametrize("is_demo", [True, False])
def test_no_split_of_demo_data_is_written_beside_real_data_nor_the_reverse(
    is_demo, penn, ran, run, tmp_path
):
    other = penn.elsewhere(tmp_path / "other")
    (other if is_demo else penn).without_marker()
    other.convert("train")
    before, copied = other.split.manifest["digest"], tmp_path / "copied"
    ran("convert", "penn_action", "test", "--raw", penn.raw, "--cache", copied)
    for words in (
        ["convert", "penn_action/test", *penn.places],
        ["prepare", "penn_action", *penn.places],
        ["copy", "--cache", copied, "--to", penn.root],
    ):
        assert run(*words) != 0
        assert cache.open(penn.root).splits == ("penn_action/train",)
    assert "share a cache" in ran("convert", "penn_action/test", *penn.places, code=2).err
    assert other.split.manifest["digest"] == before


# --------------------------------------------------------------------------------------------------
# empty splits


def no_joint_visible(penn):
    for name in ("0001", "0003", "0005"):
        penn.edit(name, np.zeros_like, "visibility")
    return "no_visible_joint"


def spoiled(penn):
    penn.spoil("0001", "0003", "0005")
    return "bad_label_file"


@pytest.mark.parametrize("spoil", [no_joint_visible, spoiled])
@pytest.mark.parametrize("had_rows", [False, True])
def test_a_split_without_a_row_is_a_failure_everywhere(spoil, had_rows, penn, ran, by_command):
    if had_rows:
        penn.converted()
    why = spoil(penn)
    by_command(*([DROP] if had_rows else []), code=1)
    for shown in (by_command(code=1), by_command(code=1)):  # also when it was converted before
        assert "✗ penn_action/train: no rows: none of 3 videos could be used" in shown
        assert f"most common reason is {why} (3 videos)" in shown
    assert why in ran("extract", penn.name, "--cache", penn.root, code=1).out
    assert penn.split.streams == ()
