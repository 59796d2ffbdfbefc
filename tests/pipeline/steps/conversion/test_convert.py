"""Raw dataset -> committed rows: nothing lost, nothing read twice, the same bytes however it was
run.
"""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cache
from pipeline import datasets
from pipeline.accounting import REASONS, VideoAccount
from pipeline.cli.progress import silent
from pipeline.errors import MissingAssets
from pipeline.files.raw import changes, files
from pipeline.processes import show_done
from pipeline.settings.sections import load
from pipeline.steps.conversion import convert
from pipeline.steps.conversion.parts import read_spooled
from pipeline.steps.conversion.plan import plan_conversion
from pipeline.steps.conversion_record import ConversionRecord
from tests.fixtures import planned, planned_again
from tests.mounts import mounted
from tests.packages import without
from tests.pipeline.steps.conversion.lab import Lab, Lines
from tests.raising import pipeline_refuses
from tests.waiting import await_that

SPLITS = "penn_action/train kinetics/train 3dpw/train 3dpw/validation emdb/emdb1 rich/val bedlam/train amass/train"


@pytest.mark.promise("counted")
@pytest.mark.parametrize("split_name", SPLITS.split())
def test_the_cache_has_the_tracks_of_the_reader_and_every_frame_is_kept_or_dropped_for_a_reason(
    split_name, embedded, into, tmp_path
):
    name, split = split_name.split("/")
    dataset, raw = datasets.get(name), embedded.raw(name)
    folder = embedded.body if dataset.labels.uses_body else None
    done = into.convert(tmp_path, raw, name, split, body=folder)
    committed = cache.open(tmp_path)[split_name]
    tracks = list(dataset.tracks(raw, split, body=dataset.load_body(folder) if folder else None))
    assert len(tracks) >= 1
    assert committed.tracks.names == [track.name for track in tracks]
    for stored, track in zip(committed.tracks, tracks, strict=True):
        for field in ("video", "step", "crop_scale", "gender", "fps", "intrinsics"):
            assert_array_equal(getattr(stored, field), getattr(track, field), field)
        absent = committed.extra.keys() - track.extra.keys()
        assert absent <= {*dataset.labels.optional_extra}
        extra = {column: np.full((), committed.extra[column].fill) for column in absent}
        arrays = {**track.columns, **track.extra, **extra}
        for column in [one for one in committed.extra if committed.extra[one].per == "track"]:
            value = arrays.pop(column)
            assert_array_equal(
                stored.extra[column], np.broadcast_to(value, np.shape(stored.extra[column]))
            )
        assert arrays.keys() == set(committed.columns)
        for column, array in arrays.items():
            rows = committed.rows(column, stored.start, stored.stop)
            assert_array_equal(rows, np.broadcast_to(array, rows.shape), column)
    frames, videos = (committed.manifest["accounting"][key] for key in ("frames", "videos"))
    assert done.document["accounting"] == committed.manifest["accounting"]
    accounts = [video.account for video in committed.videos]
    for counts in (frames, *accounts):
        assert counts["found"] == counts["kept"] + sum(counts["dropped"].values())
    assert frames["kept"] == committed.manifest["rows"] > 0
    assert videos["found"] == videos["kept"] + videos["without_tracks"] > 0


@pytest.mark.promise("incremental")
def test_only_new_and_changed_videos_are_read_and_rows_of_removed_ones_go(penn, reads):
    penn.converted()
    before = penn.rows("kp_2d")
    reads.clear()
    penn.add("0007")
    penn.edit("0002")
    penn.edit("0003")
    penn.remove("0005")
    done = convert.convert(penn.plan(drop_removed=True))
    assert done.details[0].startswith(
        "2 videos read, 1 removed, 1 unchanged "  # 0002 is of the other split
        "(why: 1 new video, 2 changed videos, 1 removed video): "
    )
    assert (reads.names, done.document["accounting"]["videos"]["found"]) == (
        ["0002", "0003", "0007"],
        3,
    )
    after = penn.rows("kp_2d")
    assert after.keys() == {"0001/0", "0003/0", "0007/0"}
    labelled = before["0003/0"][..., 2] > 0
    assert_allclose((after["0003/0"] - before["0003/0"])[..., 0][labelled], 1, atol=1e-4)
    for name in ("0001/0", "0007/0"):
        assert_array_equal(after[name], before["0001/0"])
    assert penn.plan().up_to_date


