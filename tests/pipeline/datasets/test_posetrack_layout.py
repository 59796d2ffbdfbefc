"""Embedded PoseTrack 2018: its files to the key and type, and the round trip: truth, layout, tracks."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import datasets, synthetic
from pipeline.skeletons import JOINTS
from pipeline.synthetic.layouts.layout import Request
from pipeline.synthetic.scene.scene import Take

SPIN49 = JOINTS["spin49"]
NAMES = (  # DATASETS: the release's order
    "nose head_bottom head_top left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
)
OURS = "nose neck headtop lear rear lshoulder rshoulder lelbow relbow lwrist rwrist lhip rhip lknee rknee lankle rankle"
N_FRAMES = 10
SPARSE = 3  # the fourth sequence: every 4th frame is labelled

Written = tuple[Path, list[Take]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("raw") / "posetrack"
    return folder, synthetic.write_dataset("posetrack", folder, n_videos=4, n_frames=N_FRAMES, seed=5)


def labels_of(folder: Path, take: Take) -> dict[str, Any]:
    file = folder / "posetrack_data/annotations" / take.shot.split / f"{take.shot.name}.json"
    labels: dict[str, Any] = json.loads(file.read_text())
    return labels


def test_folders_and_files_lie_as_in_the_release(written: Written) -> None:
    folder, takes = written
    assert sorted(p.name for p in folder.iterdir()) == ["STAND_IN.json", "images", "posetrack_data"]
    assert [take.shot.split for take in takes] == ["train"] * 4 + ["val"] * 4
    for take in takes:
        shot = take.shot
        assert re.fullmatch(r"\d{6}_(bonn|mpii)_(train|test)", shot.name)
        pictures = folder / "images" / shot.split / shot.name
        assert sorted(p.name for p in pictures.iterdir()) == [f"{t:06d}.jpg" for t in range(N_FRAMES)]
        assert cv2.imread(str(pictures / "000000.jpg")).shape == (shot.height, shot.width, 3)


def test_a_file_has_the_official_keys_and_types(written: Written) -> None:
    folder, takes = written
    for take in takes:
        labels = labels_of(folder, take)
        assert set(labels) == {"images", "annotations", "categories"}
        (category,) = labels["categories"]
        assert set(category) == {"supercategory", "id", "name", "keypoints", "skeleton"}
        assert category["keypoints"] == NAMES.split()
        assert category["skeleton"][0] == [16, 14]
        assert len(labels["images"]) == N_FRAMES
        for t, image in enumerate(labels["images"]):
            always = {"has_no_densepose", "is_labeled", "file_name", "nframes", "frame_id", "vid_id", "id"}
            regions = {"ignore_regions_x", "ignore_regions_y"} if image["is_labeled"] else set()
            assert set(image) == always | regions
            assert image["file_name"] == f"images/{take.shot.split}/{take.shot.name}/{t:06d}.jpg"
            assert image["id"] == image["frame_id"] == int(f"1{image['vid_id']}{t:04d}")
            assert image["vid_id"] == take.shot.name[:6]
        for annotation in labels["annotations"]:
            assert set(annotation) == {
                "bbox_head", "keypoints", "track_id", "image_id", "bbox", "scores", "category_id", "id",
            }  # fmt: skip
            assert len(annotation["keypoints"]) == 51
            assert len(annotation["bbox"]) == len(annotation["bbox_head"]) == 4


def test_every_fourth_sequence_is_labelled_at_every_fourth_frame_and_the_others_throughout(written: Written) -> None:
    folder, takes = written
    for take in takes:
        labelled = [t for t, image in enumerate(labels_of(folder, take)["images"]) if image["is_labeled"]]
        assert labelled == ([0, 4, 8] if take.shot.number % 4 == SPARSE else list(range(N_FRAMES)))
        ids = {annotation["image_id"] % 10_000 for annotation in labels_of(folder, take)["annotations"]}
        assert ids == set(labelled)


def joints(folder: Path, takes: list[Take]) -> Iterator[tuple[Take, int, int, np.ndarray, dict[str, Any]]]:
    """(take, frame, person, (17, 3) joints, annotation) of every annotation."""
    for take in takes:
        for annotation in labels_of(folder, take)["annotations"]:
            stored = np.array(annotation["keypoints"]).reshape(17, 3)
            yield take, annotation["image_id"] % 10_000, annotation["track_id"], stored, annotation


def test_keypoints_are_the_projected_joints_that_are_seen(written: Written) -> None:
    folder, takes = written
    order = [SPIN49.index(name) for name in OURS.split()]
    n_seen = 0
    for take, frame, person, stored, _ in joints(folder, takes):
        seen = stored[:, 2] == 1
        np.testing.assert_array_equal(stored[seen, :2], take.actors[person].kp_2d[frame, order][seen])
        assert (stored[~seen] == 0).all()
        assert not seen[[3, 4]].any()  # ears are never labelled
        n_seen += int(seen.sum())
    assert n_seen > 0.7 * 15 * sum(len(labels_of(folder, take)["annotations"]) for take in takes)


def test_a_box_is_the_extent_of_the_joints_with_15_percent_on_every_side(written: Written) -> None:
    folder, takes = written
    for _, _, _, stored, annotation in joints(folder, takes):
        points = stored[stored[:, 2] > 0, :2]
        low, extent = points.min(axis=0), np.ptp(points, axis=0)
        np.testing.assert_allclose(annotation["bbox"], [*(low - 0.15 * extent), *(1.3 * extent)], rtol=1e-9)


def test_limbs_in_the_pictures_have_the_colour_of_their_side_where_labels_say_they_are(written: Written) -> None:
    folder, takes = written
    right, total = 0, 0
    for take, frame, _, stored, _ in joints(folder, takes):
        name = f"images/{take.shot.split}/{take.shot.name}/{frame:06d}.jpg"
        picture = cv2.imread(str(folder / name)).astype(int)
        for elbow, wrist, sign in ((7, 9, 1), (8, 10, -1)):  # left and right
            if stored[[elbow, wrist], 2].all():
                x, y = stored[[elbow, wrist], :2].mean(axis=0)
                blue, _, red = picture[round(y), round(x)]
                right += sign * (blue - red) > 40
                total += 1
    assert total > 60
    assert right / total > 0.93


def test_truth_comes_back_as_tracks_to_float_precision(written: Written) -> None:
    folder, takes = written
    tracks = {
        track.name: track for split in ("train", "val") for track in datasets.get("posetrack").tracks(folder, split)
    }
    dense = [take for take in takes if take.shot.number % 4 != SPARSE]
    assert set(tracks) == {f"{take.shot.name}/{p}" for take in dense for p in range(len(take.actors))}
    stored = {(take.shot.name, p, t): (k, a) for take, t, p, k, a in joints(folder, dense)}
    for take in dense:
        for p, actor in enumerate(take.actors):
            track = tracks[f"{take.shot.name}/{p}"]
            assert track.frame_index.tolist() == list(range(N_FRAMES))
            assert track.frames.size() == (take.shot.width, take.shot.height)
            seen = track.kp_2d[..., 2] > 0
            np.testing.assert_array_equal(track.kp_2d[..., :2][seen], actor.kp_2d[seen].astype(np.float32))
            for t in range(N_FRAMES):
                keypoints, annotation = stored[take.shot.name, p, t]
                assert seen[t].sum() == keypoints[:, 2].sum()
                x, y, w, h = annotation["bbox"]
                np.testing.assert_allclose(
                    track.bbox[t], [x + w / 2, y + h / 2, 0.8 * max(w, h), 0.8 * max(w, h)], rtol=1e-6
                )


def test_by_default_there_are_about_200_rows_in_tracks_long_enough_for_windows() -> None:
    shots = synthetic.LAYOUTS["posetrack"].shots(Request())
    assert [(shot.split, shot.n_people) for shot in shots] == [
        ("train", 1), ("train", 2), ("train", 1), ("train", 2), ("val", 1), ("val", 2),
    ]  # fmt: skip
    labelled = [len(range(0, shot.n_frames, 4 if shot.number == SPARSE else 1)) for shot in shots]
    assert all(20 <= n <= 40 for n in labelled)
    assert 180 <= sum(n * shot.n_people for n, shot in zip(labelled, shots, strict=True)) <= 240


def test_the_same_seed_gives_the_same_bytes_in_one_process_and_in_two(tmp_path: Path) -> None:
    one, two = (tmp_path / f"{workers}" for workers in (1, 2))
    for folder, workers in ((one, 1), (two, 2)):
        synthetic.write_dataset("posetrack", folder, n_videos=1, n_frames=3, seed=9, workers=workers)
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    assert len(files) == 9  # the marker; 3 pictures and 1 file of labels for each of 2 sequences
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes(), file
