"""WHAM's files: what its code loads, against the raw files and bodies that are posed here."""

import json
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

import cache
from cache import GENDERS
from pipeline.errors import StandInMixed
from pipeline.extras.exchange.formats import provenance_path
from pipeline.extras.exchange.wham.export import WhamOptions, export
from pipeline.people.skeletons import JOINTS
from pipeline.people.smpl_files import body_files
from tests.bodies import posed, the_body
from tests.pipeline.extras.exchange.made_streams import add_stream, add_tokens, add_video
from tests.raising import pipeline_refuses, raw_refuses

VERTICES = np.arange(31) * 220  # that the regressor of these tests takes for WHAM's joints
LABELS = "vid frame_id bbox res pose betas kp2d cam_poses features joints3D joints2D"
# mirrored (WHAM's lib/utils/imutils.py)
COCO = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
SMPL = {"pose": np.zeros((4, 72)), "betas": np.zeros((4, 10)), "has_smpl": np.ones(4, np.uint8)}
BY_NETWORK = {
    "flipped_features",
    "init_kp3d",
    "init_pose",
    "flipped_init_kp3d",
    "flipped_init_pose",
}


def small_cache(root, name, columns, **options):
    """A split of one video, with tokens."""
    add_video(root, name, columns, fps=30.0, **options)
    add_tokens(root, name)


@pytest.fixture(scope="module")
def body(embedded, tmp_path_factory):
    """The demo body, with a regressor whose joints are vertices."""
    folder = tmp_path_factory.mktemp("body")
    for file in embedded.body.iterdir():
        (folder / file.name).symlink_to(file)
    np.save(folder / "J_regressor_wham.npy", np.eye(6890)[VERTICES])
    return folder


def verts(gender, *numbers):
    """(n, 6890, 3) m."""
    return posed(the_body(gender), *numbers).verts.numpy()


def moved(matrices, points):
    """(n, V, 3) m of each frame in another's axes."""
    return np.einsum("nij,nvj->nvi", matrices[:, :3, :3], points) + matrices[:, None, :3, 3]


def check(held, fields):
    """Tensors of a number for each row, all finite."""
    assert set(held) == set(fields.split())
    for field, values in held.items():
        is_number = field in ("vid", "frame_id", "gender")
        assert values.dtype == (torch.int64 if is_number else torch.float32), field
        assert len(values) == len(held["vid"]) and torch.isfinite(values).all(), field


# ------------------------------------------------------------------------------------------------
# training


def test_3dpw_s_bodies_are_those_of_the_release_seen_by_its_cameras(
    exportable, embedded, body, tmp_path
):
    """The labels of the cache are by default of the neutral body, whose pelvis is elsewhere than
    the gendered one's.
    """
    root = exportable("3dpw/train")
    done = export(root, "3dpw/train", tmp_path, stream="tokens", options=WhamOptions(body=body))
    held = joblib.load(tmp_path / "3dpw_train_vit.pth")
    (sequence,) = embedded.raw("3dpw").glob("sequenceFiles/train/*")
    check(held, f"{LABELS} transl gender")
    assert done.rows == len(held["vid"]) and done.stand_in and not done.absent
    digests = json.loads(provenance_path(done.file).read_text())["body"]
    assert digests == {gender: body_files(body, gender).digest for gender in GENDERS}
    release = pickle.loads(sequence.read_bytes(), encoding="latin1")
    split = cache.open(root)["3dpw/train"]
    for number, track in enumerate(split.tracks):
        rows = held["vid"].numpy() == number
        person = int(track.name.rpartition("/")[2])
        of = {field: values.numpy()[rows] for field, values in held.items()}
        frame = of["frame_id"]
        gender = {"m": "male", "f": "female"}[release["genders"][person]]
        pose, trans = (release[key][person][frame] for key in ("poses", "trans"))
        betas = release["betas"][person][:10]
        camera = release["cam_poses"][frame]
        seen = moved(camera, verts(gender, pose, betas, trans))
        own = verts(gender, *(of[key] for key in ("pose", "betas", "transl")))
        assert_allclose(own, seen, atol=2e-4)
        assert_allclose(of["joints3D"], seen[:, VERTICES], atol=2e-4)
        pixels = of["joints3D"] @ release["cam_intrinsics"].T
        assert_allclose(of["joints2D"], pixels[..., :2] / pixels[..., 2:], atol=0.01)
        assert_allclose(of["cam_poses"], camera, atol=1e-5)
        assert set(of["gender"].tolist()) == {["male", "female"].index(gender)}
        stored = split.rows("kp_2d", track.start, track.stop)
        wrist = stored[:, JOINTS["spin49"].index("lwrist")]
        assert_array_equal(of["kp2d"][:, JOINTS["coco"].index("lwrist")], wrist)
        assert (of["kp2d"][:, 0, 2] == 0).all()  # no nose among 3DPW's joints: WHAM masks it
        assert_array_equal(of["features"][:, 0], np.arange(track.start, track.stop) / 8)
    assert held["res"].unique(dim=0).tolist() == [[split.videos[0].width, split.videos[0].height]]