def a_folder_for_a_label(penn):
    penn.label("0003").unlink()
    penn.label("0003").mkdir()


def a_file_for_pictures(penn):
    shutil.rmtree(penn.frames("0003"))
    penn.frames("0003").write_bytes(b"")


def no_picture_readable(penn):
    for picture in penn.frames("0003").iterdir():
        picture.write_bytes(picture.read_bytes()[:10])


def no_matlab_file(penn):
    penn.label("0003").write_bytes(b"no MATLAB file")


@pytest.mark.parametrize(
    ("spoil", "reason", "message"),
    [
        (lambda penn: penn.spoil("0003"), "bad_label_file", r"0003\.mat: 'x': .*13.*\(8, 12\)"),
        (no_matlab_file, "bad_label_file", r"0003\.mat: "),
        (a_folder_for_a_label, "no_label", r"0003\.mat: "),
        (a_file_for_pictures, "no_picture", r"0003: 'pictures': .*8 images"),
        (no_picture_readable, "no_picture", r"frames/0003/.*JPEG"),
    ],
)
def test_a_bad_video_is_rejected_with_its_reason_and_the_rest_is_converted(
    spoil, reason, message, penn, into, tmp_path
):
    spoil(penn)
    done = penn.convert()
    assert re.search(f"0003: {reason}: .*{message}", done.document["rejected"]["0003"])
    account = VideoAccount.from_dict(penn.split.videos[2].account)
    assert (account.name, account.set_aside, account.kept) == ("0003", reason, 0)
    assert account.found == sum(account.dropped.values())
    counts = {"found": 3, "kept": 2, "set_aside": {reason: 1}, "without_tracks": 0}
    assert done.document["accounting"]["videos"] == counts
    assert [(name, len(rows)) for name, rows in penn.rows("bbox").items()] == [
        ("0001/0", 8),
        ("0005/0", 8),
    ]
    assert penn.plan().up_to_date
    with pipeline_refuses("--strict: nothing was saved in the cache"):
        into.convert(tmp_path / "strict", penn.raw, strict=True)
    left = {file.name for file in (tmp_path / "strict").rglob("*")}
    assert not left & {"manifest.json", changes.STAMPS}


@pytest.mark.parametrize("mistake", [OSError("disk full"), KeyboardInterrupt()])
def test_reading_has_ended_when_the_error_of_a_conversion_arrives(penn, monkeypatch, mistake):
    ended = []

    def reads(plan, *arguments):
        try:
            yield from read_spooled(plan, *arguments)
        finally:
            ended.append(plan.name)

    def fails(*_):
        raise mistake

    monkeypatch.setattr("pipeline.steps.conversion.convert.read_spooled", reads)
    monkeypatch.setattr(cache.NextCommit, "append", fails)
    with pytest.raises(type(mistake)) as held:  # keeps the frames of the call
        penn.convert()
    assert (ended, held.value) == (["penn_action/train"], mistake)


def test_strict_refuses_a_video_that_an_earlier_conversion_rejected(penn, reads):
    before = penn.spoil("0005", "0003")
    penn.convert()
    files = penn.everything()
    reads.clear()
    with pipeline_refuses(r"rejected 2 videos, first 0003 .*--strict.*--retry"):
        penn.convert(strict=True)
    assert (reads.names, penn.everything()) == ([], files)
    penn.label("0003").write_bytes(before)
    penn.remove("0005")
    penn.convert(strict=True)  # what changed and what is gone no longer counts
    assert penn.rows("bbox").keys() == {"0001/0", "0003/0"}


