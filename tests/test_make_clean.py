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
    for record in ("lock", "running-1-of-2", "0123456789abcdef" * 4):
        put(detected.parent / ".detect" / record, "")
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


def mark_as_own(raw: Path) -> None:
    """As docs/adding-a-dataset.md says of made-up data."""
    put(
        raw / "STAND_IN.json",
        '{"stand_in": true, "what": "Random people, made up to try the reader."}',
    )


def link(file: Path) -> None:
    file.symlink_to(file.parent)


def put_real(file: Path) -> None:
    put(file, '{"stand_in": false}')


# What may lie in each folder that is cleaned: how it comes there, and what the line names.
OTHERS = {
    RAW: [
        (lambda raw: put(raw / "notes.txt"), "notes.txt"),
        (lambda raw: put(raw / "ACCAD/subject01/shape.npz"), "shape.npz"),
        (lambda raw: put(raw / "keypoints/clip.mp4.json", "{}"), "clip.mp4.json"),
        (lambda raw: put(raw / "keypoints/.detect/thesis.tex"), "thesis.tex"),
        (mark_as_own, "without a list of files"),
        (lambda raw: link(raw / "mine"), "mine"),
    ],
    BODY: [(lambda body: put(body / "SMPL_NEUTRAL.npz"), "SMPL_NEUTRAL.npz")],
    CACHE: [
        (lambda root: put(root / "toy/train/notes.txt"), "notes.txt"),
        (lambda root: put_real(root / "3dpw/train/manifest.json"), "3dpw/train"),
        (lambda root: put(root / "3dpw/train/bbox/c/0/0"), "3dpw/train/manifest.json"),
        (lambda root: link(root / "toy/train/trans"), "toy/train/trans"),
    ],
    RUNS: [
        (lambda runs: put_real(runs / "vibe-1/config.json"), "vibe-1"),
        (lambda runs: put(runs / "vibe-1/best.pt"), "vibe-1"),
        (lambda runs: put(runs / RUN.name / "paper.tex"), "paper.tex"),
        (lambda runs: put(runs / "mine.csv"), "mine.csv"),
    ],
}


@pytest.mark.parametrize("number", [*range(6), None])
def test_what_is_demo_data_goes_and_anything_else_stays(
    number: int | None, made: Path, tmp_path: Path
) -> None:
    """In each folder the thing of this number, where it has so many."""
    clone = shutil.copytree(made, tmp_path / "clone", symlinks=True)
    expected = {}
    for folder, others in OTHERS.items():
        if number is not None and number < len(others):
            change, named = others[number]
            change(clone / folder)
            expected[folder] = named
    # of `make test`
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment |= {"PYTHONPATH": str(ROOT)}
    command = ["make", "clean", f"BIN={Path(sys.executable).parent}"]
    for _ in range(2):  # the second time, there is nothing else to do
        done = subprocess.run(
            command, cwd=clone, env=environment, check=True, capture_output=True, text=True
        )
        lines = done.stdout.splitlines()
        assert len(lines) == len(expected)
        for folder, named in expected.items():
            start = f"{folder} is left: not all of it is known to be demo data ("
            (line,) = [line for line in lines if line.startswith(start)]
            assert named in line.removeprefix(start)
        folders = (RAW, BODY, CACHE, RUNS, Path("docs/_build"))
        assert [folder for folder in folders if (clone / folder).exists()] == [*expected]
