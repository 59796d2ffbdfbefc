"""Fits of 4D-Humans and CameraHMR to InstaVariety's pictures: their forms, through conversion;
planted traps.
"""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cache
from pipeline import datasets
from pipeline.__main__ import main
from pipeline.datasets.labels import fits
from pipeline.errors import RawDataError, UnsafePickle
from pipeline.extras.exchange import fits as writing
from pipeline.features import streams
from pipeline.people.skeletons import JOINTS
from pipeline.steps.conversion.convert import convert
from tests.fixtures import planned
from tests.hostile import Call
from tests.pipeline.datasets.made_insta_variety import clip, put, write
from tests.raising import pipeline_refuses, raw_refuses

NAMES = ("tag/clip/frame000001", "tag/clip/frame000002", "tag/clip/frame000003")
RNG = np.random.default_rng(0)
BODY = ["RHeel", "RKnee", "RHip", "LHip", "LKnee", "LHeel", "RWrist", "RElbow", "RShoulder", "LShoulder", "LElbow",
        "LWrist", "Neck"]  # fmt: skip
POINTS = RNG.uniform(40, 180, (3, 14, 2))  # of each frame, the 14 of xys
PAIRS = {"split": "insta_variety/train", "name": "homography", "stream": streams.get("homography")}
MOST = len(JOINTS["spin49"]) - 5  # 44: OpenPose's 25 and 19 others


def digest_of(raw):
    with fits.FitStore.open(raw / fits.FILE) as store:
        return store.digest


def person(frame, *, zoom=3.0, shift=200.0, **changes):
    """The person of a frame as 4D-Humans has it: in a picture that was cut and magnified
    differently.
    """
    keypoints = np.zeros((MOST, 3), np.float32)
    keypoints[put(BODY), :2] = POINTS[frame, :13] * zoom + shift
    keypoints[put(BODY), 2] = 0.9
    return {
        "keypoints_2d": keypoints,
        "keypoints_3d": np.zeros((MOST, 4), np.float32),
        "center": np.array([300.0, 300.0]),
        "scale": np.array([2.0, 2.0]),
        "body_pose": np.full(72, 0.01 * (frame + 1), np.float32),
        "betas": np.full(10, 0.1 * (frame + 1), np.float32),
        "has_body_pose": np.float32(1),
        "has_betas": 1.0,
        "extra_info": {"detection_npz_idx": 0, "fitting_loss": np.array([12.5], np.float32)},
        "personid": frame,
        **changes,
    }


def tar(file, samples):
    """Of each key the picture and the pickle; bytes are written as they are."""
    with tarfile.open(file, "w") as made:
        for key, persons in samples.items():
            data = persons if isinstance(persons, bytes) else pickle.dumps(persons)
            for ending, content in (("jpg", b"\xff\xd8"), ("data.pyd", data)):
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return file


@pytest.fixture
def raw(tmp_path):
    """A clip of three frames, whose record names its pictures."""
    xys = POINTS.transpose(0, 2, 1)
    names = [f"{name}.png".encode() for name in NAMES]
    folder = tmp_path / "raw"
    write(
        folder,
        clip(image__xys=xys, image__face_pts=None, image__toe_pts=None, image__filenames=names),
    )
    return folder


def read(raw, tars, key=""):
    assert main(["fits", str(tars), "--raw", str(raw), "--key", key]) == 0


def fitted(raw):
    """The clip's track, with bodies of the fits."""
    return next(iter(datasets.get("insta_variety", fits=True).tracks(raw, "train")))


def converted(raw, root, **options):
    convert(planned(datasets.get("insta_variety", **options), "train", raw=raw, root=root))
    return cache.open(root)["insta_variety/train"]


def notes(split):
    return " ".join(split.videos[0].account["notes"])


@pytest.mark.promise("problems of InstaVariety")
def test_a_split_that_exists_takes_its_bodies_and_later_conversions_keep_them(
    raw, tmp_path, capsys, into
):
    root = tmp_path / "cache"
    before = converted(raw, root)
    assert "pose" not in before.columns
    kp_2d = before.rows("kp_2d", 0, 3)
    assert into.extract(root, **PAIRS).computed == 3
    read(raw, tar(tmp_path / "0.tar", {NAMES[0]: [person(0)], NAMES[2]: [person(2, zoom=0.5)]}))
    assert "2 fits" in capsys.readouterr().out
    split = converted(raw, root, fits=True)
    first = split.tracks[0].start
    assert_array_equal(split.rows("has_smpl", first, first + 3), [1, 0, 1])
    assert_allclose(split.rows("pose", first, first + 3)[:, 5], [0.01, 0, 0.03])
    assert_allclose(split.rows("betas", first, first + 3)[:, 9], [0.1, 0, 0.3])
    assert_array_equal(split.rows("kp_2d", first, first + 3), kp_2d)
    assert "2 matched, 1 without a fit" in notes(split)
    assert split.manifest["reader"]["shared"]["fits"] == digest_of(raw)
    again = planned(datasets.get("insta_variety", fits=True), "train", raw=raw, root=root)
    assert again.up_to_date
    read(raw, tar(tmp_path / "1.tar", {NAMES[1]: [person(1)]}))
    read(raw, tmp_path / "1.tar")
    assert "0 fits read of 0 files, 1 file read before" in capsys.readouterr().out
    assert "3 matched" in notes(converted(raw, root, fits=True))
    assert into.extract(root, **PAIRS).carried == 3
    with pipeline_refuses("other columns"):
        converted(raw, root)