def test_human36m_has_its_joints_and_contacts_and_a_vid_spans_no_gap(
    exportable, tmp_path, monkeypatch
):
    root = exportable("h36m/train")
    done = export(root, "h36m/train", tmp_path / "h.pth", stream="tokens")
    held, split = joblib.load(tmp_path / "h.pth"), cache.open(root)["h36m/train"]
    check(held, f"{LABELS} stationaries")
    assert set(done.absent) == {"stationaries"} and (held["stationaries"] == -1).all()
    has_smpl = split.rows("has_smpl", 0, split.tracks[-1].stop) == 1
    assert_array_equal(held["joints3D"], split.rows("kp_3d", 0, len(has_smpl))[has_smpl, :, :3])
    assert done.left_out == {"no SMPL parameters": int((~has_smpl).sum())}
    vid, frame = held["vid"].numpy(), held["frame_id"].numpy()
    assert vid[0] == 0 and set(np.diff(vid).tolist()) <= {0, 1}
    assert set(np.diff(frame)[np.diff(vid) == 0].tolist()) == {int(split.tracks.step[0])}
    add_stream(root, "h36m/train", "contacts", "stationary", 4)
    options = WhamOptions(stationary="contacts")
    again = export(root, "h36m/train", tmp_path / "again.pth", stream="tokens", options=options)
    assert not again.absent
    stationaries = joblib.load(tmp_path / "again.pth")["stationaries"]
    assert_array_equal(stationaries[:, 1], np.flatnonzero(has_smpl) / 8)
    monkeypatch.setattr("pipeline.extras.exchange.rows.BATCH", 3)
    blocks = export(root, "h36m/train", tmp_path / "b.pth", stream="tokens", options=options)
    assert blocks.file.read_bytes() == again.file.read_bytes()


def test_insta_variety_is_in_pixels_of_a_picture_of_224(tmp_path, types):
    kp_2d = np.zeros((3, 49, 3), np.float32)
    kp_2d[:, JOINTS["spin49"].index("OP LEye")] = (150, 75, 1)
    columns = {"kp_2d": kp_2d, "bbox": np.tile([150, 150, 300, 300], (3, 1))}
    small_cache(tmp_path / "c", "insta_variety/train", columns)
    done = export(tmp_path / "c", "insta_variety/train", tmp_path, stream="tokens")
    held = joblib.load(done.file)
    assert set(done.absent) == {"pose", "betas"}
    export_again = "export insta_variety/train --cache TMP/c --format wham --out TMP/again.pth"
    types(export_again, "without features: ", "without pose: ")
    assert held["res"].unique(dim=0).tolist() == [[224, 224]]
    assert_allclose(held["bbox"].unique(dim=0), [[112, 112, 1.12]])
    # nose, left eye, right eye
    assert held["kp2d"][0, :3].tolist() == [[0, 0, 0], [112, 56, 1], [0, 0, 0]]
    assert torch.equal(held["joints2D"], held["kp2d"])


