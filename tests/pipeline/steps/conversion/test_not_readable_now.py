"""Videos that cannot be read now: they keep their rows, and are read later."""

import errno
import os

import pytest
from numpy.testing import assert_equal

import cache
from pipeline import datasets
from pipeline.datasets.penn_action import PennAction
from pipeline.steps.conversion import convert, reading
from tests.hostile import Call

pytestmark = pytest.mark.processes

NOT_NOW = "not_readable_now"


def does_not_answer(penn, video):
    """A label file of which a read is an input/output error, also for root; its bytes before."""
    before = bytes(penn.label(video).read_bytes())
    penn.label(video).unlink()
    penn.label(video).symlink_to("/proc/self/mem")
    return before


# Unpickled in the process that reads, it ends that as the system does where memory runs out.
ENDED = Call(eval, "__import__('os').kill(__import__('os').getpid(), 9)")
DENIED = PermissionError(errno.EACCES, "Permission denied", "frames/0003")


CONVERT = "convert penn_action/train --raw RAW/penn_action --cache CACHE"


@pytest.mark.parametrize(
    ("error", "told"),
    [(DENIED, "permission denied. Change its"), (ENDED, "")],
    ids=["denied", "memory"],
)
def test_what_a_reader_meets_now_is_no_lasting_rejection(error, told, penn, reads, types):
    reads.fail("0003", error)
    types(CONVERT, f"0003: {NOT_NOW}: ", told, code=1)
    reads.clear()
    assert "0003" not in types(CONVERT, "(why: 1 unreadable video)")
    assert reads.names == ["0003"]
    assert "0003/0" in penn.rows("bbox")
    assert penn.plan().up_to_date


@pytest.mark.promise("contained")
def test_a_committed_video_that_cannot_be_read_now_keeps_its_rows(penn, types, monkeypatch):
    penn.converted()
    rows = penn.rows("kp_2d")
    before = does_not_answer(penn, "0003")
    said = f"0003: {NOT_NOW}: {penn.label('0003')}: input/output error"
    penn.add("0007")
    for version in 0, 0, 1:
        monkeypatch.setattr(PennAction, "version", PennAction.version + version)
        assert "Unpack" not in types(CONVERT, said, code=1)
        assert_equal(penn.rows("kp_2d"), rows | {"0007/0": rows["0001/0"]})
    assert cache.verify(penn.root).ok
    penn.label("0003").unlink()
    penn.label("0003").write_bytes(before)
    types(CONVERT)
    types(CONVERT, "up to date")


def test_a_picture_folder_without_permission_is_not_called_missing(
    penn, types, luigi_cfg, monkeypatch
):
    penn.converted()
    luigi_cfg("penn_action", "[resnet50]\nweights = untrained:0")

    def denied(function):
        def call(path, *more, **options):
            if str(path) == str(penn.frames("0003")):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return function(path, *more, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("listdir", "open"):
            patch.setattr(os, name, denied(getattr(os, name)))
        said = "changed 0003: frames/0003 cannot be read now"
        types("plan penn_action/train --cache CACHE", said)


def test_a_folder_that_has_no_digest_now_is_read_later(penn, monkeypatch):
    dataset = datasets.get("penn_action")
    video = dataset.videos(penn.raw, "train")[0]
    opened = os.open
    failures = [OSError(errno.EMFILE, "Too many open files")]

    def failing_once(path, flags, *more, **options):
        if flags & os.O_DIRECTORY and failures:
            raise failures.pop()
        return opened(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", failing_once)
    read = reading.VideoReader(dataset, "train", penn.raw, None).read(video)
    assert (read.account.set_aside, [*read.tracks]) == (NOT_NOW, [])
    read = reading.VideoReader(dataset, "train", penn.raw, None).read(video)
    assert read.account.set_aside == ""


def test_files_that_go_while_they_are_read_take_no_row(penn):
    penn.converted()
    penn.edit("0003")
    plan = penn.plan()
    penn.label("0003").unlink()
    done = convert.convert(plan)
    assert done.document["rejected"].keys() == {"0003"}
    assert done.document["kept"]["would_lose"] == {}
    assert penn.rows("bbox").keys() == {"0001/0", "0003/0", "0005/0"}
