"""`doctor` names what other videos of a download have and one has not."""

import shutil

import pytest

from pipeline import datasets
from pipeline.datasets.releases.examination import examine
from pipeline.datasets.threedpw import SEQUENCES
from tests.pipeline.commands.made_downloads import touch

CONTENTS = {  # files of a few videos; {a,b} stands for both
    "mpi_inf_3dhp": "{S1/Seq1,S1/Seq2,S2/Seq1}/annot.mat {S1/Seq1,S1/Seq2,S2/Seq1}/camera.calibration {S1/Seq1,S1/Seq2,S2/Seq1}/imageFrames/video_{0,4}/frame_000000.jpg",
    "mpi_inf_3dhp test": "mpi_inf_3dhp_test_set/TS{1,2}/annot_data.mat mpi_inf_3dhp_test_set/TS{1,2}/imageSequence/img_000001.jpg",
    "h36m": "{S1,S5}/Videos/Walking.54138969{,1}.mp4 {S1,S5}/MyPoseFeatures/D2_Positions/Walking.54138969{,1}.cdf {S1,S5}/MyPoseFeatures/D3_Positions_mono/Walking.54138969{,1}.cdf",
    "penn_action": "labels/{0001,0002}.mat frames/{0001,0002}/000001.jpg",
    "posetrack": "images/train/{a,b}/000000.jpg posetrack_data/annotations/train/{a,b}.json",
    "3dpw": "sequenceFiles/train/{a,b}.pkl imageFiles/{a,b}/image_00000.jpg",
}
LOST = """
mpi_inf_3dhp | S2/Seq1/annot.mat | for S2/Seq1/video_0 and 1 other video
mpi_inf_3dhp | S2/Seq1/camera.calibration | for S2/Seq1/video_0 and 1 other video
mpi_inf_3dhp | S1/Seq2/imageFrames/video_4 | S1/Seq2/video_4 has no images
mpi_inf_3dhp | S1/Seq2/imageFrames | S1/Seq2/video_0 has no images
mpi_inf_3dhp test | mpi_inf_3dhp_test_set/TS2/annot_data.mat | for TS2.
mpi_inf_3dhp test | mpi_inf_3dhp_test_set/TS2/imageSequence | for TS2.
h36m | S5/Videos/Walking.54138969.mp4 | S5/Walking.54138969 has no images
h36m | S5/*/*/Walking.54138969.cdf | for S5/Walking.54138969.
h36m | S5/**/Walking.541389691.* | S5/Walking.541389691 has no images
penn_action | labels/0002.mat | for 0002.
penn_action | frames/0002 | for 0002.
posetrack | images/train/b | for b.
3dpw | imageFiles/b | for b.
"""


def expand(path):
    """Names with one of the words of each pair of braces."""
    head, brace, rest = path.partition("{")
    if not brace:
        return [path]
    words, _, tail = rest.partition("}")
    return [name for word in words.split(",") for name in expand(f"{head}{word}{tail}")]


@pytest.mark.parametrize("lost", LOST.strip().splitlines())
def test_files_and_cameras_that_one_video_lacks_are_named(lost, tmp_path):
    content, place, expected = lost.split(" | ")
    for path in CONTENTS[content].split():
        touch(*(tmp_path / name for name in expand(path)))
    dataset = datasets.get(content.partition(" ")[0])
    whole = examine(dataset, tmp_path)
    assert not whole.is_in_part, whole.mistakes
    for path in sorted(tmp_path.glob(place)):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    found = examine(dataset, tmp_path)
    assert found.is_in_part, found.mistakes
    assert [text for text in found.mistakes if expected in text], found.mistakes
    assert len(found.mistakes) <= 2, found.mistakes
    assert not any("Move or rename" in text for text in found.mistakes), found.mistakes


def test_sequences_of_3dpw_in_the_folder_of_another_split_are_named(tmp_path):
    folder_of = {"train": "test", "test": "train", "validation": "validation"}
    for split, names in SEQUENCES.items():
        touch(*(tmp_path / f"sequenceFiles/{folder_of[split]}/{name}.pkl" for name in names))
    reader = datasets.get("3dpw")
    assert "24 of 24 sequences belong to the release's test split, such as downtown_arguing" in (
        reader.label_note(tmp_path, "train")
    )
    assert reader.label_note(tmp_path, "validation") == ""
    mistakes = examine(reader, tmp_path).mistakes
    assert [text.partition(":")[0] for text in mistakes if "belong to" in text] == ["train", "test"]


@pytest.mark.parametrize("dataset", ["kinetics", "videos"])
def test_a_folder_of_openpose_with_holes_is_named(dataset, tmp_path):
    folder = tmp_path / "keypoints/train/a"
    touch(tmp_path / "train/a.mp4")
    touch(*(folder / f"a_{number:012d}_keypoints.json" for number in range(60)))
    assert "files of frames" not in " ".join(examine(datasets.get(dataset), tmp_path).mistakes)
    for number in {*range(10, 30), *range(45, 55)}:
        (folder / f"a_{number:012d}_keypoints.json").unlink()
    mistakes = examine(datasets.get(dataset), tmp_path).mistakes
    (named,) = [text for text in mistakes if "files of frames" in text]
    assert named.startswith(f"{folder} has 30 of 60 files")