def test_bedlam_s_bodies_in_the_world_and_in_the_camera_are_one(exportable, body, tmp_path):
    root = exportable("bedlam/train")
    held = joblib.load(export(root, "bedlam/train", tmp_path, options=WhamOptions(body=body)).file)
    assert not {"transl", "joints3D"} & held.keys()
    camera = held["extrinsics"].double().numpy()
    world, seen = (
        verts("neutral", np.concatenate([turn, held["pose"][:, 3:]], axis=1), held["betas"], trans)
        for turn, trans in ((held["root"], held["w_trans"]), (held["pose"][:, :3], held["c_trans"]))
    )
    assert_allclose(moved(camera, world), seen, atol=1e-3)


# ------------------------------------------------------------------------------------------------
# motions


def test_motions_of_amass_are_at_30_fps_with_y_down_and_begin_on_the_ground(
    exportable, body, tmp_path, luigi_cfg, types
):
    """By the body of luigi.cfg, which AMASS's conversion does without."""
    root = exportable("amass/train")
    luigi_cfg()
    (tmp_path / "body").symlink_to(body)
    types(f"export amass/train --cache {root} --format wham --out TMP")
    held = joblib.load(tmp_path / "amass.pth")
    kinds = {field: values.dtype.kind for field, values in held.items()}
    assert kinds == {"vid": "U"} | dict.fromkeys(("pose", "betas", "transl"), "f")
    split = cache.open(root)["amass/train"]
    for track in split.tracks:
        rows = held["vid"] == track.video.replace("/", "_")
        n = track.stop - track.start
        assert rows.sum() == (n - 1) * 30 // 25 + 1
        stored = {
            name: split.rows(name, track.start, track.stop) for name in ("pose", "betas", "trans")
        }
        # every 0.2 s
        before = verts(track.gender, *(stored[name][::5] for name in ("pose", "betas", "trans")))
        after = verts(
            track.gender,
            *(held[name][rows][::6][: len(before)] for name in ("pose", "betas", "transl")),
        )
        ground = -before[0, :, 2].min()  # z up
        turned = before @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T - [0, ground, 0]
        assert_allclose(after, turned, atol=1e-3)
        assert after[0, :, 1].max() == pytest.approx(0, abs=1e-4)
    with pipeline_refuses("--body"):
        export(root, "amass/train", tmp_path / "without a body.pth")


# ------------------------------------------------------------------------------------------------
# evaluation


