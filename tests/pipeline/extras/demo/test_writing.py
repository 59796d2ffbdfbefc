"""Demo data on the disk: deterministic, whole or absent, and never over other files."""

import json

import pytest

from pipeline.__main__ import main
from pipeline.extras.demo import writing as synthetic
from pipeline.extras.demo.layouts import SIZES, Request
from pipeline.files.raw import is_demo_data
from tests.raising import pipeline_refuses
from tests.trees import contents


def small(folder, *, workers=1, **options):
    request = Request(**({"n_videos": 1, "n_frames": 2} | options))
    return synthetic.write_dataset("amass", folder, request, workers=workers)


def test_the_same_seed_gives_the_same_bytes_in_any_number_of_processes(tmp_path):
    takes = [
        small(tmp_path / folder, n_videos=2, seed=1, workers=n)
        for folder, n in (("a", 1), ("b", 2))
    ]
    assert [take.shot for take in takes[0]] == [take.shot for take in takes[1]]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert is_demo_data(tmp_path / "a")
    marker = json.loads((tmp_path / "a/STAND_IN.json").read_text())
    assert (marker["stand_in"], marker["seed"], marker["version"]) == (True, 1, synthetic.VERSION)
    assert marker["what"].endswith(".")


def test_what_is_up_to_date_stays_and_another_seed_replaces_it(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", 0.05)
    place = (tmp_path / "raw", tmp_path / "body")

    def written(seed=0):
        found = []
        report = lambda done, total, message="": found.append(f"{done}/{total} {message}")  # noqa: E731
        request = Request(seed, "tiny")
        synthetic.synthesize(*place, ["amass"], request=request, workers=1, progress=report)
        return found

    def current(*names, seed=0):
        return synthetic.is_current(*place, names, Request(seed, "tiny"))

    assert written() == ["1/1 amass ACCAD/subject01/motion01"]
    assert current("amass")
    assert not current("amass", "3dpw")
    assert not current("amass", seed=1)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert written() == []
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == times
    before = contents(place[0])
    assert written(seed=1) != []
    assert contents(place[0]) != before
    assert is_demo_data(place[1])


def marked_by_hand(folder):
    """Made-up data of a user, as docs/adding-a-dataset.md says to mark it."""
    mark = {"stand_in": True, "what": "Random people, made up to try the reader."}
    (folder / "STAND_IN.json").write_text(json.dumps(mark))


def with_the_mark_of_demo_data(folder):
    """A copy of own data with a copied mark, as docs/clips/first-result.md says for trial runs."""
    for path in sorted(folder.rglob("*.npz")):
        path.write_bytes(b"own data")


CHANGES = {
    "a file more": (
        lambda folder: (folder / "ACCAD/notes.txt").write_text("mine"),
        "ACCAD/notes.txt",
    ),
    "another content": (with_the_mark_of_demo_data, ".npz"),
    "no mark": (lambda folder: (folder / "STAND_IN.json").unlink(), ".npz"),
    "a broken mark": (lambda folder: (folder / "STAND_IN.json").write_text("no json"), ".json"),
    "an own mark": (marked_by_hand, "STAND_IN.json without a list of files"),
    "a link": (lambda folder: (folder / "mine").symlink_to(folder.parent), "mine"),
    "own keypoints": (lambda folder: _own_keypoints(folder), "keypoints/clip.mp4.json"),
}


def _own_keypoints(folder):
    (folder / "keypoints").mkdir()
    (folder / "keypoints/clip.mp4.json").write_text('{"info": {"description": "mine"}}')


@pytest.mark.promise("outputs")
@pytest.mark.parametrize("change", CHANGES)
def test_a_mark_alone_lets_nothing_be_replaced_and_the_foreign_file_is_named(
    change, tmp_path, capsys
):
    make, foreign = CHANGES[change]
    folder = tmp_path / "raw/amass"
    small(folder)
    make(folder)
    before = contents(tmp_path)
    code = main(["synthesize", "--out", str(tmp_path), "--size", "tiny"])
    message = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert "other files, which are not changed" in message
    assert foreign in message.replace(" ", "") or foreign in message
    assert "delete the folder" in message
    assert contents(tmp_path) == before
    with pipeline_refuses("other files, which are not changed"):
        small(folder)
    assert contents(tmp_path) == before


def test_keypoints_of_the_demo_detector_are_replaced_with_their_clips(tmp_path):
    folder = tmp_path / "raw/videos"
    synthetic.write_dataset("videos", folder, Request(n_videos=1, n_frames=4))
    assert (
        main(["detect", str(folder), "--out", str(folder / "keypoints"), "--detector", "demo"]) == 0
    )
    assert list(folder.rglob("keypoints/**/*.json"))
    synthetic.write_dataset("videos", folder, Request(n_videos=1, n_frames=5))
    assert not list(folder.rglob("keypoints/**/*.json"))


def test_an_empty_folder_is_filled_and_an_error_on_the_way_leaves_what_was_there(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (tmp_path / ".raw.writing/partial").mkdir(parents=True)  # of a killed run
    (tmp_path / ".raw.writing/partial/half").write_text("half")
    small(folder)
    before = contents(tmp_path)
    assert "raw/half" not in before
    with (
        pytest.raises(OSError, match="disk full"),
        synthetic.new_folder(folder, {"stand_in": True}) as partial,
    ):
        (partial / "half").write_text("half")
        raise OSError("disk full")
    assert contents(tmp_path) == before
