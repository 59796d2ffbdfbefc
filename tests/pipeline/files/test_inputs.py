import contextlib
import errno
import itertools
import os
from pathlib import Path

import pytest

from pipeline.files.raw import RawVideo, changes, files

pytestmark = pytest.mark.processes


def raw_video(root):
    (root / "labels").mkdir(parents=True)
    (root / "frames").mkdir()
    (root / "labels" / "0001.mat").write_bytes(b"label")
    for i in range(3):
        (root / "frames" / f"{i}.jpg").write_bytes(b"x" * i)
    return RawVideo("0001", (root / "labels" / "0001.mat",), (root / "frames",))


def keypoints(root):
    folder = root / "keypoints"
    folder.mkdir(parents=True)
    for i in range(3):
        (folder / f"{i}.json").write_text(f"[{i}]")
    return RawVideo("clip", files=(), label_folders=(Path("keypoints"),))


def test_label_files_that_change_places_are_noticed(tmp_path):
    video, folder = keypoints(tmp_path), tmp_path / "keypoints"
    for path in (*folder.iterdir(), folder):
        os.utime(path, ns=(5, 5))
    stamp, digest = changes.stamp(tmp_path, video), changes.video_digest(tmp_path, video)
    for old, new in (("0", "x"), ("1", "0"), ("x", "1")):
        (folder / f"{old}.json").rename(folder / f"{new}.json")
    assert changes.stamp(tmp_path, video) != stamp
    assert changes.video_digest(tmp_path, video) != digest


class _Unreadable:
    """An entry of a folder on a disk that does not answer for it."""

    def stat(self):
        raise OSError(errno.EIO, "Input/output error")


def test_a_label_folder_with_a_file_that_cannot_be_read_now_is_unreadable(tmp_path, monkeypatch):
    video = keypoints(tmp_path)
    scan = os.scandir

    @contextlib.contextmanager
    def one_more(descriptor):
        with scan(descriptor) as entries:
            yield itertools.chain(entries, [_Unreadable()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", one_more)
        stamp = changes.stamp(tmp_path, video)
    unreadable = str(changes.UNREADABLE)
    assert stamp.split() == ["labels", *[unreadable] * 4, "keypoints"]


def test_what_is_no_file_in_a_label_folder_hangs_nothing_and_hides_nothing(tmp_path):
    video, folder = keypoints(tmp_path), tmp_path / "keypoints"
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to(folder / "nowhere")
    stamp, digest = changes.stamp(tmp_path, video), changes.video_digest(tmp_path, video)
    assert changes.parse(stamp)["keypoints"].numbers[0] == 6
    (folder / "1.json").write_text("[7]")
    os.utime(folder / "1.json", ns=(2**62, 2**62))
    assert changes.stamp(tmp_path, video) != stamp
    assert changes.video_digest(tmp_path, video) != digest


def test_what_is_gone_has_a_stamp_and_a_digest_of_its_own(tmp_path):
    file, folder = raw_video(tmp_path), keypoints(tmp_path)
    gone = ((file, "labels/0001.mat", "file -1 -1"), (folder, "keypoints", "labels -1 -1 -1 -1"))
    for video, path, expected in gone:
        before = changes.video_digest(tmp_path, video)
        (tmp_path / path).rename(tmp_path / "elsewhere")
        assert changes.stamp(tmp_path, video).startswith(f"{expected} {path}")
        assert changes.video_digest(tmp_path, video) != before
        (tmp_path / "elsewhere").rename(tmp_path / path)


@pytest.mark.parametrize(("name", "n_known"), [("clip.mp4", 4), ("downtown.pkl", 5)])
def test_a_large_video_is_known_by_its_ends_and_its_middle_and_labels_by_every_byte(
    tmp_path, name, n_known
):
    size, seen = files.HASHED_WHOLE + 3, set()
    for changed in (None, 0, size // 3, size // 2, size - 1):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(size)
            if changed is not None:
                stream.seek(changed)
                stream.write(b"x")
        seen.add(files.file_digest(tmp_path / name))
    assert len(seen) == n_known
