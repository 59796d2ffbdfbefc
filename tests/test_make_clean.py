"""`make clean` takes demo data away, and nothing that cost anybody a download or days of
computing.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.clips.files import MADE_BY
from pipeline.demo import writing as synthetic
from tests.cache import toy

ROOT = Path(__file__).parents[1]
RAW, BODY, CACHE, RUNS = (
    Path("data/embedded/raw/amass"),
    Path("data/embedded/body"),
    Path("data/cache"),
    Path("runs"),
)
RUN = RUNS / "vibe-0123456789abcdef"
OF_RUN = (
    "last.pt",
    "best.pt",
    "curves.jsonl",
    "metrics.json",
    "results.csv",
    "events.out.tfevents.1.host.1.0",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A clone after `make report`, in small."""
    folder = tmp_path_factory.mktemp("clone")
    synthetic.write_dataset("amass", folder / RAW, n_videos=1, n_frames=2)
    with synthetic.new_folder(folder / BODY, {"stand_in": True}) as body:
        (body / "SMPL_NEUTRAL.pkl").write_bytes(b"a body")
    detected = folder / RAW / "keypoints/clip.mp4.json"  # as the demo detector's, in `videos`
    detected.parent.mkdir()
    detected.write_text(f'{{"info": {json.dumps({"description": MADE_BY})},\n"images": []}}\n')
    with toy.writer(folder / CACHE, "plan") as writer:
        writer.begin()
        for video in toy.videos():
            writer.append(*video)
        writer.commit({"stand_in": True})
    toy.write_stream(folder / CACHE)
    toy.unfinished(folder / CACHE, [toy.video("z", [40])])
    (folder / RUN).mkdir(parents=True)
    (folder / RUN / "config.json").write_text('{"stand_in": true}')
    for name in OF_RUN:
        (folder / RUN / name).write_bytes(b"of a training")
    (folder / RUNS / "report.html").write_text("<!doctype html>")
    (folder / "docs/_build").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    return folder


def put(file: Path, text: str = "mine") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def mark_as_own(folder: Path) -> None:
    """As docs/adding-a-dataset.md says of made-up data."""
    put(
        folder / RAW / "STAND_IN.json",
        '{"stand_in": true, "what": "Random people, made up to try the reader."}',
    )


@pytest.mark.parametrize(
    ("change", "stays", "named"),
    [
        (lambda clone: None, None, ""),
        (lambda clone: put(clone / RAW / "notes.txt"), RAW, "notes.txt"),
        (lambda clone: put(clone / RAW / "ACCAD/subject01/shape.npz"), RAW, "shape.npz"),
        (lambda clone: put(clone / RAW / "keypoints/clip.mp4.json", "{}"), RAW, "clip.mp4.json"),
        (mark_as_own, RAW, "without a list of files"),
        (lambda clone: (clone / RAW / "mine").symlink_to(clone), RAW, "mine"),
        (lambda clone: put(clone / BODY / "SMPL_NEUTRAL.npz"), BODY, "SMPL_NEUTRAL.npz"),
        (lambda clone: put(clone / CACHE / "toy/train/notes.txt"), CACHE, "notes.txt"),
        (
            lambda clone: put(clone / CACHE / "3dpw/train/manifest.json", '{"stand_in": false}'),
            CACHE,
            "3dpw/train",
        ),
        (
            lambda clone: put(clone / CACHE / "3dpw/train/bbox/c/0/0"),
            CACHE,
            "3dpw/train/manifest.json",
        ),
        (
            lambda clone: (clone / CACHE / "toy/train/trans").symlink_to(clone),
            CACHE,
            "toy/train/trans",
        ),
        (
            lambda clone: put(clone / RUNS / "vibe-1/config.json", '{"stand_in": false}'),
            RUNS,
            "vibe-1",
        ),
        (lambda clone: put(clone / RUNS / "vibe-1/best.pt"), RUNS, "vibe-1"),
        (lambda clone: put(clone / RUN / "paper.tex"), RUNS, "paper.tex"),
        (lambda clone: put(clone / RUNS / "mine.csv"), RUNS, "mine.csv"),
    ],
)
def test_what_is_demo_data_goes_and_anything_else_stays(
    change, stays, named, made: Path, tmp_path: Path
) -> None:
    clone = shutil.copytree(made, tmp_path / "clone", symlinks=True)
    change(clone)
    # of `make test`
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment |= {"PYTHONPATH": str(ROOT)}
    command = ["make", "clean", f"BIN={Path(sys.executable).parent}"]
    for _ in range(2):  # the second time, there is nothing else to do
        done = subprocess.run(
            command, cwd=clone, env=environment, check=True, capture_output=True, text=True
        )
        assert done.stdout.count("\n") == bool(stays)
        if stays:
            assert f"{stays} is left: not all of it is known to be demo data (" in done.stdout
            assert named in done.stdout
        folders = (RAW, BODY, CACHE, RUNS, Path("docs/_build"))
        assert [folder for folder in folders if (clone / folder).exists()] == [stays] * bool(stays)
