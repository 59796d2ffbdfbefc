"""What a killed writer has left is built on by the next command; a power cut after that one must
not take the ground away.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import cache
from tests.cache import made_up
from tests.cache.disk import (
    Interruption,
    Killed,
    Model,
    Watched,
    on_disk,
    put_back,
    watching,
)
from tests.cache.made_up import SPLIT

pytestmark = pytest.mark.promise("power cut")

Command = Callable[[Path], None]
STREAM = "resnet50"
FIRST = {"a": ("a", (8,), 0, 0), "b": ("b", (3, 5), 0, 0)}
SECOND = {"a": ("a", (8,), 0, 1), "c": ("c", (6,), 0, 0)}


def convert(root):
    made_up.convert(root, SECOND)


def extract(root):
    made_up.extract(root, STREAM, at_most=99, staged=False, written=[])


def collect(root):
    cache.gc(root, unfinished=True)


def finish(root):
    cache.finish_commits(root, SPLIT)


def run(command, root, first, interruption):
    """On a copy of a cache, to the interruption."""
    shutil.copytree(first, root)
    watched = Watched(root.parent, Model(on_disk(root.parent)), interruption)
    with watching(watched), pytest.raises(Killed):
        command(root)
    return watched


def moments_after_a_manifest(command, root, first):
    """The numbers of the changes that come next after a manifest has its name."""
    shutil.copytree(first, root)
    seen = [manifests(root)]
    moments = []

    def note(number):
        now = manifests(root)
        if now != seen[-1]:
            seen.append(now)
            moments.append(number)

    with watching(Watched(root.parent, Model(on_disk(root.parent)), before_change=note)):
        command(root)
    return moments


def manifests(root):
    return [file.read_bytes() for file in sorted(root.rglob("manifest.json"))]


@pytest.mark.parametrize(
    ("killed", "following"), [(convert, convert), (convert, collect), (extract, finish)]
)
def test_a_manifest_that_a_cut_may_take_back_keeps_its_data_until_it_cannot(
    killed, following, tmp_path
):
    """The first command is killed when the manifest has its name, and a cut may still undo that;
    the next one loses the power before each of its changes.
    """
    first = tmp_path / "first"
    made_up.convert(first, FIRST)
    extract(first)
    if killed is extract:  # a video more, whose rows lack features
        made_up.convert(first, FIRST | {"d": ("d", (8,), 0, 0)})
    moments = moments_after_a_manifest(killed, tmp_path / "counted/cache", first)
    assert moments

    for number in moments:
        disk = tmp_path / f"killed at {number}"
        watched = run(killed, disk / "cache", first, Interruption(number))
        verified = []

        def check(change, watched=watched, verified=verified):
            lost = watched.model.lost()
            if lost in verified:  # few changes reach the disk
                return
            verified.append(lost)
            after = tmp_path / "after"
            after.mkdir()
            put_back(lost, after)
            assert cache.verify(after / "cache").problems == (), f"before change {change}"
            shutil.rmtree(after)

        with watching(Watched(disk, watched.model, before_change=check)):
            following(disk / "cache")
        check(-1)
