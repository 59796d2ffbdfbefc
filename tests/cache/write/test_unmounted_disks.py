"""A disk that is not mounted leaves a folder without any file of the cache in it, whatever else is
there. Nothing is read as if it were complete, written into that folder, or removed beside it.
"""

import re
import shutil
import tempfile
from pathlib import Path

import pytest

import cache
from cache import CacheError, MissingSplit
from tests.cache import toy
from tests.cache.storage.buckets import write_narrow
from tests.cache.users import as_another_user
from tests.raising import all_raise
from tests.trees import contents, everything

SPLIT = "toy/train"
FEATURES = f"{SPLIT}/features"
# by the mount point
HELD = ("", "a dead link", "lost+found/", "NOT_MOUNTED", "not_mounted/README")


def unmount(folder, disk, held):
    """What is left of a folder on a disk that is not mounted any more: `held`."""
    folder.rename(disk)
    if held == "a dead link":
        folder.symlink_to("/mnt/not-mounted")
        return
    folder.mkdir()
    if held.endswith("/"):
        (folder / held).mkdir()
    elif held:
        (folder / held).parent.mkdir(exist_ok=True)
        (folder / held).write_text("mount me")


def mount(disk, folder):
    folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
    disk.rename(folder)


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("folder", [FEATURES, f"{FEATURES}/resnet50"])
def test_a_stream_whose_disk_is_not_mounted_is_a_problem_of_every_use_and_loses_nothing(
    folder, held, root, tmp_path
):
    toy.write_stream(root, stream="other")
    complete = contents(root)
    unmount(root / folder, tmp_path / "disk", held)
    before = contents(root)
    split, to = toy.opened(root), tmp_path / "copy"
    windows = split.windows(seqlen=4, stride=4)
    problem = f"{root / folder}: expected features, found none. Mount its disk"
    all_raise(
        CacheError,
        re.escape(problem),
        lambda: split.open_stream("resnet50"),
        lambda: split.read(windows),
        lambda: split.read(windows, fields=["kp_2d"]),  # relative to the crops of that stream
        lambda: toy.write_stream(root),
        lambda: cache.StreamShards(root, SPLIT, "resnet50", cache.StreamForm(4), plan="weights"),
        lambda: cache.delete_stream(root, SPLIT, "resnet50"),
        lambda: cache.copy_split(root, SPLIT, to, streams=["resnet50"]),
    )
    report = cache.verify(root)
    assert [damage.key for damage in report.damaged] == [folder] and report.notes == []
    cache.repair(root, report)
    collected = cache.gc(root, unfinished=True)
    assert [text.startswith(problem) for text in collected.problems] == [True]
    assert collected.removed == [] and contents(root) == before

    copied = cache.copy_split(root, SPLIT, to)
    assert [text.startswith(problem) for text in copied.left_out] == [True]
    assert copied.streams == (() if folder == FEATURES else ("other",))
    mount(tmp_path / "disk", root / folder)
    assert contents(root) == complete
    again = cache.copy_split(root, SPLIT, to)
    assert "resnet50" in again.streams and again.left_out == () and cache.verify(root).ok


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("folder", ["toy", SPLIT])
def test_a_dataset_or_a_split_whose_disk_is_not_mounted_is_a_problem_and_is_not_written_again(
    folder, held, root, tmp_path
):
    unmount(root / folder, tmp_path / "disk", held)
    look = contents if held == "a dead link" else everything
    before = look(root)
    problem = f"{root / folder}: expected the split {SPLIT}"
    assert cache.open(root).splits == (SPLIT,)
    all_raise(
        MissingSplit,
        re.escape(problem) + r".*found nothing of it\. Mount its disk",
        lambda: toy.opened(root),
        lambda: toy.write(root, toy.videos(), plan="again"),
        lambda: toy.write_stream(root),
    )
    if folder == "toy":
        with pytest.raises(MissingSplit, match=r"cache/toy: expected the split toy/new"):
            write_narrow(root, toy.video("a", 5), split="toy/new")
    report = cache.verify(root)
    assert [damage.key for damage in report.damaged] == [f"{SPLIT}/manifest.json"]
    repaired = cache.repair(root, report)
    assert (repaired.restored, "Mount its disk" in repaired.refused[0]) == ([], True)
    collected = cache.gc(root, unfinished=True)
    assert [text.startswith(problem) for text in collected.problems] == [True]
    assert (collected.removed, collected.forgotten) == ([], [])
    assert look(root) == before
    mount(tmp_path / "disk", root / folder)
    assert cache.verify(root).ok


def test_a_conversion_goes_on_without_the_disk_of_the_features_and_only_new_rows_are_computed(
    root, tmp_path
):
    features = root / FEATURES
    unmount(features, tmp_path / "disk", "lost+found/")
    toy.write(root, [*toy.videos(), toy.video("new", 9)])
    assert [path.name for path in features.rglob("*")] == ["lost+found"]
    mount(tmp_path / "disk", features)
    with toy.stream_writer(root) as writer:
        assert len(writer.shards.pending) == 1


def test_features_that_were_deleted_with_their_folder_are_computed_again(root):
    shutil.rmtree(root / FEATURES)
    toy.write_stream(root)
    shutil.rmtree(root / FEATURES / "resnet50")
    gone = f"{root / FEATURES}/resnet50: no such folder: mount its disk; if the stream was deleted"
    (note,) = cache.verify(root).notes
    assert note.startswith(gone) and cache.verify(root).ok
    assert sorted(cache.gc(root).removed) == [
        f"{FEATURES}/resnet50{part}" for part in ("_key", "_ok")
    ]
    toy.write_stream(root)
    report = cache.verify(root)
    assert report.ok and report.notes == []


def test_the_folder_lost_and_found_of_a_mounted_disk_is_no_split_and_no_stream(made):
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        root = shutil.copytree(made, folder / "cache")
        for name in ("toy", FEATURES):
            (root / name / "lost+found").mkdir(mode=0o700)  # of root, as mkfs makes it

        def use():
            assert cache.open(root).splits == (SPLIT,)
            assert toy.opened(root).streams == ("resnet50",)
            report = cache.verify(root)
            assert (report.problems, report.notes) == ((), [])

        assert as_another_user(use) == ""
    finally:
        shutil.rmtree(folder)


def test_a_folder_of_features_that_a_killed_first_commit_left_empty_is_no_disk(tmp_path):
    """Killed between the folder and its file: nothing is to be mounted, and the same command ends
    as if it had not been killed.
    """
    root, whole = tmp_path / "killed", tmp_path / "whole"
    toy.add(whole, "a", 40)
    toy.unfinished(root, [toy.video("a", 40)], plan="plan")
    shutil.rmtree(root / "toy/train/features", ignore_errors=True)
    (root / "toy/train/features").mkdir()
    assert cache.verify(root).problems == ()
    assert cache.gc(root).problems == []
    toy.add(root, "a", 40)
    assert toy.tree(root) == toy.tree(whole)