def test_strict_refuses_a_video_that_a_killed_run_rejected(penn, reads, small_shards):
    penn.spoil("0003")

    def give_up(done, total, message=""):
        if done == 5:  # 16 rows, a shard of its own: 0003 is in the journal by now
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        penn.convert(progress=give_up)
    reads.clear()
    with pipeline_refuses("0003"):
        penn.convert(strict=True)
    assert reads.names == []
    assert not (penn.root / penn.name / "manifest.json").exists()


def test_strict_accepts_a_clip_without_keypoints(embedded, into, types, penn, tmp_path):
    raw, root = embedded.copy("kinetics", tmp_path / "kinetics"), tmp_path / "cache"
    clip = next((raw / "train").rglob("*.mp4"))
    shutil.copy(clip, raw / "train/unseen.mp4")
    recipe = replace(
        penn.recipe(), dataset=datasets.get("kinetics"), raw=raw, root=tmp_path / "recipe"
    )
    settings = load(Path("no luigi.cfg"), optional=True)
    result = convert.run_conversion(plan_conversion(recipe), settings, silent)
    assert "videos 1 kept of 2, 1 no_keypoints; " in result.details[0]
    done = into.convert(root, raw, "kinetics", strict=True)
    counts = {"found": 2, "kept": 1, "set_aside": {"no_keypoints": 1}, "without_tracks": 0}
    assert (done.document["accounting"]["videos"], done.document["rejected"]) == (counts, {})
    assert planned_again(cache.open(root)["kinetics/train"]).up_to_date
    assert not [*ConversionRecord(cache.open(root)["kinetics/train"]).rejections()]
    without_rows = "1 video without rows: no_keypoints, "
    types("status --cache CACHE", f"{without_rows}the video has no keypoint files")
    with without(REASONS, "no_keypoints"):  # a reason of a reader from elsewhere
        types("status --cache CACHE", "1 unreadable video")
    into.convert(root, raw, "kinetics", strict=True)
    (raw / "train/unseen.mp4").unlink()
    clip.unlink()
    with pipeline_refuses(r"only keypoints.*--strict: nothing was saved in the cache"):
        into.convert(root, raw, "kinetics", strict=True)


def test_an_unexpected_error_of_a_reader_costs_its_video_and_is_not_taken_for_seen(
    penn, into, tmp_path, reads
):
    reads.fail("0003", ZeroDivisionError("float division"))
    done = penn.convert()
    assert re.match(
        r"0003: unexpected_error: ZeroDivisionError: float division \(at fixtures\.py:\d+",
        done.document["rejected"]["0003"],
    )
    assert done.document["accounting"]["videos"]["kept"] == 2
    # it may have been the disk: a look at its size and time is not enough to pass it over
    assert changes.read_stamps(penn.root, penn.name).keys() == {
        "0001",
        "0002",
        "0004",
        "0005",
        "0006",
    }
    assert penn.plan().up_to_date  # by its content
    with pipeline_refuses("0003: ZeroDivisionError"):
        into.convert(tmp_path / "strict", penn.raw, strict=True)


def test_a_file_whose_name_is_not_utf8_is_rejected(embedded, into, tmp_path):
    raw = embedded.copy("kinetics", tmp_path / "kinetics")
    clip = next((raw / "train").rglob("*.mp4"))
    shutil.copy(clip, os.fsencode(clip.parent) + b"/caf\xe9.mp4")
    done = into.convert(tmp_path / "cache", raw, "kinetics")
    (rejection,) = done.document["rejected"].values()
    assert re.search(r"name_not_utf8: .*caf\\udce9\.mp4: 'name'", rejection)
    assert done.document["accounting"]["videos"]["kept"] == 1
    again = planned(datasets.get("kinetics"), "train", raw=raw, root=tmp_path / "cache")
    assert again.up_to_date


def test_a_broken_link_among_the_pictures_hides_no_other_change(penn):
    folder = penn.frames("0003")
    (folder / "000099.jpg").symlink_to(folder / "nowhere")
    before = files.folder_digest(folder)
    assert before != "missing"
    (folder / "000001.jpg").write_bytes(b"")
    assert files.folder_digest(folder) != before