MIRRORED = person(0)["keypoints_2d"] * np.array([-1, 1, 1], np.float32)
TRAPS = {
    "the right one of two persons": ([person(1), person(0)], "1 matched"),
    "twice the same person, as in replicated samples": ([person(0), person(0)], "1 matched"),
    "two bodies for one person": ([person(0), person(0, betas=np.ones(10))], "1 ambiguous"),
    "a frame that is not this one": ([person(1)], "1 refused by reprojection"),
    "a mirrored picture": ([person(0, keypoints_2d=MIRRORED)], "1 refused by reprojection"),
    "no keypoints": ([person(0, keypoints_2d=np.zeros((MOST, 3)))], "1 refused by reprojection"),
    "no body pose": ([person(0, has_body_pose=0.0)], "without a fit"),
    "NaN": ([person(0, body_pose=np.full(72, np.nan))], "without a fit"),
    "a missing key": (
        [{key: value for key, value in person(0).items() if key != "betas"}],
        "without a fit",
    ),
    "nobody": ([], "without a fit"),
}


@pytest.mark.promise("problems of InstaVariety")
@pytest.mark.parametrize("trap", TRAPS)
def test_what_is_not_surely_the_persons_is_no_body(raw, tmp_path, trap):
    persons, told = TRAPS[trap]
    read(raw, tar(tmp_path / "0.tar", {NAMES[0]: persons}))
    track = fitted(raw)
    assert track.has_smpl.tolist() == [told == "1 matched", False, False]
    assert (track.pose[0] == (np.float32(0.01) if told == "1 matched" else 0)).all()
    assert told in notes(converted(raw, tmp_path / "cache", fits=True))


@pytest.mark.parametrize(
    "filenames", [[b"frame000001.png"] * 3, None, [b"tag/clip/frame000001.png"]]
)
def test_names_that_do_not_tell_the_video_or_the_frame_join_nothing(tmp_path, filenames):
    xys = POINTS.transpose(0, 2, 1)
    write(tmp_path, clip(image__xys=xys, image__filenames=filenames))
    read(tmp_path, tar(tmp_path / "0.tar", {"frame000001": [person(0)], NAMES[0]: [person(0)]}))
    assert not fitted(tmp_path).has_smpl.any()


def test_keys_of_another_form_are_names_by_an_expression(raw, tmp_path):
    file = tar(tmp_path / "0.tar", {f"insta-000_{NAMES[0]}": [person(0)], "other": [person(1)]})
    read(raw, file, "^insta-[0-9]+_(.*)$")
    assert fitted(raw).has_smpl.tolist() == [True, False, False]
    for key in ("^insta_(.*)$", "("):
        with pipeline_refuses("--key"):
            writing.collect([file], raw / fits.FILE, key)
    with pipeline_refuses("cannot be written"):
        writing.collect([file], tmp_path / "no" / fits.FILE)


@pytest.mark.parametrize("pose", [(3, 72), (3, 24, 3)])
def test_camerahmrs_file_joins_by_the_same_names(raw, tmp_path, pose):
    persons = [person(frame) for frame in range(3)]
    arrays = {
        "imgname": np.array([f"insta-train/{name}.jpg" for name in NAMES]),
        "pose_cam": np.stack([one["body_pose"] for one in persons]).reshape(pose),
        "shape": np.stack([[*one["betas"], 7.0] for one in persons]),
        "gtkps": np.stack([one["keypoints_2d"] for one in persons]),
        "trans_cam": np.zeros((3, 3)),
        "cam_int": np.zeros((3, 3, 3)),
    }
    arrays["shape"][1, 0] = np.nan
    np.savez(tmp_path / "insta1-release.npz", **arrays)
    read(raw, tmp_path / "insta1-release.npz", "^insta-train/(.*)$")
    track = fitted(raw)
    assert track.has_smpl.tolist() == [True, False, True]
    assert_allclose(track.betas[:, 0], [0.1, 0, 0.3], atol=1e-6)


