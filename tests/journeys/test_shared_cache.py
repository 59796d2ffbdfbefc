"""A cache that several people and disks share: unmounted disks, other writers."""

import os
import shutil
import subprocess

import pytest

import cache
from cache.write.parts import Part
from tests.mounts import mounted
from tests.trees import contents

DATA = "luigi --module tasks Data"
SETTINGS = """
[paths]
raw = data/raw
body = data/body
cache = cache
runs = runs
new_cache = once
[data]
datasets = penn_action amass
[features]
streams = homography
[core]
local_scheduler = true
autoload_range = false
"""
FEATURES = "penn_action/train/features"
BY_HAND = "pipeline convert amass/train --raw data/raw/amass --cache cache"


@pytest.fixture
def lab(terminal):
    """A cache of two datasets, as the first run has left it."""
    terminal.get_demo_data("data/raw/penn_action", "data/raw/amass", "data/body")
    (terminal.folder / "luigi.cfg").write_text(SETTINGS)
    terminal.types(DATA, r"convert +amass/train", r"convert +penn_action/train")
    return terminal


# what is in each mount point; tests/cache/write/test_unmounted_disks.py has each in each
HELD = {"amass": "lost+found", FEATURES: "", f"{FEATURES}/homography": "MARKER"}


@pytest.mark.promise("verified")
def test_a_disk_that_is_not_mounted_is_a_problem_of_every_command_whatever_its_mount_point_holds(
    lab,
):
    types, root, disk = lab.types, lab.folder / "cache", lab.folder / "disk"
    for folder, held in HELD.items():
        place, split = root / folder, "amass/train" if folder == "amass" else "penn_action/train"
        mount = rf"cache/{folder}: expected .*, found no.*\. Mount its disk"
        place.rename(disk)
        place.mkdir()
        if held:
            (place / held).mkdir() if held == "lost+found" else (place / held).write_text("")
        before = contents(root)
        assert "penn_action/train" in types("pipeline status", mount, code=1)
        assert "`gc`" not in types("pipeline verify --fast --repair", mount, code=1)
        types("pipeline gc --unfinished", mount, code=1)
        copy = f"pipeline copy --to copy-{held}"
        types(copy, r"penn_action/train: copied", mount, code=1)
        types("pipeline plan", mount, code=2)
        for more in ("", "--replace"):
            types(f"pipeline extract {split} --stream homography {more}", mount, code=2)
        if folder == "amass":
            types(BY_HAND, mount, code=2)
        types(DATA, mount, code=30)
        assert contents(root) == before
        shutil.rmtree(place)
        disk.rename(place)
        types(copy, r"amass/train: " if folder == "amass" else r"copied homography")

    assert types(DATA).count("✓") == 0
    types("pipeline verify --fast")
    types("pipeline status")
    types("pipeline gc", r"0 paths removed")


def test_luigi_ends_with_10_beside_another_writer_and_gc_forgets_a_deleted_dataset(lab):
    types, root = lab.types, lab.folder / "cache"
    shutil.rmtree(root / "penn_action/train")
    with cache.SplitWriter(root, "penn_action/train", columns=(), plan="another user's"):
        types(DATA, r"convert +penn_action/train.*process \d+ writing", code=10)
    with Part(1, 2).running(root, "penn_action/train/.writing"):
        types(
            f"{DATA} --workers 2",
            r"running-1-of-2: expected no running process of a share",
            code=10,
        )
    types(DATA, r"convert +penn_action/train")

    shutil.rmtree(root / "amass")
    types("pipeline status", r"amass/train.*no such folder\. Mount its disk, restore it", code=1)
    types("pipeline gc", r"amass/train: its folder was deleted: forgotten")
    types("pipeline status")


@pytest.fixture
def read_only(lab):
    """The lab, whose cache is on a disk that this user may only read."""
    root = lab.folder / "cache"
    if os.geteuid():
        subprocess.run(["chmod", "-R", "a-w", root], check=True)
        yield lab
        subprocess.run(["chmod", "-R", "u+w", root], check=True)
        return
    with mounted(root, "--bind", root, remount="ro,bind"):
        yield lab


@pytest.mark.promise("users")
def test_a_cache_that_may_only_be_read_serves_all_that_needs_no_writing(read_only):
    types, split = read_only.types, "penn_action/train"
    before = contents(read_only.folder / "cache")
    types("pipeline status --sizes", split)
    types("pipeline plan")
    types("pipeline verify --repair")
    types("pipeline gc --dry-run")
    types("pipeline leaks")
    types("pipeline copy --to copy", rf"{split}: copied \d+ rows with homography")
    types("pipeline verify --cache copy")
    types(f"pipeline show {split} --cache cache --out page.html")
    types(f"pipeline export {split} --format parquet --out exported")
    types(f"pipeline convert {split} --raw data/raw/penn_action --cache cache", "up to date")
    types(f"pipeline extract {split} --cache cache --stream homography", "up to date")
    assert types(DATA).count("✓") == 0

    types("pipeline gc", r"(?i)read-only|permission denied", code=1)
    types("pipeline tag here", r"read-only|permission denied", code=2)
    types(
        f"pipeline extract {split} --cache cache --stream homography --replace",
        r"read-only|denied",
        code=2,
    )
    assert contents(read_only.folder / "cache") == before