def plan_3dpw(embedded, root, body):
    return planned(datasets.get("3dpw"), "train", raw=embedded.raw("3dpw"), root=root, body=body)


@pytest.fixture
def body(embedded, tmp_path):
    """A copy of the body, to be changed."""
    return Path(shutil.copytree(embedded.body, tmp_path / "body"))


def test_missing_body_files_and_a_body_that_cannot_be_loaded_reject_no_video(
    embedded, into, body, tmp_path
):
    with pytest.raises(MissingAssets, match=r"SMPL_NEUTRAL.*synthesize"):
        plan_3dpw(embedded, tmp_path / "cache", tmp_path / "nowhere")
    (body / "SMPL_NEUTRAL.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pipeline_refuses(r"SMPL_NEUTRAL\.pkl"):
        into.convert(tmp_path / "cache", embedded.raw("3dpw"), "3dpw", body=body)
    assert not (tmp_path / "cache/3dpw/train/manifest.json").exists()


def test_another_body_converts_everything_again_and_one_of_an_unused_gender_nothing(
    embedded, into, body, tmp_path
):
    root = tmp_path / "cache"
    into.convert(root, embedded.raw("3dpw"), "3dpw", body=body)
    shutil.copy(body / "SMPL_NEUTRAL.pkl", body / "SMPL_MALE.pkl")
    assert plan_3dpw(embedded, root, body).up_to_date
    np.save(body / "J_regressor_extra.npy", np.load(body / "J_regressor_extra.npy")[::-1])
    changed = plan_3dpw(embedded, root, body)
    assert changed.why.startswith("body was ")
    assert len(changed.items) == len(changed.drop) == 1


@pytest.mark.parametrize("first_with_body", [False, True])
def test_a_body_that_comes_or_goes_is_refused_at_once(
    first_with_body, embedded, into, tmp_path, monkeypatch
):
    root, raw = tmp_path / "cache", embedded.raw("3dpw")
    first, later = (embedded.body, None) if first_with_body else (None, embedded.body)
    into.convert(root, raw, "3dpw", body=first)
    before = into.everything(root)
    with (
        monkeypatch.context() as patch,
        pipeline_refuses(r"body model.*has_3d, kp_3d, trans"),
    ):
        patch.setattr(
            changes, "video_digest", lambda *_: pytest.fail("read the content of an input")
        )
        plan_3dpw(embedded, root, later)
    assert into.everything(root) == before
    shutil.rmtree(root / "3dpw/train")  # as the message says
    into.convert(root, raw, "3dpw", body=later)
    assert cache.verify(root).ok


class Patient(Lines):
    """Its videos are long: it waits until somebody has been told how much of one is done."""

    def read(self, raw, *arguments):
        show_done(3, 1000, "frames linked")
        await_that((raw.parent / "told").exists)
        return super().read(raw, *arguments)


@pytest.mark.processes
def test_progress_within_a_long_video_is_told_while_it_is_read(tmp_path):
    lab = Lab(tmp_path / "lab")
    told = []

    def progress(done, total, message="", *, unit=""):
        told.append((done, total, message))
        if "linked" in message:
            (lab.folder / "told").touch()

    plan = planned(Patient(), "train", raw=lab.raw, root=lab.root)
    convert.convert(plan, progress=progress)
    assert (0, 1, "other: 3 of 1,000 frames linked") in told
    assert lab.committed["other"] == (2, "")


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ("nr_inodes=20", "no inodes left on its disk (df -i)"),
        ("size=60k", "no space left on its disk"),
    ],
)
def test_a_disk_without_room_or_without_inodes_is_named(limits, shown, penn, types):
    with mounted(penn.root, "-t", "tmpfs", "-o", limits, "none"):
        types("convert penn_action/train --raw RAW/penn_action --cache CACHE", shown, code=2)
