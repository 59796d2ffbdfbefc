"""What a conversion would do, and why: by looks where they are known, else by content. Nothing is
written.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import cache
from pipeline import datasets
from pipeline.datasets.penn_action import PennAction
from pipeline.errors import PipelineError
from pipeline.files.raw import RawVideo, changes
from pipeline.steps.conversion import convert
from tests.fixtures import planned
from tests.pipeline.datasets.by_hand import write_alphapose


@pytest.fixture
def content(monkeypatch):
    """Names of the videos whose content is read."""
    names = []
    original = changes.video_digest

    def video_digest(raw, video):
        names.append(video.name)
        return original(raw, video)

    monkeypatch.setattr(changes, "video_digest", video_digest)
    return names


CONVERT = "convert penn_action/train --raw RAW/penn_action --cache CACHE"


def refuse_to_write(*_):
    raise PermissionError(13, "read-only")


def test_a_touched_file_is_read_and_is_no_change(penn, content, types, monkeypatch):
    penn.converted()
    before = penn.everything()
    content.clear()
    for path in (penn.label("0003"), penn.frames("0003")):
        os.utime(path, ns=(1, 1))
    plan = penn.plan()
    assert (plan.up_to_date, plan.touched, content) == (True, ("0003",), ["0003"])
    assert penn.everything() == before
    with monkeypatch.context() as patch:
        patch.setattr(changes, "write_stamps", refuse_to_write)
        types(CONVERT, "up to date")
    types(CONVERT, "times of 1 video recorded")
    changed = {path for path, state in penn.everything().items() if before[path] != state}
    assert {Path(path).name for path in changed} <= {changes.STAMPS, "train"}
    content.clear()
    assert "recorded" not in types(CONVERT)
    assert content == []


@pytest.mark.parametrize(
    "name", [".DS_Store", "Thumbs.db", "desktop.ini", "._000001.jpg", ".nfs0000", "@eaDir"]
)
def test_what_a_system_leaves_in_a_folder_is_no_change(name, penn, embedded, into):
    penn.converted("exact")
    clips, root = embedded.copy("kinetics", penn.raw.parent / "kinetics"), penn.root
    into.convert(root, clips, "kinetics")
    for folder in (
        penn.frames("0003"),
        next(path for path in (clips / "keypoints/train").iterdir() if path.is_dir()),
    ):
        (folder / name).mkdir() if name == "@eaDir" else (folder / name).write_bytes(b"litter")
    plan = planned(datasets.get("kinetics"), "train", raw=clips, root=root)
    assert (penn.plan().up_to_date, plan.up_to_date) == (True, True)
    penn.edit("0003", lambda x: x.copy())
    (penn.frames("0003") / "000009.jpg").write_bytes(b"one more")
    assert penn.plan().why == "1 changed video"


@pytest.mark.parametrize(
    "stamps",
    [
        None,
        b"",
        b"[]",
        b"{",
        b'{"names": ["0001", "0003"], "stamps": [1, []], "digests": [2, {}], "losses": {}}',
        b'{"names": ["0001"], "stamps": [""], "digests": [""], "losses": {"0001": 1}}',
        b"\xff",
    ],
)
def test_without_usable_stamps_the_content_decides(stamps, penn):
    penn.converted()
    file = penn.root / penn.name / changes.STAMPS
    file.unlink() if stamps is None else file.write_bytes(stamps)
    assert penn.plan().up_to_date
    penn.edit("0003")
    assert penn.plan().why == "1 changed video"


def test_stamps_of_an_earlier_version_spare_the_contents(penn, content):
    penn.converted()
    penn.label("0003").write_bytes(b"cut off")
    penn.convert()
    content.clear()
    assert (penn.plan().up_to_date, content) == (True, [])
    file = penn.root / penn.name / changes.STAMPS
    stored = json.loads(file.read_text())
    losses = stored.pop("losses").items()
    stored["unusable"] = {name: [f"{name}: {loss[2]}", False] for name, loss in losses}
    file.write_text(json.dumps(stored))
    assert [item.video.name for item in penn.plan().items] == ["0003"]
    assert content == ["0003"], "the others have not changed"


def test_stamps_of_a_commit_that_never_happened_hide_no_change(penn, into, tmp_path):
    penn.converted()
    penn.edit("0003")
    # killed between the stamps and the manifest, a run leaves just this
    into.convert(tmp_path / "other", penn.raw)
    stamps = Path(penn.name, changes.STAMPS)
    shutil.copy(tmp_path / "other" / stamps, penn.root / stamps)
    assert [item.video.name for item in penn.plan().items] == ["0003"]


# COCO's joints
# with scores so low that no row is kept: rows would stay
PERSON = [(100 + 5 * joint, 60 + 9 * joint, 0.1) for joint in range(17)]


def rewrite(file):
    """Other bytes in place, as many as before."""
    file.write_bytes(b" " * file.stat().st_size)


EDITS = {  # of a raw folder of Kinetics with a clip, whose label folder has one file
    "nothing": lambda clip, labels: None,
    "the only file rewritten": lambda clip, labels: rewrite(labels),
    "the only file renamed": lambda clip, labels: labels.rename(labels.with_name("b.json")),
    "the only file gone": lambda clip, labels: labels.unlink(),
    "a second file": lambda clip, labels: (labels.parent / "b.json").write_text("[]"),
    "a file beside the folder": lambda clip, labels: (
        labels.parents[1] / f"{clip.name}.json"
    ).write_text("[]"),
    "keypoints gone": lambda clip, labels: shutil.rmtree(labels.parent),
    "the clip rewritten": lambda clip, labels: rewrite(clip),
    # no int64 has its ns
    "a time in the year 2514": lambda clip, labels: os.utime(clip, (2**34, 2**34)),
    "the clip gone": lambda clip, labels: clip.unlink(),
    "the clip renamed": lambda clip, labels: clip.rename(clip.with_stem("renamed")),
    "the same clip again": lambda clip, labels: shutil.copy(clip, clip.with_suffix(".mkv")),
    "a new clip": lambda clip, labels: shutil.copy(clip, clip.with_stem("new")),
}


@pytest.mark.promise("one recipe")
@pytest.mark.parametrize("edit", EDITS)
def test_stamps_hide_no_change(edit, embedded, into, content, tmp_path):
    root, raw = tmp_path / "cache", embedded.copy("kinetics", tmp_path / "kinetics")

    def plan():
        return planned(datasets.get("kinetics"), "train", raw=raw, root=root)

    folder = min((raw / "keypoints/train").iterdir())
    n_frames = len(list(folder.iterdir()))
    shutil.rmtree(folder)
    labels = folder / "alphapose-results.json"
    write_alphapose(labels, dict.fromkeys(range(n_frames), PERSON))
    into.convert(root, raw, "kinetics")
    content.clear()
    assert (plan().up_to_date, content) == (True, [])
    EDITS[edit](next((raw / "train").rglob(f"{folder.name}.mp4")), labels)
    found = plan()
    is_noticed = bool(content or found.why or found.losses)
    assert is_noticed == (edit != "nothing")
    (root / "kinetics/train" / changes.STAMPS).unlink()  # then, the content of each video is read
    by_content = plan()
    assert [item.video for item in found.items] == [item.video for item in by_content.items]
    for part in ("drop", "losses", "why"):
        assert getattr(found, part) == getattr(by_content, part), part
    if not found.why and not found.losses:
        convert.record_moves(by_content)
        content.clear()
        assert (plan().up_to_date, content) == (True, [])


def test_no_unchanged_clip_is_made_or_has_its_only_label_file_searched(
    embedded, into, tmp_path, monkeypatch
):
    root, raw = tmp_path / "cache", embedded.copy("kinetics", tmp_path / "kinetics")
    folder = min((raw / "keypoints/train").iterdir())
    n_frames = len(list(folder.iterdir()))
    shutil.rmtree(folder)
    write_alphapose(folder / "a.json", dict.fromkeys(range(n_frames), PERSON))
    into.convert(root, raw, "kinetics")
    opened, open_ = [], os.open

    def note(path, *args, **options):
        opened.append(Path(path))
        return open_(path, *args, **options)

    def refuse(*_, **__):
        raise AssertionError("a video was made")

    with monkeypatch.context() as patch:
        patch.setattr(RawVideo, "__init__", refuse)
        patch.setattr(os, "open", note)
        plan = planned(datasets.get("kinetics"), "train", raw, root)
    assert (plan.up_to_date, len(plan.listed), folder in opened) == (True, 1, False)


def test_stamps_of_an_earlier_commit_hide_no_video_that_could_not_be_read(
    penn, reads, types, tmp_path
):
    penn.converted()
    other, hidden = penn.label("0005"), tmp_path / "hidden"
    at, fault = other.stat().st_mtime_ns, PermissionError(13, "Permission denied", str(other))
    hidden.mkdir()
    places = penn.label("0003"), penn.frames("0003")
    for place in places:
        place.rename(hidden / place.name)
    before = penn.edit("0005")
    reads.fail("0005", fault)
    types(f"{CONVERT} --drop-removed", code=1)
    for place in places:
        (hidden / place.name).rename(place)
    other.write_bytes(before)
    os.utime(other, ns=(at, at))
    reads.clear()
    reads.fail("0003", fault)
    types(CONVERT, "The next run reads it again.", code=1)
    reads.clear()
    types(CONVERT)
    assert reads.names == ["0003"]


@dataclass(frozen=True)
class Chosen(PennAction):
    actions: tuple[str, ...] = ("squat", "bowl")
    name = "chosen"


def test_an_option_of_many_values_is_the_same_after_it_was_json(penn):
    convert.convert(penn.plan(dataset=Chosen()))
    assert penn.plan(dataset=Chosen()).up_to_date
    assert not penn.plan(dataset=Chosen(actions=("squat",))).up_to_date


@pytest.mark.parametrize(
    "left",
    [(), (".",), (".", "labels", "frames"), (".", "lost+found"), (".", "not_mounted/please")],
    ids=["nothing", "a mount point", "folders", "lost+found", "a marker"],
)
def test_a_raw_folder_with_nothing_in_it_does_not_empty_the_split(left, penn):
    penn.converted()
    before = penn.everything()
    shutil.rmtree(penn.raw)
    for folder in left:
        (penn.raw / folder).mkdir(parents=True)
    if len(left) < 2:
        expected = "found an empty folder, and the cache has 6 videos" if left else "no such folder"
    else:
        expected = "found none, and the cache has 6 videos"
    message = rf"^{penn.raw}: .*{expected}.*Mount its disk, or: name the dataset's raw folder"
    with pytest.raises(PipelineError, match=message):
        penn.plan()
    assert penn.everything() == before
    shutil.rmtree(penn.root / penn.name)
    if len(left) == 3:
        assert penn.plan().items == ()


def test_a_killed_run_is_continued_with_the_same_reader_alone(penn):
    made = penn.plan()
    os.utime(penn.label("0003"), ns=(1, 1))
    assert penn.plan().staging == made.staging
    newer = type("Newer", (PennAction,), {"version": 99})()
    assert penn.plan(dataset=newer).staging != made.staging


def test_a_raised_version_of_shared_code_reads_the_videos_again_and_is_named(
    penn, types, monkeypatch
):
    penn.converted("exact")
    monkeypatch.setattr(PennAction, "uses", {"readers": 2})
    types(CONVERT, "converted (why: uses was not set, is readers 2): videos 3 kept of 3")
    types(CONVERT, "up to date")
    extract = "extract penn_action/train --cache CACHE --weights untrained:0 --precision exact"
    types(extract, "0 rows computed", "24 carried over")


def test_a_plan_that_another_commit_has_made_old_is_refused(penn):
    old = penn.plan()
    penn.convert()
    with pytest.raises(cache.CacheChanged, match="another run has saved its work"):
        convert.convert(old)


def test_an_emptied_label_folder_has_changed_and_is_not_missing(tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "1.json").write_text("{}")
    video = RawVideo("v", (), label_folders=(Path("labels"),))
    was = changes.stamp(tmp_path, video)
    (labels / "1.json").unlink()
    assert changes.what_differs(was, changes.stamp(tmp_path, video)) == ["labels has changed"]
    labels.rmdir()
    assert changes.what_differs(was, changes.stamp(tmp_path, video)) == ["labels is missing"]


def test_a_path_with_blanks_and_line_feeds_is_one_file(tmp_path):
    name = "a b\nc 1.mat"
    (tmp_path / name).write_bytes(b"12345")
    (parsed,) = changes.parse(changes.stamp(tmp_path, RawVideo("v", (Path(name),)))).values()
    assert (parsed.kind, parsed.numbers[0], parsed.path) == ("file", 5, "a b\\nc 1.mat")


def test_a_look_at_a_cache_reads_no_contents(penn, types_json, monkeypatch):
    penn.convert()
    for video in ("0001", "0003"):
        penn.label(video).touch()
    penn.edit("0001")
    penn.add("0007")
    penn.remove("0005")  # which may be the new one, renamed
    monkeypatch.setattr(changes, "video_digest", None)
    (split,) = types_json("status --cache CACHE", code=1)
    assert split["to_convert"] == "1 new video, 2 videos with other sizes or times"
    assert split["missing"] == {"0005": ""}
    assert split["would_lose"] == {"0005": {"before": 8, "now": 0, "why": "missing"}}


def test_a_video_that_stays_without_a_file_is_not_to_be_converted(penn, types_json):
    penn.convert()
    penn.edit("0003")
    shutil.rmtree(penn.raw / "frames" / "0003")
    (split,) = types_json("status --cache CACHE", code=1)
    assert split["to_convert"] == ""
    assert split["missing"] == {"0003": "frames/0003"}
