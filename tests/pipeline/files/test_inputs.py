import contextlib
import errno
import itertools
import os
import shutil
from pathlib import Path

import pytest

from pipeline import datasets
from pipeline.files.raw import RawVideo, RawVideos, changes, files, texts_of

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


def test_videos_made_of_their_texts_are_the_same():
    videos = [
        RawVideo("a", (Path("a.mat"), Path("a.mp4")), (Path("b/a"),), (Path("c/a"), Path("d"))),
        RawVideo("b", (Path("all"),), span=(3, 5)),
        RawVideo("c", ()),
    ]
    made = RawVideos(texts_of(videos))
    assert ([*made], [*made[1:]], made[-1], len(made)) == (videos, videos[1:], videos[2], 3)


def test_one_file_of_all_clips_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "keypoints").mkdir()
    of_all = tmp_path / "keypoints/all.json"
    of_all.touch()
    os.truncate(of_all, files.HASHED_WHOLE + 1)
    for number in range(5):
        (tmp_path / f"{number}.mp4").touch()
    opened, open_ = [], os.open

    def note(path, *args, **options):
        opened.append(path)
        return open_(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", note)
        videos = [*datasets.get("videos").videos(tmp_path, "train")]
        before = {changes.video_digest(tmp_path, video) for video in videos}
    assert [video.files[1].name for video in videos] == ["all.json"] * 5
    assert [*map(str, opened)].count(str(of_all)) == 2  # is it of `detect`, and its digest
    of_all.write_bytes(bytes(files.HASHED_WHOLE) + b"1")
    after = {changes.video_digest(tmp_path, video) for video in videos}
    assert (len(before | after)) == 10


EDITS = {  # of a label folder with one file, one after another
    "nothing": lambda folder, file: None,
    "rewritten": lambda folder, file: file.write_text("[77]"),
    "touched": lambda folder, file: os.utime(file, ns=(7, 7)),
    "a second one": lambda folder, file: (folder / "b").touch(),
    "one again": lambda folder, file: (folder / "b").unlink(),
    "renamed": lambda folder, file: file.rename(folder / "b"),
    "gone": lambda folder, file: (folder / "b").unlink(),
    "a link to nowhere": lambda folder, file: file.symlink_to("nowhere"),
    "no folder": lambda folder, file: shutil.rmtree(folder),
}


@pytest.mark.parametrize("name", [b"only.json", b"a b\n 1.json", b"caf\xe9.json"], ids=repr)
def test_with_earlier_stamps_the_same_ones_are_made(name, tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    file = folder / os.fsdecode(name)
    file.write_text("[]")
    videos = [RawVideo("a", (Path("gone.mp4"),), label_folders=(Path("labels"),))]
    seen = {}
    for time, (edit, change) in enumerate(EDITS.items()):
        change(folder, file)
        if folder.is_dir():
            os.utime(folder, ns=(time, time))
        now = changes.stamp(tmp_path, videos[0])
        assert changes.stamps(tmp_path, videos, seen) == {"a": now}, edit
        assert changes.LastReading(now, "") not in seen.values(), edit
        seen = {"a": changes.LastReading(now, "")}
        assert changes.stamps(tmp_path, videos, seen) == {"a": now}, edit


def test_an_only_file_under_another_name_is_another_stamp(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "a.json").write_text("[]")
    video = RawVideo("a", (), label_folders=(Path("labels"),))
    status = folder.stat()
    was = changes.stamp(tmp_path, video)
    (folder / "a.json").rename(folder / "b.json")
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))
    now = changes.stamps(tmp_path, [video], {"a": changes.LastReading(was, "")})["a"]
    assert changes.what_differs(was, now) == ["labels has changed"]
    assert changes.same_inputs(was, now) == set()


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
