"""One command from raw files to features and pages: the first time, again, and after whatever
happens to the files.
"""

import hashlib
import json
import shutil

import pytest

import cache
from tests.journeys.conftest import KIT
from tests.journeys.made_inputs import write_clip

PREPARE = (
    "prepare videos --raw clips --cache out/cache --detector red --stream means --set "
    "videos.min_frames=30"
)
KILLED = """
import os, signal, sys
from pipeline.__main__ import main

replace, calls = os.replace, 0

def kill(*args, **options):  # at the n-th file that gets its name
    global calls
    calls += 1
    if calls == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(*args, **options)

os.replace = kill
sys.exit(main(sys.argv[2:]))
"""


def files_of(folder):
    """Time and content of every file that is no lock and holds no times, by its path."""
    notes = ("provenance.json", "stamps.json", "lock")
    files = [
        file for file in sorted(folder.rglob("*")) if file.is_file() and file.name not in notes
    ]
    return {
        str(file.relative_to(folder)): (
            file.stat().st_mtime_ns,
            hashlib.sha256(file.read_bytes()).hexdigest(),
        )
        for file in files
    }


def contents_of(folder):
    return {name: digest for name, (_, digest) in files_of(folder).items()}


@pytest.fixture
def clips(terminal):
    """Two clips, and the kit's detector and stream, without a luigi.cfg."""
    terminal.install(KIT)
    folder = terminal.folder / "clips"
    write_clip(folder / "a.mp4", 40, seed=1)
    write_clip(folder / "more/b.mp4", 41, seed=2)
    return folder


def features(terminal, stream="means"):
    split = cache.open(terminal.folder / "out/cache")["videos/train"]
    return len(split.windows(seqlen=1, stride=1, stream=stream))


def test_a_folder_of_clips_in_one_command_and_what_happens_to_it(terminal, clips):
    types = terminal.types
    prepare = f"pipeline {PREPARE}"
    types(f"{prepare} --plan", r"detect +2 clips", r"extract +means")
    assert not (terminal.folder / "out").exists()
    assert not (clips / "keypoints").exists()
    types(
        prepare,
        r"81 persons in 81 frames",
        r"frames 81 kept of 81",
        r"81 rows computed",
        r"page out/cache-videos-train",
    )
    assert features(terminal) == 81
    before = files_of(terminal.folder)
    types(prepare, r"up to date \(2 videos, means\)", r"frames 81 kept of 81")
    assert files_of(terminal.folder) == before, "nothing to do changes no file"

    add_and_rename_clips(terminal, clips, prepare)
    add_broken_clips(terminal, clips, prepare)
    miss_a_clip(terminal, clips, prepare)
    terminal.is_intact("out/cache")


def add_and_rename_clips(terminal, clips, prepare):
    """A new clip is read alone; a renamed one keeps its rows, with or without its keypoints."""
    types = terminal.types
    write_clip(clips / "c.mp4", 42, seed=3)
    types(prepare, r"1 clip: 42 persons", r"1 video read, 2 unchanged", r"42 rows computed")
    assert features(terminal) == 123

    (clips / "a.mp4").rename(clips / "renamed.mp4")
    bare = prepare.replace("--detector red", "--detector none")
    lost = r"a\.mp4 \(without 40 rows under its new name renamed\.mp4: no_keypoints\)"
    types(bare, rf"1 video missing .*the rows are kept: {lost}", code=1)
    types(bare, r"1 video missing .*the rows are kept: a\.mp4\.", code=1)
    (clips / "keypoints/a.mp4.json").rename(clips / "keypoints/renamed.mp4.json")
    types(bare, r"1 renamed", r"renamed a\.mp4 -> renamed\.mp4", r"40 carried over")
    types(prepare, r"up to date \(3 videos, means\)")


def add_broken_clips(terminal, clips, prepare):
    """Files that are no clips cost themselves, each time they are met."""
    types = terminal.types
    whole = (clips / "c.mp4").read_bytes()
    (clips / "broken.mp4").write_bytes(whole[:900])
    (clips / "photo.mp4").write_bytes(b"\xff\xd8\xff\xe0")
    write_clip(clips / "d.mp4", 30, seed=4)
    for _ in range(2):  # an error is no reason to be silent the second time
        types(
            prepare,
            r"broken\.mp4: expected",
            r"rejected broken\.mp4: video_unreadable",
            r"frames 153 kept of 153",
            code=1,
        )
    assert features(terminal) == 153
    (clips / "broken.mp4").unlink()
    (clips / "photo.mp4").unlink()


def miss_a_clip(terminal, clips, prepare):
    """The rows of a missing clip are kept, and a new stream of them waits until it is back."""
    types = terminal.types
    (clips / "more/b.mp4").rename(terminal.folder / "b.mp4")
    types(prepare, r"error: videos/train: .* missing from clips; the rows are kept", code=1)

    another = prepare.replace("--stream means", "--stream homography")
    waits = r"homography: 41 rows of 1 video wait for images: more/b\.mp4 \(no "
    types(another, r"112 rows computed", waits, r"homography \(41 rows missing\)", code=1)
    (terminal.folder / "b.mp4").rename(clips / "more/b.mp4")
    types(prepare, r"videos 4 kept of 4")
    types(another, r"41 rows computed", r"features homography, means")


def test_a_new_clip_with_the_keypoints_of_the_old_one_is_named(terminal, clips):
    write_clip(clips / "c.mp4", 42, seed=3)
    for clip, n in (("a.mp4", 40), ("more/b.mp4", 41), ("c.mp4", 42)):
        coco = {
            "images": [
                {"id": t, "file_name": f"{t:06d}.jpg", "width": 96, "height": 72} for t in range(n)
            ],
            "annotations": [
                {"image_id": t, "category_id": 1, "bbox": [20, 10, 20, 40]} for t in range(n)
            ],
            "categories": [{"id": 1, "name": "person"}],
        }
        keypoints = clips / f"keypoints/{clip}.json"
        keypoints.parent.mkdir(parents=True, exist_ok=True)
        keypoints.write_text(json.dumps(coco))
    types, strict = (
        terminal.types,
        "pipeline convert videos/train --raw clips --cache out/cache --strict",
    )
    assert " note " not in types(f"pipeline {PREPARE}", r"frames 123 kept of 123")
    write_clip(clips / "c.mp4", 48, seed=4)
    stale = r"c\.mp4: the clip has changed, and keypoints/c\.mp4\.json has not"
    for option in ("", " --set videos.min_frames=30"):  # whether or not all is read again
        types(strict + option, rf"error: .*{stale}.* nothing was saved in the cache", code=2)
    types(
        f"pipeline {PREPARE}",
        rf"note {stale}",
        r"note .*keypoints/c\.mp4\.json has no entry for 6 frames of 48",
    )
    types("pipeline status --cache out/cache --all", stale)
    types(strict + option, r"up to date")


def test_killed_at_any_file_the_same_command_ends_with_the_same_bytes(terminal, clips):
    terminal.types(f"pipeline {PREPARE}")
    whole = contents_of(terminal.folder)
    shutil.rmtree(terminal.folder / "out")
    shutil.rmtree(clips / "keypoints")
    (terminal.folder / "killed.py").write_text(KILLED)
    for number in (1, 2, 5, 9, 3, 1):  # of the files that each command writes
        terminal.types(f"python killed.py {number} {PREPARE}", code=-9)
    terminal.types(f"pipeline {PREPARE}")
    after = contents_of(terminal.folder)
    del after["killed.py"]
    assert after == whole
