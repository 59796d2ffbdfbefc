import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.boxes import smooth_boxes
from pipeline.errors import RawDataError
from pipeline.skeletons import JOINTS

KINETICS = datasets.get("kinetics")
CLIP = "AbCdEf-_012_000004_000014"
SPIN49 = JOINTS["spin49"]


def write_clip(path: Path, n_frames: int = 40, fps: float = 25, codec: str = "mp4v") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    for i in range(n_frames):
        writer.write(np.full((48, 64, 3), i, np.uint8))
    writer.release()


def person(x: float = 100, y: float = 200, confidence: float = 0.9, n_joints: int = 25) -> np.ndarray:
    """(n_joints, 3): an extent of 30 x 40 px around (x, y), so a diagonal of 50."""
    joints = np.full((n_joints, 3), [x, y, confidence])
    joints[0, :2] += [-15, -20]
    joints[1, :2] += [15, 20]
    return joints


def write_openpose(raw: Path, frames: dict[int, list[np.ndarray]], split: str = "train", clip: str = CLIP) -> Path:
    folder = raw / "keypoints" / split / clip
    folder.mkdir(parents=True, exist_ok=True)
    for frame, persons in frames.items():
        people = [{"person_id": [-1], "pose_keypoints_2d": p.reshape(-1).tolist()} for p in persons]
        content = {"version": 1.3, "people": people}
        (folder / f"{clip}_{frame:012d}_keypoints.json").write_text(json.dumps(content))
    return folder


def write_alphapose(raw: Path, results: list[dict[str, Any]], clip: str = CLIP) -> None:
    folder = raw / "keypoints/train" / clip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{clip}.json").write_text(json.dumps(results))


def result(frame: int, x: float = 100, score: float = 2.5, **more: Any) -> dict[str, Any]:
    keypoints = person(x, confidence=score, n_joints=17).reshape(-1).tolist()
    return {"image_id": f"{frame}.jpg", "category_id": 1, "keypoints": keypoints, "score": 3.1, **more}


def read(raw: Path, split: str = "train") -> tuple[list, dict[str, Any]]:
    report = Accounting()
    tracks = list(KINETICS.tracks(raw, split, report=report))
    (account,) = report
    account.check()
    return tracks, account.as_dict()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_clip(tmp_path / f"train/abseiling/{CLIP}.mp4")
    return tmp_path


def test_a_clip_becomes_a_track_a_person(raw: Path) -> None:
    write_openpose(raw, {t: [person(100), person(500)][:: (-1) ** t] for t in range(30)})
    (left, right), account = read(raw)
    assert (left.name, right.name) == (f"train/abseiling/{CLIP}/0", f"train/abseiling/{CLIP}/1")
    assert left.video == f"train/abseiling/{CLIP}"
    assert left.fps == 25
    assert left.crop_scale == 1.3
    assert left.frame_index.tolist() == list(range(30))
    np.testing.assert_allclose(left.bbox, np.tile([100, 200, 55, 55], (30, 1)), rtol=1e-5)  # diagonal 50 times 1.1
    np.testing.assert_allclose(right.bbox[:, 0], 500, rtol=1e-5)
    np.testing.assert_array_equal(left.kp_2d[3, :25], person(100).astype(np.float32))
    assert not left.kp_2d[:, 25:].any()
    assert (account["found"], account["kept"], account["tracks_kept"], account["notes"]) == (60, 60, 2, [])
    assert left.frames.spec == f"video:train/abseiling/{CLIP}.mp4"


def test_confidence_is_the_score_clipped_to_1_and_0_under_03(raw: Path) -> None:
    joints = person()
    joints[:4, 2] = [1.04, 0.3, 0.29, 0]
    write_openpose(raw, {t: [joints] for t in range(30)})
    (track,), _ = read(raw)
    np.testing.assert_allclose(track.kp_2d[0, :5, 2], [1, 0.3, 0, 0, 0.9], rtol=1e-6)


def test_a_frame_with_fewer_than_6_visible_joints_is_dropped(raw: Path) -> None:
    five, six = person(), person()
    five[5:, 2], six[6:, 2] = 0.2, 0.2
    frames = {t: [person()] for t in range(30)}
    write_openpose(raw, frames | {10: [five], 11: [six]})
    (track,), account = read(raw)
    assert track.frame_index.tolist() == [t for t in range(30) if t != 10]
    assert account["dropped"] == {"too_few_visible_joints": 1}