@pytest.mark.parametrize(("n_names", "pose"), [(10, (9, 72)), (0, (3, 24, 3))])
def test_a_file_of_camerahmr_with_other_numbers_of_poses_costs_itself_alone(
    tmp_path, n_names, pose
):
    arrays = {"imgname": np.full(n_names, NAMES[0]), "pose_cam": np.zeros(pose)}
    arrays |= {"shape": np.zeros((n_names, 10)), "gtkps": np.zeros((n_names, MOST, 3))}
    np.savez(tmp_path / "insta1-release.npz", **arrays)
    good = tar(tmp_path / "0.tar", {NAMES[1]: [person(1)]})
    files = [tmp_path / "insta1-release.npz", good]
    collected = writing.collect(files, tmp_path / fits.FILE)
    [error] = collected.errors
    assert f"numbers of shape ({n_names}, 72), found ({pose[0]}, 72)" in str(error)
    assert collected.n_fits == 1


def test_a_pickle_that_would_run_code_is_refused(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = tar(tmp_path / "0.tar", {NAMES[1]: [person(1)]})
    bad = tar(tmp_path / "1.tar", {NAMES[0]: [person(0, extra_info=Call(os.mkdir, "was_run"))]})
    with pytest.raises(UnsafePickle, match="mkdir"):
        writing.collect([good, bad], raw / fits.FILE)
    assert not Path("was_run").exists()
    with fits.FitStore.open(raw / fits.FILE) as store:
        assert (len(store.find(NAMES[1])), len(store.find(NAMES[0]))) == (1, 0)


@pytest.mark.promise("problems of InstaVariety")
def test_a_damaged_tar_costs_itself_alone_and_is_read_by_the_next_run(raw, tmp_path, capsys):
    whole = tar(tmp_path / "1.tar", {NAMES[0]: [person(0)], NAMES[1]: [person(1)]})
    content = whole.read_bytes()
    at_a_header = whole.read_bytes().find(b"tag/clip/frame000002")
    cut = (
        content[: len(content) // 3],
        content[:at_a_header],
        content[: at_a_header + 99],
        b"<html>",
        b"",
    )
    for damaged in (*cut, content.replace(b"keypoints_2d", b"\xff" * 12)):
        whole.write_bytes(damaged)
        good = tar(tmp_path / "0.tar", {NAMES[2]: [person(2)]})
        assert main(["fits", str(whole), str(good), "--raw", str(raw)]) == 1
        assert "1.tar" in capsys.readouterr().out
        with fits.FitStore.open(raw / fits.FILE) as store:
            assert [len(store.find(name)) for name in NAMES] == [0, 0, 1]
    whole.write_bytes(content)
    read(raw, whole)
    one = digest_of(raw)
    (raw / fits.FILE).unlink()
    for file in (whole, good):
        read(raw, file)
    assert digest_of(raw) == one  # whatever the order


def test_a_store_that_is_refused_is_closed(raw, tmp_path):
    """The error keeps its frames, and so what they opened."""
    read(raw, tar(tmp_path / "0.tar", {NAMES[0]: [person(0)]}))
    with pipeline_refuses("--key") as other_key:
        writing.collect([], raw / fits.FILE, key="clip")
    assert not is_open(raw / fits.FILE), other_key
    (raw / fits.FILE).write_bytes(b"no database, but text of some length" * 9)
    with pytest.raises(RawDataError) as damaged:
        fits.FitStore.open(raw / fits.FILE)
    assert not is_open(raw / fits.FILE), damaged


def is_open(file):
    places = Path("/proc/self/fd").iterdir()
    return any(os.path.realpath(place) == str(file) for place in places)


def test_without_the_file_and_with_another_one_it_says_what_to_do(raw, tmp_path):
    dataset = datasets.get("insta_variety", fits=True)
    for content in (None, b"no database, but text of some length" * 9):
        if content:
            (raw / fits.FILE).write_bytes(content)
        with raw_refuses("pipeline fits"):
            planned(dataset, "train", raw=raw, root=tmp_path / "cache")


def test_the_residual_is_that_of_the_best_move_and_magnification():
    points = np.concatenate([POINTS[0], np.ones((14, 1))], axis=1)
    moved = points * [2.5, 2.5, 1] + [7, -3, 0]
    assert fits.reprojection(points, moved) < 1e-12
    mirrored = moved * [-1, -1, 1]
    for first, second in ((points[:7], moved[:7]), (points, mirrored)):
        assert fits.reprojection(first, second) == float("inf")
    moved[0, 0] += 10
    terms = np.column_stack([points[:, :2].ravel(), np.tile(np.eye(2), (14, 1))])
    _, residual, *_ = np.linalg.lstsq(terms, moved[:, :2].ravel())
    size = np.ptp(moved[:, :2], axis=0).max()
    assert fits.reprojection(points, moved) == pytest.approx(np.sqrt(residual[0] / 14) / size)
