"""SAM 3D Body's joints: what people save of `process_one_image`, of planted people and of a real one."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import cache
from cache.crop_policy import CropPolicy, Jitter
from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.clips.labels.detections import read_detections
from pipeline.clips.labels.label_content import HANDS_NOT_READ
from pipeline.clips.labels.sam_3d_body import NAMES, read_people
from pipeline.datasets.shared.checks import MISSING_3D
from pipeline.extras.exchange.bodies.estimate import pinhole
from pipeline.extras.exchange.bodies.people_in_frames import add_cameras, read_estimate
from pipeline.files.formats import large_json
from pipeline.people.cameras import project
from pipeline.people.skeletons import HIP
from tests.hostile import Call
from tests.made_splits import track_of, write_split, write_stream
from tests.pipeline.datasets.by_hand import write_video
from tests.pipeline.extras.exchange import planted_bodies as planted
from tests.pipeline.extras.exchange.made_sam_3d_body import (
    SPIN,
    listed,
    name_of,
    person,
    save_all,
    save_images,
)
from tests.raising import cache_refuses, raw_refuses

REAL = Path(__file__).parents[5] / "shared/data/sam_3d_body/img_subj00.npz"


@pytest.mark.parametrize("form", [".npz", ".pkl", ".json", "json", "pkl"])
def test_planted_people_get_their_joints_whoever_is_first(tmp_path, form):
    planted.write_clips(tmp_path / "clips")
    save = save_images if form.startswith(".") else save_all
    made = planted.run(tmp_path, save(tmp_path, form))
    notes = made.notes["walk.mp4"]
    assert any("walk.mp4/0: 12 of 12 frames" in note for note in notes)
    assert any("walk.mp4/1: 11 of 12 frames" in note for note in notes)
    assert "SAM 3D Body: 1 person on no track, in frames [5]" in notes
    assert any("walk.mp4/0: SAM 3D Body's lists have this person" in note for note in notes)
    split = cache.open(tmp_path / "c")[planted.NAME]
    for number, track in enumerate(list(split.tracks)[:2]):
        rows = np.delete(np.arange(planted.N), [3] * number)
        read = {
            n: split.rows(n, track.start, track.stop)[rows] for n in (*split.columns, *split.extra)
        }
        stated = [person(number, t) for t in rows]
        for key in ("mhr_model_params", "shape_params", "expr_params")[: 2 + number]:
            values = np.array([one[key] for one in stated])
            assert_array_equal(read[f"mhr_{key.removeprefix('mhr_')}"], values)
        joints = np.array([one["pred_keypoints_3d"] for one in stated], float)
        about_hips = joints - joints[:, [9, 10]].mean(axis=1, keepdims=True)
        assert np.abs(read["mhr_joints"] - about_hips).max() < 1e-6  # m
        assert number or np.isnan(read["mhr_expr_params"]).all()
        assert read["has_3d"].all()
        assert not read["valid"].any()
        assert not read["has_smpl"].any()
        known = [name in map(name_of, NAMES) for name in SPIN]
        assert sum(known) == 24
        assert_array_equal(read["kp_3d"][..., 3] > 0, np.tile(known, (len(rows), 1)))
        assert not read["kp_3d"][:, HIP, :3].any()
        in_camera = read["kp_3d"][..., :3] + read["trans"][:, None]
        truth = (planted.joints(number) + planted.trans(number)[:, None])[rows]
        assert np.abs(in_camera - truth)[:, known].max() < 1e-6  # m
        assert np.abs(read["intrinsics"] - pinhole(planted.DIAGONAL, planted.SIZE)).max() < 1e-3
        seen = project(in_camera[:, known], read["intrinsics"][:, None])
        assert np.abs(seen - planted.keypoints(number).kp_2d[rows][:, known, :2]).max() < 1e-3
    batch = split.read([[0, 12]], stream=None)
    assert not batch["w_smpl"].any()


def test_mirrored_crops_have_mirrored_joints_and_refuse_parameters_of_the_body(tmp_path):
    planted.write_clips(tmp_path / "clips")
    planted.run(tmp_path, save_all(tmp_path, "pkl"))
    flipped = CropPolicy(jitter=Jitter(copy=1, trans_px=0, scale_log2=0, flip=1)).as_dict()
    recorded = {"weights": "known", "identity": {"crop": flipped}}
    zeros = lambda rows: np.zeros((len(rows), 4), np.float32)  # noqa: E731
    write_stream(tmp_path / "c", planted.NAME, "j", zeros, recorded=recorded, dim=4)
    split = cache.open(tmp_path / "c")[planted.NAME]
    windows = [[0, 12], [12, 24]]
    fields = ["mhr_joints", "mhr_shape_params"]
    with cache_refuses(r"cannot be mirrored\. .* stream=None"):
        split.read(windows, "j", fields=fields)
    plain = split.read(windows, None, fields=fields)
    other = {"left": "right", "right": "left"}
    swapped = [re.sub("^left|^right", lambda side: other[side[0]], name) for name in NAMES]
    opposite = [*map(NAMES.index, swapped)]
    mirrored = split.read(windows, "j", fields=fields[:1])
    expected = plain["mhr_joints"][..., opposite, :] * [-1, 1, 1]
    assert_array_equal(mirrored["mhr_joints"], expected)


def test_rows_with_some_of_14_joints_are_counted_and_the_missing_ones_are_told(
    tmp_path, types, types_json
):
    planted.write_clips(tmp_path / "clips")
    planted.run(tmp_path, save_all(tmp_path, "pkl"))
    n_rows = 2 * planted.N - 1  # and other.mp4 has none
    missing = {"neck": n_rows, "headtop": n_rows}  # its neck is OpenPose's
    (status,) = types_json(f"status {planted.NAME} --cache TMP/c")
    assert (status["sums"]["rows_some_3d"], status["sums"]["rows_3d"]) == (n_rows, 0)
    assert status["sums"]["rows"] == 3 * planted.N
    walk, other = sorted(
        cache.open(tmp_path / "c")[planted.NAME].videos, key=lambda v: -len(v.sums)
    )
    assert (walk.name, walk.account["unread"]) == ("walk.mp4", {MISSING_3D: missing})
    assert "unread" not in other.account
    types("verify --cache TMP/c", "intact")


def test_without_a_focal_length_it_is_the_one_that_fits(tmp_path):
    planted.write_clips(tmp_path / "clips")
    folder = save_images(tmp_path, ".pkl")
    for t, file in enumerate(sorted(folder.iterdir())):
        people = [{k: v for k, v in one.items() if k != "focal_length"} for one in listed(t)]
        file.write_bytes(pickle.dumps(people))
    planted.run(tmp_path, *sorted(folder.iterdir()))
    split = cache.open(tmp_path / "c")[planted.NAME]
    cameras = split.rows("intrinsics", 0, 12)
    assert np.abs(cameras - pinhole(planted.DIAGONAL, planted.SIZE)).max() < 1e-3
    people = [one | {"pred_cam_t": one["pred_cam_t"] + [0.01, 0, 0]} for one in people]
    file.write_bytes(pickle.dumps(people))
    with raw_refuses(r"one focal length .*found \d.* px in frame 11"):
        planted.run(tmp_path, folder)


@pytest.mark.parametrize("large", [1 << 22, 0])  # bytes; larger JSON is read by parts elsewhere
@pytest.mark.parametrize("form", [".npz", ".pkl", ".json", "json", "pkl"])
def test_the_same_files_are_keypoints(tmp_path, form, large, monkeypatch):
    monkeypatch.setattr(large_json, "LARGE", large)
    save = save_images if form.startswith(".") else save_all
    place = save(tmp_path, form)
    people = read_detections(place, "walk", lambda: [planted.SIZE])
    assert people.n_persons == 2 * planted.N
    assert not people.is_order_assumed
    assert len(people.skeleton) == 24
    assert people.frame_index.tolist() == list(range(planted.N))
    columns = [SPIN.index(name) for name in people.skeleton]
    for t in range(planted.N):
        numbers = [0] if t == 3 else [0, 1][:: 1 - 2 * (t % 2)]
        for number, found in zip(numbers, people.keypoints[t], strict=False):
            expected = planted.keypoints(number).kp_2d[t, columns, :2]
            assert np.abs(found[:, :2] - expected).max() < 1e-4
            assert (found[:, 2] == 1).all()


def test_what_cannot_be_is_refused(tmp_path):
    file = tmp_path / "walk.pkl"
    file.write_bytes(pickle.dumps(listed(0)))
    with raw_refuses(r"walk\.pkl: 'frame': .* found none\. .*ten lines"):
        read_detections(file, "walk", lambda: [planted.SIZE])
    for changes, problem in (
        ({"pred_keypoints_2d": np.zeros((69, 2))}, r"pred_keypoints_2d': .*\(70, 2\)"),
        ({"pred_cam_t": np.array([0, 0, np.nan])}, "pred_cam_t': expected finite numbers"),
        ({"frame": 1.5}, "frame': expected a whole number"),
    ):
        with raw_refuses(problem):
            list(read_people(file, [person(0, 0) | {"frame": 0} | changes]))
    file.write_bytes(pickle.dumps([person(0, 0), Call(print, "pred")]))
    with raw_refuses(r"asks for builtins\.print: not read") as caught:
        read_detections(file, "walk", lambda: [planted.SIZE])
    assert caught.value.reason == "unsafe_pickle"


def test_parameters_may_come_later_and_those_of_another_rig_are_keypoints_alone(tmp_path):
    planted.write_clips(tmp_path / "clips")
    file = save_all(tmp_path, "pkl")
    people = pickle.loads(file.read_bytes())
    less = [{k: v for k, v in one.items() if not k.endswith("_params")} for one in people]
    file.write_bytes(pickle.dumps(less))
    planted.run(tmp_path, file)
    split = cache.open(tmp_path / "c")[planted.NAME]
    assert np.isfinite(split.rows("mhr_joints", 0, 12)).all()
    assert np.isnan(split.rows("mhr_shape_params", 0, 12)).all()
    file.write_bytes(pickle.dumps(less[:-1] + people[-1:]))
    planted.run(tmp_path, file)
    split = cache.open(tmp_path / "c")[planted.NAME]
    (track,) = (track for track in split.tracks if track.name == "walk.mp4/0")
    shape = split.rows("mhr_shape_params", track.start, track.stop)
    assert np.isnan(shape[:-1]).all()
    assert_array_equal(shape[-1], people[-1]["shape_params"])
    file.write_bytes(pickle.dumps([one | {"shape_params": np.zeros(44)} for one in people]))
    assert read_detections(file, "walk", lambda: [planted.SIZE]).n_persons == 2 * planted.N
    with raw_refuses(r"shape_params': .* of shape \(45\), found \(44,\)"):
        planted.run(tmp_path, file)


def every_person():
    return [
        {key: value for key, value in one.items() if key != "mask"} | {"frame": t}
        for t in range(planted.N)
        for one in listed(t)
    ]


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("walk.npz", lambda file, people: np.savez(file, data=np.array(people, object))),
        ("walk.npz", lambda file, people: np.savez_compressed(file, data=np.array(people, object))),
        ("walk.npz", np.savez_compressed),
        ("walk.npy", lambda file, people: np.save(file, np.array(people, object))),
    ],
)
def test_numpys_files_are_read_compressed_or_not(name, save, tmp_path):
    save(tmp_path / name, every_person())
    found = read_detections(tmp_path / name, "walk", lambda: [planted.SIZE])
    assert (found.n_persons, [*found.unread]) == (2 * planted.N, [HANDS_NOT_READ])


def test_keys_of_people_that_are_no_part_of_its_results_are_told(tmp_path):
    people = [one | {"track_id": 3, 7: True} for one in every_person()]
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(people))
    found = read_detections(tmp_path / "walk.pkl", "walk", lambda: [planted.SIZE])
    assert found.unread["keys not read"] == {"7": 2 * planted.N, "track_id": 2 * planted.N}


def of_tensors(people):
    return [
        {key: torch.tensor(value) if np.ndim(value) else value for key, value in one.items()}
        for one in people
    ]


@pytest.mark.parametrize(
    ("name", "save", "found"),
    [
        (
            "walk.pkl",
            lambda file, people: file.write_bytes(pickle.dumps(of_tensors(people))),
            r"asks for torch\._utils\._rebuild_tensor_v2: not read",
        ),
        (
            "walk.npz",
            lambda file, people: np.savez_compressed(file, np.array(of_tensors(people), object)),
            r"asks for torch\._utils\._rebuild_tensor_v2: not read",
        ),
    ],
)
def test_tensors_are_refused_with_the_call_that_makes_arrays_of_them(name, save, found, tmp_path):
    """Also by the dataset, of which no reader has a defect."""
    write_video(tmp_path / "walk.mp4", planted.N, step=0)
    save(keypoints(tmp_path) / name, every_person())
    account = read_account(tmp_path)
    assert account.set_aside == "unsafe_pickle"
    assert re.search(rf"{found}\. Save arrays by .*\.cpu\(\)\.numpy\(\)", account.message)


def keypoints(raw):
    (raw / "keypoints").mkdir()
    return raw / "keypoints"


def read_account(raw):
    report = Accounting()
    list(datasets.get("videos").tracks(raw, "train", report=report))
    (account,) = report
    return account


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is absent")
def test_a_real_file_is_projected_within_a_ten_thousandth_of_a_pixel(tmp_path):
    """Of an image of 1920 x 890, without its focal length."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/0.npz").symlink_to(REAL)
    (one,) = read_people(REAL, dict(np.load(REAL)), 0)
    estimate = add_cameras(REAL, read_estimate([REAL]), (1920, 890))
    in_camera, points = np.split(estimate.projected, [3], axis=2)
    off = np.abs(project(in_camera, estimate.intrinsics[:, None]) - points).max()
    assert off < 1e-4  # px, of all 70
    found = read_detections(tmp_path / "real", "real", lambda: [(1920, 890)])
    assert_allclose(found.keypoints[0][0][:15, :2], one.points[:15])
    kp_2d = np.zeros((1, 49, 3), np.float32)
    for name, point in zip(found.skeleton, found.keypoints[0][0], strict=True):
        kp_2d[0, SPIN.index(name)] = point
    low, high = one.box
    box = np.concatenate([(low + high) / 2, high - low])[None].astype(np.float32)
    columns = {"frame_index": np.arange(1), "bbox": box, "kp_2d": kp_2d}
    entry = cache.VideoEntry(name="real.mp4", width=1920, height=890)
    write_split(tmp_path / "clips", planted.NAME, [(entry, [track_of("real.mp4/0", columns)])])
    planted.run(tmp_path, tmp_path / "real")
    split = cache.open(tmp_path / "c")[planted.NAME]
    read = {n: split.rows(n, 0, 1) for n in ("kp_3d", "trans", "intrinsics", *split.extra)}
    for key in ("mhr_model_params", "shape_params", "expr_params"):
        assert_array_equal(read[f"mhr_{key.removeprefix('mhr_')}"][0], np.load(REAL)[key])
    in_camera = read["mhr_joints"] + read["trans"][:, None]
    assert np.abs(in_camera - estimate.projected[..., :3]).max() < 1e-6  # m, of all 70
    known = read["kp_3d"][0, :, 3] > 0
    in_camera = read["kp_3d"][0, known, :3] + read["trans"]
    seen = project(in_camera, read["intrinsics"])
    assert np.abs(seen - kp_2d[0, known, :2]).max() < 5e-4  # of float32 columns
    assert read["intrinsics"][0, 0, 0] == pytest.approx(2535.27, abs=0.01)