@pytest.mark.parametrize(("n_frames", "n_tracks"), [(24, 0), (25, 1)])
def test_tracks_under_25_frames_are_dropped(raw: Path, n_frames: int, n_tracks: int) -> None:
    write_openpose(raw, {t: [person()] for t in range(n_frames)})
    tracks, account = read(raw)
    assert len(tracks) == n_tracks
    if not n_tracks:
        assert account["dropped"] == {"track_too_short": 24}
        assert account["tracks_dropped"] == {"track_too_short": 1}


def test_five_missing_frames_are_a_gap_and_six_an_end(raw: Path) -> None:
    write_openpose(raw, {t: [person()] if not 30 <= t < 35 else [] for t in range(65)})
    (track,), _ = read(raw)
    assert track.frame_index.tolist() == [*range(30), *range(35, 65)]
    write_openpose(raw, {35: []})
    assert [len(track.frame_index) for track in read(raw)[0]] == [30, 29]


def test_boxes_are_interpolated_over_missing_frames_before_they_are_smoothed(raw: Path) -> None:
    # An even walk with a gap: linear interpolation restores it, so the smoothed centre stays on the line.
    frames = {t: [person(100 + 2 * t)] for t in range(100) if not 50 <= t < 54}
    write_openpose(raw, frames)
    (track,), _ = read(raw)
    near = (track.frame_index > 45) & (track.frame_index < 58)
    np.testing.assert_allclose(track.bbox[near, 0], 100 + 2 * track.frame_index[near], atol=0.05)


def test_frames_before_the_first_box_and_after_the_last_are_dropped_and_shift_no_other(raw: Path) -> None:
    # Somebody who comes late; of 0.3 joints count as visible, and only above it for a box.
    unsure = {10, 11, 12, 58, 59}
    write_openpose(raw, {t: [person(100 + 2 * t, confidence=0.3 if t in unsure else 0.9)] for t in range(10, 60)})
    (track,), account = read(raw)
    assert track.frame_index.tolist() == list(range(13, 58))
    assert account["dropped"] == {"no_box": 5}
    alone, _, _ = smooth_boxes(np.stack([person(100 + 2 * t) for t in range(13, 58)]))
    np.testing.assert_allclose(track.bbox, alone * [1, 1, 1.1, 1.1], rtol=1e-6)


def test_a_person_without_a_visible_joint_is_counted(raw: Path) -> None:
    nobody = np.zeros((25, 3))
    write_openpose(raw, {t: [person(), nobody] for t in range(30)})
    tracks, account = read(raw)
    assert len(tracks) == 1
    assert account["dropped"] == {"no_visible_joint": 30}


def test_openposes_18_joints_have_no_hip_centre(raw: Path) -> None:
    joints = person(n_joints=18)
    joints[8, :2] = [111, 222]  # RHip follows LWrist
    write_openpose(raw, {t: [joints] for t in range(30)})
    (track,), _ = read(raw)
    np.testing.assert_allclose(track.kp_2d[0, SPIN49.index("OP RHip"), :2], [111, 222])
    assert track.kp_2d[0, SPIN49.index("OP MidHip"), 2] == 0


def test_coordinates_that_are_not_finite_are_not_seen(raw: Path) -> None:
    joints = person()
    joints[7, 0] = np.nan
    write_openpose(raw, {0: [joints]} | {t: [person()] for t in range(1, 30)})
    (track,), account = read(raw)
    np.testing.assert_array_equal(track.kp_2d[0, 7], [0, 0, 0])
    assert account["notes"] == ["1 joints are not finite: not used"]


@pytest.mark.parametrize("form", [0, 0.0, [0.0], [[0.0], [0.0]]])
def test_alphapose_that_did_not_track_calls_everybody_0(raw: Path, form: Any) -> None:
    # As it writes it without --pose_track (AlphaPose's issues 750 and 761), lists in a list where it merged detections.
    results = [result(t, x, idx=[0.0]) for t in range(30) for x in ((100, 500) if t % 2 else (500, 100))]
    write_alphapose(raw, [*results[:-1], results[-1] | {"idx": form}])
    tracks, account = read(raw)
    assert [float(track.kp_2d[:, SPIN49.index("lknee"), 0].mean()) for track in tracks] == [100, 500]
    assert (account["kept"], account["dropped"]) == (60, {})


