"""GVHMR's files, loaded and cut as its classes for AMASS and BEDLAM do (no code of it), against the
raw files.
"""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

import cache
from pipeline.extras.exchange.gvhmr import GvhmrOptions, export
from tests.fixtures import convert_into
from tests.pipeline.datasets.made_bedlam import SEQ, SUBJECTS, labels, write
from tests.pipeline.datasets.made_motions import smplx, write_motion
from tests.pipeline.extras.exchange.made_streams import add_stream
from tests.raising import pipeline_refuses

N, HOLE = 40, 33  # images of a sequence; of the second person, one is not labelled
SCENE = "20221018_1_1_batch01hand_30fps"
MID = f"inputs/bedlam/bedlam_download/20221018_1_1_batch01hand/mp4/{SEQ}.mp4-{{}}"


def turns(vectors):
    return Rotation.from_rotvec(np.asarray(vectors, np.float64)).as_matrix()


def test_amass_has_neutral_motions_at_30_frames_a_second(tmp_path, types):
    raw = tmp_path / "raw"
    smplx(raw, gender="neutral")
    smplx(raw, "ACCAD/s1/other_stageii", gender="female")
    write_motion(raw, "CMU/s1/walk_poses", gender="neutral")  # SMPL-H
    convert_into(tmp_path / "cache", raw, "amass")
    export_amass = "export amass/train --cache CACHE --format gvhmr --out TMP/hmr4d_support"
    types(export_amass)
    types(export_amass, code=2)
    held = torch.load(tmp_path / "hmr4d_support/smplxpose_v2.pth")  # weights_only
    assert [*held] == ["ACCAD_s1_wave_stageii"]
    motion = held["ACCAD_s1_wave_stageii"]
    assert {values.dtype for values in motion.values()} == {torch.float32}
    angle = np.linalg.norm(motion["pose"].reshape(151, 22, 3), axis=-1)  # 5 s
    # as the motion was made
    assert_allclose(angle[:, 21], np.arange(151) / 30 * 0.22, atol=1e-5)
    assert_allclose(motion["trans"][:, 0], np.arange(151) / 30, atol=1e-5)
    assert_allclose(motion["trans"][:, 2], np.ones(151), atol=1e-6)  # z is up
    assert_allclose(motion["beta"], np.arange(10) / 10, rtol=1e-6)


@pytest.fixture(scope="module")
def bedlam(tmp_path_factory):
    """Root of a cache with two people at 30 fps, labels, the body's file, rest joints by shape."""
    folder = tmp_path_factory.mktemp("bedlam")
    data = labels(N, step=1, width=165)
    rng = np.random.default_rng(1)
    data["pose_cam"][:, :3] += rng.normal(0, 0.2, (2 * N, 3))
    data["shape"][1::2] = 0.25
    data = {key: np.delete(values, 2 * HOLE + 1, axis=0) for key, values in data.items()}
    write(folder / "raw", data, SCENE, "all_npz_12_training", pictures=range(N))
    body = {
        name: rng.normal(0, 1, shape)
        for name, shape in (("v_template", (60, 3)), ("shapedirs", (60, 3, 20)))
    }
    body["J_regressor"] = rng.dirichlet(np.ones(60), 55)
    np.savez(folder / "SMPLX_NEUTRAL.npz", **body)
    convert_into(folder / "cache", folder / "raw", "bedlam")
    add_stream(folder / "cache", "bedlam/train", "hmr2", "hmr2", 1024)

    def rest(shape):
        return body["J_regressor"] @ (
            body["v_template"] + body["shapedirs"][..., :10] @ np.full(10, shape)
        )

    return folder, data, rest