def test_emdb_s_sequences_are_lists_whose_first_frame_is_there_twice(
    exportable, embedded, tmp_path
):
    root = exportable("emdb/emdb1")
    done = export(root, "emdb/emdb1", tmp_path, stream="tokens")
    held = joblib.load(tmp_path / "emdb_1_vit.pth")
    assert set(done.absent) == BY_NETWORK
    tracks = list(cache.open(root)["emdb/emdb1"].tracks)
    assert {len(entries) for entries in held.values()} == {len(tracks)}
    for number, track in enumerate(tracks):
        entry = {field: values[number] for field, values in held.items()}
        assert (entry.pop("vid"), entry.pop("gender")) == (
            track.video.replace("/", "_"),
            track.gender,
        )
        assert {len(values) for values in entry.values()} == {track.stop - track.start + 1}
        for values in entry.values():
            assert torch.equal(values[0], values[1])
        (file,) = (embedded.raw("emdb") / track.video).glob("*_data.pkl")
        release, frame = pickle.loads(file.read_bytes()), entry["frame_id"][1:].numpy()
        corners = release["bboxes"]["bboxes"][frame].reshape(-1, 2, 2)
        side = (corners[:, 1] - corners[:, 0]).max(axis=1)
        expected = np.column_stack([corners.mean(axis=1), side / 1.1])
        assert_allclose(entry["bbox"][1:], expected, rtol=1e-5)
        rotation = Rotation.from_matrix(release["camera"]["extrinsics"][frame, :3, :3])
        root_in_camera = rotation * Rotation.from_rotvec(release["smpl"]["poses_root"][frame])
        off = root_in_camera.inv() * Rotation.from_rotvec(entry["pose"][1:, :3].numpy())
        assert off.magnitude().max() < 1e-4
        assert_allclose(entry["pose"][1:, 3:], release["smpl"]["poses_body"][frame], atol=1e-6)
        width = release["camera"]["width"]
        assert entry["res"][0].tolist() == [width, release["camera"]["height"]]
        mirrored = entry["bbox"] * torch.tensor([-1, 1, 1]) + torch.tensor([width, 0, 0])
        assert_allclose(entry["flipped_bbox"], mirrored)
        seen = entry["kp2d"][..., 2] > 0
        flipped = entry["kp2d"][:, COCO]
        assert seen.any() and torch.equal(entry["flipped_kp2d"][..., 1:], flipped[..., 1:])
        assert_allclose((entry["flipped_kp2d"] + flipped)[..., 0][seen[:, COCO]], width, rtol=1e-5)


def test_3dpw_s_sequences_have_their_names(tmp_path):
    small_cache(tmp_path / "c", "3dpw/test", SMPL | {"frame_index": np.r_[0:2, 5:7]})
    done = export(tmp_path / "c", "3dpw/test", tmp_path)
    assert done.file.name == "3dpw_test_vit.pth"
    assert set(done.absent) == {*BY_NETWORK, "features", "cam_poses", "gender"}
    held = joblib.load(done.file)
    # closed up
    assert (held["vid"], held["frame_id"][0].tolist()) == (["v_0"], [0, 0, 1, 5, 6])
    assert held["bbox"][0].shape == (5, 4) and held["flipped_bbox"][0].shape == (5, 3)


# ------------------------------------------------------------------------------------------------
# files, messages


@pytest.mark.parametrize(
    ("name", "out", "options", "message"),
    [
        ("penn_action/train", ".", {}, "penn_action/train"),
        ("3dpw/train", "3dpw_train_db.pt", {}, r"\.pth"),
        ("3dpw/train", ".", {"stream": "tokenz"}, "'tokenz'"),
        ("3dpw/train", ".", {"options": WhamOptions(body=Path("nowhere"))}, "nowhere"),
    ],
)
def test_what_cannot_be_written_is_refused(exportable, tmp_path, name, out, options, message):
    root = exportable("3dpw/train")
    with pipeline_refuses(message):
        export(root, name, tmp_path / out, **options)
    assert not any(tmp_path.iterdir())


def test_a_body_of_the_other_kind_and_a_regressor_of_another_shape_are_refused(
    exportable, body, tmp_path
):
    root, real = exportable("3dpw/train"), tmp_path / "real"
    real.mkdir()
    for file in body.iterdir():
        if file.name != "STAND_IN.json":
            (real / file.name).symlink_to(file.resolve())
    with pytest.raises(StandInMixed, match="demo data"):
        export(root, "3dpw/train", tmp_path, options=WhamOptions(body=real))
    (real / "STAND_IN.json").write_text("{}")
    (real / "J_regressor_wham.npy").unlink()
    np.save(real / "J_regressor_wham.npy", np.eye(17, 6890))
    with raw_refuses("J_regressor_wham"):
        export(root, "3dpw/train", tmp_path, options=WhamOptions(body=real))


def test_what_is_at_another_rate_than_wham_s_windows_is_refused(tmp_path):
    small_cache(tmp_path / "c", "bedlam/train", SMPL, step=5)
    with pipeline_refuses("4 rows have no rate of 30"):
        export(tmp_path / "c", "bedlam/train", tmp_path)