@pytest.mark.parametrize("form", [lambda k: k, float, lambda k: [k], lambda k: [[float(k)], [9.0]]])
def test_alphaposes_identities_are_taken_when_it_tracked(raw: Path, form: Any) -> None:
    # The two change places at frame 15; linking would not follow them, the identities do.
    write_alphapose(
        raw, [result(t, 100 if (k == 3) == (t < 15) else 500, idx=form(k)) for t in range(30) for k in (3, 7)]
    )
    tracks, _ = read(raw)
    assert [track.name.rpartition("/")[2] for track in tracks] == ["3", "7"]
    knee = SPIN49.index("lknee")
    assert tracks[0].kp_2d[:, knee, 0].tolist() == [100] * 15 + [500] * 15


@pytest.mark.parametrize(("back", "segments"), [(35, [("1", 65)]), (36, [("1", 30), ("1-1", 34)])])
def test_a_tracked_person_who_is_away_for_over_five_frames_comes_back_as_another_track(
    raw: Path, back: int, segments: list[tuple[str, int]]
) -> None:
    write_alphapose(raw, [result(t, idx=1) for t in [*range(30), *range(back, 70)]])
    tracks, _ = read(raw)
    assert [(track.name.rpartition("/")[2], len(track.frame_index)) for track in tracks] == segments


def test_tracked_persons_come_in_the_order_of_their_identities(raw: Path) -> None:
    write_alphapose(raw, [result(t, x, idx=k) for t in range(30) for k, x in ((12, 100), (3, 500))])
    assert [track.name.rpartition("/")[2] for track in read(raw)[0]] == ["3", "12"]


def test_one_identity_given_twice_in_a_frame_goes_to_the_surer_person(raw: Path) -> None:
    results = [result(t, idx=1, score=0.8) for t in range(30)] + [result(4, 900, score=0.4, idx=1)]
    write_alphapose(raw, results)
    (track,), account = read(raw)
    assert (track.kp_2d[:, SPIN49.index("lknee"), 0] == 100).all()
    assert account["dropped"] == {"duplicate_person": 1}


def test_openpose_goes_before_alphapose(raw: Path) -> None:
    write_openpose(raw, {t: [person()] for t in range(30)})
    write_alphapose(raw, [])
    tracks, account = read(raw)
    assert len(tracks) == 1
    assert account["notes"] == [f"{CLIP}.json is not used: OpenPose's files are"]


@pytest.mark.parametrize("folder", [False, True])
def test_a_clip_without_keypoints_is_counted_and_no_error(raw: Path, folder: bool) -> None:
    if folder:
        write_openpose(raw, {})
        (raw / "keypoints/train" / CLIP / "other_000000000000_keypoints.json").write_text("{}")
    assert list(KINETICS.tracks(raw, "train")) == []  # without a report an error would raise
    assert read(raw)[1]["set_aside"] == "no_keypoints"


def test_a_broken_clip_is_set_aside_with_its_person_frames_counted(raw: Path) -> None:
    write_openpose(raw, {t: [person()] for t in range(30)})
    (raw / f"train/abseiling/{CLIP}.mp4").write_bytes(b"<html>Video unavailable</html>")
    tracks, account = read(raw)
    assert tracks == []
    assert (account["set_aside"], account["dropped"]) == ("video_unreadable", {"video_unreadable": 30})
    with pytest.raises(RawDataError, match=r"mp4: 'video': expected a video that can be decoded"):
        list(KINETICS.tracks(raw, "train"))


def test_more_keypoints_than_frames_are_told(raw: Path) -> None:
    write_openpose(raw, {t: [person()] for t in range(40)})
    assert read(raw)[1]["notes"] == []
    write_openpose(raw, {40: [person()]})
    assert read(raw)[1]["notes"] == ["keypoints reach frame 40, by its header the video has 40 frames"]


def test_clips_lie_flat_or_in_class_folders_in_any_container(tmp_path: Path) -> None:
    for name in (
        "b.avi",
        "zumba/a.webm",
        "abseiling/c.mkv",
        "abseiling/d.mp4.part",
        "abseiling/deep/e.mp4",
        "notes.txt",
    ):
        (tmp_path / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / name).touch()
    assert [video.name for video in KINETICS.videos(tmp_path, "val")] == ["val/abseiling/c", "val/b", "val/zumba/a"]