def test_bedlam_has_labels_in_camera_and_world_and_features_of_the_same_rows(bedlam, tmp_path):
    folder, data, rest = bedlam
    out = tmp_path / "hmr4d_support"
    done = export(
        folder / "cache",
        "bedlam/train",
        out,
        options=GvhmrOptions(smplx=folder / "SMPLX_NEUTRAL.npz"),
    )
    assert (done.rows, dict(done.left_out)) == (
        N + HOLE,
        {"a run of fewer than 30 frames": N - 1 - HOLE},
    )
    held = torch.load(out / "smplpose_v2.pth")
    ranges = torch.load(out / "mid_to_valid_range_all60.pt")
    assert torch.load(out / "mid_to_valid_range_maxspan60.pt") == {}
    assert ranges == {MID.format(SUBJECTS[0]): (0, N), MID.format(SUBJECTS[1]): (0, HOLE)}
    assert held.keys() == ranges.keys()
    split = cache.open(folder / "cache")["bedlam/train"]
    for p, (mid, (_, end)) in enumerate(ranges.items()):
        assert {values.dtype for values in held[mid].values()} == {torch.float32}
        motion = {key: values.double().numpy() for key, values in held[mid].items()}
        mine = {key: values[data["sub"] == SUBJECTS[p]][:end] for key, values in data.items()}
        assert motion["beta"].shape == (10,)
        skeleton = motion.pop("skeleton")
        cut = {key: values[:end] for key, values in motion.items() if values.ndim > 1}
        to_camera, camera = mine["cam_ext"], mine["cam_ext"][:, :3, 3]
        in_camera = cut["trans_incam"] + cut["cam_ext"][:, :3, 3]
        # The camera that both roots state is the labels', in a world whose y points up.
        rotation = turns(cut["global_orient_incam"]) @ turns(cut["pose"][:, :3]).transpose(0, 2, 1)
        pelvis = skeleton[0]
        shift = in_camera + pelvis - np.einsum("nij,nj->ni", rotation, cut["trans"] + pelvis)
        for found, expected in (
            (skeleton, rest((0.5, 0.25)[p])),
            (cut["global_orient_incam"], mine["pose_cam"][:, :3]),
            (cut["pose"][:, 3:], mine["pose_cam"][:, 3:66]),
            (cut["cam_ext"], to_camera),
            (in_camera, mine["trans_cam"] + camera),
            (rotation, to_camera[:, :3, :3] * (1, -1, -1)),
            (shift, camera),
        ):
            assert_allclose(found, expected, atol=2e-5)
        assert_allclose(cut["cam_int"], mine["cam_int"], atol=1e-3)
        assert (rotation[:, 1, 1] < -0.9).all()  # up in the world is up in the image
        # The feature file of this motion.
        *_, scene, _, last = mid.split("/")
        features = torch.load(out / "imgfeats/bedlam_all60" / scene / f"{last}.pt")
        track = split.tracks[p]
        rows = split.rows("features/hmr2", track.start, track.start + end)
        assert_array_equal(features["features"], rows)
        assert (features["start_end"], features["img_wh"].tolist()) == ((0, end), [1280, 720])
        # what was cropped
        crop = np.column_stack([mine["center"], 200 * mine["scale"]])
        assert_allclose(features["bbx_xys"], crop, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "stream", "words"),
    [
        ({}, "hmr2", "--option smplx=SMPLX_NEUTRAL.npz"),
        ({"smplx": True}, "other", "stream 'other' is missing"),
    ],
)
def test_a_missing_body_or_stream_is_named(bedlam, tmp_path, options, stream, words):
    given = GvhmrOptions(smplx=bedlam[0] / "SMPLX_NEUTRAL.npz") if options else GvhmrOptions()
    with pipeline_refuses(words):
        export(bedlam[0] / "cache", "bedlam/train", tmp_path / "out", stream=stream, options=given)
    assert not (tmp_path / "out").exists()


def test_a_split_without_smplx_labels_is_refused_with_the_reason(tmp_path):
    write_motion(tmp_path / "raw")
    convert_into(tmp_path / "cache", tmp_path / "raw", "amass")
    with pipeline_refuses("amass/train: has no SMPL-X labels, and SMPL's parameters do not fit"):
        export(tmp_path / "cache", "amass/train", tmp_path / "out")