def test_a_listing_names_the_video_and_the_folder_of_its_keypoints(raw: Path) -> None:
    write_alphapose(raw, [])
    (video,) = KINETICS.videos(raw, "train")
    folder = Path("keypoints/train") / CLIP
    assert video.files == (Path(f"train/abseiling/{CLIP}.mp4"),)
    assert (video.folders, video.label_folders) == ((), (folder,))


def test_hidden_files_and_folders_are_no_clips_and_keypoints_alone_are_one(raw: Path) -> None:
    write_openpose(raw, {t: [person()] for t in range(30)})
    before = list(KINETICS.videos(raw, "train"))
    for file in (f"train/abseiling/._{CLIP}.mp4", "train/._flat.mp4", "train/.cache/clip.mp4"):  # of a Mac, and others
        (raw / file).parent.mkdir(exist_ok=True)
        (raw / file).touch()
    (raw / "keypoints/train/.ipynb_checkpoints").mkdir()
    assert list(KINETICS.videos(raw, "train")) == before
    (raw / f"train/abseiling/{CLIP}.mp4").unlink()
    tracks, account = read(raw)
    assert (tracks, account["name"]) == ([], f"train/{CLIP}")
    assert (account["set_aside"], account["found"]) == ("video_missing", 30)


@pytest.mark.parametrize("other", ["avi", "mkv", "webm"])
def test_a_clip_in_two_containers_is_read_once_and_told(other: str, raw: Path) -> None:
    (raw / f"train/abseiling/{CLIP}.{other}").touch()
    write_openpose(raw, {t: [person()] for t in range(30)})
    (track,), account = read(raw)
    assert track.frames.path.endswith(".mp4")
    assert account["notes"] == [f"{CLIP}.{other} is not used: {CLIP}.mp4 is the same clip"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "expected JSON, found JSONDecodeError"),
        ("[" * 100_000, "expected JSON, found RecursionError"),
        ("[]", "'people': expected a list of persons"),
        ('{"people": [3]}', "'people': expected a list of persons"),
        ('{"people": [{}]}', "'pose_keypoints_2d': expected 75 or 54 numbers, found nothing"),
        ('{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "expected 75 or 54 numbers, found 3 entries"),
        (json.dumps({"people": [{"pose_keypoints_2d": ["x"] * 75}]}), "found something else among them"),
        (json.dumps({"people": [{"pose_keypoints_2d": [0] * 54}]}), "expected one body model in all frames"),
    ],
)
def test_files_that_are_not_openposes_are_named(raw: Path, content: str, words: str) -> None:
    folder = write_openpose(raw, {t: [person()] for t in range(30)})
    (folder / f"{CLIP}_000000000010_keypoints.json").write_text(content)
    with pytest.raises(RawDataError, match=r"000000000010_keypoints\.json") as caught:
        list(KINETICS.tracks(raw, "train"))
    assert words in str(caught.value)
    assert read(raw)[1]["set_aside"] == "bad_label_file"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": "frame.jpg"}, "'image_id': expected a frame number"),
        ({"image_id": "1_2.jpg"}, "'image_id': expected a frame number"),
        ({"image_id": None}, "'image_id': expected a frame number"),
        (
            {"image_id": "x" * 10_000},
            r"'image_id': expected a frame number such as '35.jpg', found a text 'x{40}'\.\.\.",
        ),
        ({"keypoints": [1, 2]}, "'keypoints': expected 51 numbers, found 2 entries"),
        ({"idx": "a"}, "'idx': expected a whole number"),
        ({"idx": 1.5}, "'idx': expected a whole number"),
        ({"idx": float("nan")}, "'idx': expected a whole number"),
        ({"idx": []}, "'idx': expected a whole number"),
        ({"idx": [[[1]]]}, "'idx': expected a whole number"),
    ],
)
def test_results_that_are_not_alphaposes_are_named(raw: Path, change: dict[str, Any], words: str) -> None:
    write_alphapose(raw, [result(0) | change])
    with pytest.raises(RawDataError, match=words):
        list(KINETICS.tracks(raw, "train"))
