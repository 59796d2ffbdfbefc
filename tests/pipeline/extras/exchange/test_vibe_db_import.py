"""Database files as VIBE's and TCMR's scripts leave them become splits, with no more in them than
the file says.
"""

import functools
import json

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cache
from cache.write import split_writer
from pipeline.errors import RawDataError
from pipeline.extras.exchange import rows
from pipeline.extras.exchange.vibe_db.export import export
from pipeline.extras.exchange.vibe_db.importing import import_database
from pipeline.people.skeletons import JOINTS
from tests.hostile import memory_peak
from tests.pipeline.extras.exchange.made_databases import (
    BOXES,
    FRAMES,
    LSP,
    SPIN,
    N,
    feature_rows,
    keypoints,
    mpii3d,
    posetrack,
    threedpw,
    vid_names,
)
from tests.raising import pipeline_refuses, raw_refuses


def imported(held, name, tmp_path, **options):
    joblib.dump(held, tmp_path / "db.pt", protocol=3)
    done = import_database(tmp_path / "db.pt", tmp_path / "cache", name, **options)
    assert cache.verify(tmp_path / "cache").ok
    return done, cache.open(tmp_path / "cache")[name]


# --------------------------------------------------------------------------------------------------
# what comes out


@pytest.mark.promise("problems of All datasets")
def test_rows_features_and_tracks_of_a_file_are_those_of_the_split(tmp_path):
    exact = np.random.default_rng(3).normal(size=(N, 2048)).astype(np.float32)
    done, split = imported(posetrack(features=exact), "posetrack/train", tmp_path)
    assert [(track.name, track.start, track.stop, track.crop_scale) for track in split.tracks] == [
        ("data/posetrack/train/1.json_0/0", 0, 25, 1.3),
        ("data/posetrack/train/1.json_1/0", 25, 40, 1.3),
    ]
    assert split.columns == ("frame_index", "bbox", "kp_2d")
    assert split.rows("frame_index", 22, 27).tolist() == [22, 23, 24, 0, 1]
    assert [video.source for video in split.videos] == ["pictures:images/train/1/{:06d}.jpg+0"] * 2
    assert_array_equal(split.rows("kp_2d", 0, N), keypoints(49))
    assert_array_equal(split.rows("bbox", 0, N), BOXES)
    windows = split.windows(16, 4, "resnet50")
    # none across the names, none in the 15 rows
    assert windows.tolist() == [[0, 16], [4, 20], [8, 24]]
    batch = split.read(windows, stream="resnet50")
    stored = exact.astype(np.float16).astype(np.float32)
    assert_array_equal(batch["features"], [stored[start:stop] for start, stop in windows])
    assert not batch["w_3d"].any() and not batch["w_smpl"].any()
    assert (done.rows, done.tracks, done.stream) == (N, 2, "resnet50")
    assert not done.is_demo and not done.is_untrained


def test_mpi_inf_3dhp_s_joints_are_known_by_name_not_by_what_stands_there(tmp_path):
    held = mpii3d()
    # minus the pelvis: it looks like a joint
    assert held["joints3D"][:, SPIN.index("OP Nose")].all()
    _, split = imported(held, "mpi_inf_3dhp/train", tmp_path)
    kp_3d = split.rows("kp_3d", 0, N)
    is_known = np.array([name in JOINTS["mpi_inf_3dhp"] for name in SPIN])
    assert_array_equal(kp_3d[..., 3], np.tile(is_known, (N, 1)))
    assert_array_equal(kp_3d[..., :3], np.float32(held["joints3D"]) * is_known[:, None])
    assert split.rows("has_3d", 0, N).all()
    assert split.rows("frame_index", 0, 2).tolist() == [10, 11]
    # it leads outside any raw folder
    assert "img_name is not kept" in split.videos[0].account["notes"][0]


def test_a_test_set_s_14_joints_are_those_of_the_49(tmp_path):
    held = mpii3d(valid_i=np.arange(N, dtype=float)[:, None] % 2)
    _, split = imported(held, "mpi_inf_3dhp/test", tmp_path)
    expected = held["joints3D"][:, [SPIN.index(name) for name in LSP]]
    assert np.array_equal(split.rows("kp_3d_eval", 0, N), expected.astype(np.float32))
    assert split.rows("valid", 0, 4).tolist() == [0, 1, 0, 1]


def test_3dpw_s_49_joints_are_centred_on_the_pelvis(tmp_path):
    """Those of 14 joints, of validation and test sets, are taken as they are."""
    held, evaluated = threedpw(), threedpw(14)
    _, split = imported(evaluated, "3dpw/test", tmp_path)
    assert_array_equal(split.rows("kp_3d_eval", 0, N), evaluated["joints3D"])
    assert split.rows("valid", 0, 4).tolist() == [0, 1, 0, 1]
    batch = split.read(split.windows(8, 8, "resnet50"), stream="resnet50")
    assert batch["kp_3d"].shape[2:] == (14, 3) and batch["w_3d"].all() and batch["w_smpl"].all()
    _, split = imported(held, "3dpw/train", tmp_path)
    joints = held["joints3D"].astype(float)
    centred = joints - joints[:, [SPIN.index("hip")]]
    kp_3d = np.concatenate([centred, np.ones((N, 49, 1))], axis=-1)
    assert_array_equal(split.rows("kp_3d", 0, N), kp_3d.astype(np.float32))
    assert_array_equal(split.rows("pose", 0, N), held["pose"])
    assert (split.tracks[0].crop_scale, split.rows("frame_index", 0, 1)) == (1.2, [3])
    kp_2d = split.rows("kp_2d", 0, 1)[0]
    elbow = LSP.index("relbow")
    assert kp_2d[SPIN.index("relbow")].tolist() == [elbow, elbow, 1]
    assert not kp_2d[:25].any()


def test_bodies_that_are_all_zeros_are_unknown(tmp_path):
    """TCMR's script of Human3.6M leaves zeros where there are no fits."""
    pose, shape = np.zeros((N, 72)), np.zeros((N, 10))
    pose[10:] = 0.25
    _, split = imported(
        threedpw(pose=pose, shape=shape, joints2D=keypoints(49)), "h36m/train", tmp_path
    )
    assert split.rows("has_smpl", 0, N).tolist() == [0] * 10 + [1] * 30
    assert np.isnan(split.rows("pose", 0, 10)).all()
    known = split.rows("kp_3d", 0, 1)[0, :, 3]
    assert {SPIN[j] for j in np.flatnonzero(known)} == set(JOINTS["h36m"]) & set(SPIN)


def test_joints_in_mm_and_poses_in_degrees_are_refused(tmp_path):
    rng = np.random.default_rng(4)
    joints = np.zeros((N, 49, 3))
    joints[:, 25:39] = rng.uniform(-0.9, 0.9, (N, 14, 3))
    joints[: N // 3] *= 1000  # those of one of two files
    with raw_refuses(r"'joints3D'.* mm"):
        imported(mpii3d(joints3D=joints), "mpi_inf_3dhp/train", tmp_path)
    theta = np.degrees(rng.normal(0, 0.4, (N, 82)))
    with raw_refuses(r"'pose'.* rad"):
        imported({"theta": theta, "vid_name": vid_names()}, "amass/train", tmp_path)


def test_motions_become_poses_and_shapes_without_pictures(tmp_path):
    theta = np.random.default_rng(4).normal(size=(N, 82))
    done, split = imported({"theta": theta, "vid_name": vid_names()}, "amass/train", tmp_path)
    assert np.array_equal(split.rows("pose", 0, N), theta[:, :72].astype(np.float32))
    assert np.array_equal(split.rows("betas", 0, N), theta[:, 72:].astype(np.float32))
    assert (done.stream, split.streams) == (None, ())
    assert "trans" not in split.columns


# -----------------------------------------------------------------------------------------------
# what is not all there


def test_a_name_that_comes_back_and_a_number_that_falls_begin_another_track(tmp_path):
    frame = np.tile(np.arange(10), 4)
    names = np.repeat(np.array(["a", "b", "a"]), [20, 10, 10])
    _, split = imported(threedpw(vid_name=names, frame_id=frame), "3dpw/train", tmp_path)
    assert split.tracks.names == ["a/0", "a/0_part1", "a/0_part2", "b/0"]
    assert [t.stop - t.start for t in split.tracks] == [10] * 4
    by_name = {
        t.name: split.read([[t.start, t.start + 10]], stream="resnet50")["features"]
        for t in split.tracks
    }
    assert by_name["a/0_part2"][0, :, 0].tolist() == [row / 4 for row in range(30, 40)]


def test_what_is_not_finite_is_unknown_or_left_out_and_counted(tmp_path):
    held = threedpw()
    held["joints2D"][0, :3, 2] = (-1, 0.5, 3.5)  # confidences are clipped
    held["joints2D"][0, 3] = np.nan  # one joint
    held["joints2D"][1] = np.nan  # all joints
    held["bbox"][2] = np.nan
    held["joints3D"][3, 30] = np.inf
    held["pose"][4, 5] = np.nan
    held["features"][5, 6] = np.nan
    held["features"][6, 6] = 1e6  # more than float16 holds
    done, split = imported(held, "3dpw/train", tmp_path)
    assert split.rows("frame_index", 0, 3).tolist() == [3, 6, 7]  # rows 1 and 2 are gone
    confidences = split.rows("kp_2d", 0, 1)[0, [SPIN.index(name) for name in LSP[:4]], 2]
    assert confidences.tolist() == [0, 0.5, 1, 0]
    assert split.rows("has_3d", 0, 4).tolist() == [1, 0, 1, 1]
    assert split.rows("has_smpl", 0, 4).tolist() == [1, 1, 0, 1]
    assert done.without_features == split.open_stream("resnet50").undecodable() == 2
    frames = done.totals["frames"]
    assert frames == {
        "found": 40,
        "kept": 38,
        "dropped": {"degenerate_box": 1, "no_visible_joint": 1},
    }
    batch = split.read(split.windows(1, 1, "resnet50"), stream="resnet50")
    assert all(np.isfinite(values).all() for values in batch.values())


def test_a_file_of_which_no_row_can_be_used_makes_an_empty_split(tmp_path):
    done, split = imported(posetrack(bbox=BOXES * 0), "posetrack/train", tmp_path)
    assert done.totals["frames"] == {"found": N, "kept": 0, "dropped": {"degenerate_box": N}}
    assert done.totals["videos"]["without_tracks"] == 2 and len(split.tracks) == 0


@pytest.mark.parametrize(
    "changed, match",
    [
        (threedpw(14), "'joints3D'"),  # no pelvis to centre them on
        (threedpw(frame_id=np.arange(N) - 3), "'frame_id'"),
        ({"img_name": np.array([f"a/{10**13 + row}.jpg" for row in range(N)])}, "'img_name'"),
        ({"features": feature_rows(N - 1)}, "'features'.* 40 rows"),
        ({"bbox": BOXES[:, :3]}, "'bbox'"),
        ({"vid_name": np.arange(N)}, "'vid_name'"),
        ({"bbox": BOXES * [1, 1, 2, 1]}, "'bbox'.* square"),
        ({"bbox": np.vstack([BOXES[:5], [[100, 80, 0, 7]], BOXES[6:]])}, "'bbox'.* in row 5"),
        ({"joints2D": keypoints(17)}, "'joints2D'.*17.*--joints-2d"),
        ({"vid_name": np.array(["x" * 5000] * N)}, "'vid_name'.*row 0"),
        ({"vid_name": np.array([b"\xff"] * N)}, "'vid_name'"),
        ({"joints2D": keypoints(49).tolist()}, "joints2D"),
        (dict.fromkeys(posetrack()) | {"theta": np.ones((N, 82))}, "'vid_name'.*found theta"),
    ],
)
def test_a_file_that_is_not_what_it_must_be_is_refused_by_its_field(changed, match, tmp_path):
    name = "3dpw/train" if "joints3D" in changed else "posetrack/train"
    with raw_refuses(match):
        imported(posetrack(**changed), name, tmp_path)
    assert not (tmp_path / "cache" / name / "manifest.json").exists()


def standing():
    """13 joints of people who stand, in Penn Action's own order: the head's top above the
    ankles.
    """
    joints = keypoints(13)
    joints[:, :, 1] = 10 + 10 * np.arange(13)
    return joints


def test_joints_whose_order_is_a_guess_that_shows_people_upside_down_are_refused(tmp_path):
    with raw_refuses("--joints-2d"):
        imported(posetrack(joints2D=standing()), "penn_action/train", tmp_path)


@pytest.mark.parametrize(
    "order, first", [("penn_action", "headtop"), ("common13", "rankle"), (None, "rankle")]
)
def test_joints_are_in_the_order_that_was_said_or_14_in_lsp_s(order, first, tmp_path):
    joints = standing() if order else np.add(keypoints(14), [0, 10, 0])
    joints[:, 12 if order is None else 13 :] = 0  # VIBE's script leaves the neck empty
    # images count from 1; without any, frames are counted
    img_name = order and np.array([f"frames/0001/{frame + 1:06d}.jpg" for frame in FRAMES])
    held = posetrack(joints2D=joints, img_name=img_name)
    _, split = imported(held, "penn_action/train", tmp_path, joints_2d=order)
    assert split.rows("frame_index", 22, 27).tolist() == [22, 23, 24, 0, 1]
    kp_2d = split.rows("kp_2d", 0, 1)[0]
    assert kp_2d[SPIN.index(first)].tolist() == [0, 10, 1]
    assert not kp_2d[SPIN.index("neck")].any()


# -----------------------------------------------------------------------------------------------
# origin, other commands


def test_the_manifest_records_the_split_s_origin_and_an_import_that_is_done_does_nothing(
    tmp_path, into
):
    _, split = imported(posetrack(), "posetrack/train", tmp_path, crop_scale=1.2)
    origin = split.manifest["reader"]["imported"]
    assert (origin["file"], origin["format"], origin["crop_scale"]) == ("db.pt", "vibe", 1.2)
    assert (split.tracks[0].crop_scale, split.manifest["stand_in"]) == (1.2, False)
    manifest = split.open_stream("resnet50").manifest
    assert manifest["identity"]["kind"] == "imported" and manifest["identity"]["weights"] is None
    assert origin["sha256"] == manifest["identity"]["file_sha256"]
    assert split.provenance["imported"] == str((tmp_path / "db.pt").resolve())
    before = into.tree(tmp_path / "cache")
    again = import_database(
        tmp_path / "db.pt", tmp_path / "cache", "posetrack/train", crop_scale=1.2
    )
    assert not again.is_written
    assert into.tree(tmp_path / "cache") == before


def test_what_is_not_imported_is_named(tmp_path, types):
    joblib.dump(posetrack(segments=np.zeros(3)), tmp_path / "db.pt")
    types("import TMP/db.pt posetrack/train --cache CACHE", "not imported: segments")


def test_a_crop_scale_of_0_is_refused_and_not_taken_for_none(tmp_path):
    with pipeline_refuses(r"^crop scale 0.0: expected crop side / box side"):
        imported(posetrack(), "posetrack/train", tmp_path, crop_scale=0.0)


def test_a_killed_import_goes_on_to_the_same_bytes(small_shards, tmp_path, into, monkeypatch):
    imported(posetrack(), "posetrack/train", tmp_path)
    write = cache.StreamWriter.write
    for stop_at in (
        0,
        1,
        2,
    ):  # of three shards of features, so many are written before it is killed

        def write_or_stop(self, shard, *args, at=stop_at):
            if shard >= at:
                raise KeyboardInterrupt
            write(self, shard, *args)

        split = tmp_path / f"killed {stop_at}", "posetrack/train"
        with monkeypatch.context() as patch:
            patch.setattr(cache.StreamWriter, "write", write_or_stop)
            with pytest.raises(KeyboardInterrupt):
                import_database(tmp_path / "db.pt", *split)
        assert import_database(tmp_path / "db.pt", *split).is_written
        assert into.tree(split[0]) == into.tree(tmp_path / "cache")


def test_a_split_of_another_origin_is_not_touched(penn, into, tmp_path):
    (tmp_path / "imported").mkdir()
    imported(posetrack(bbox=BOXES + 1), penn.name, tmp_path / "imported")
    penn.converted()
    joblib.dump(posetrack(), tmp_path / "db.pt")
    for root, was in (
        (penn.root, "converted from raw data"),
        (tmp_path / "imported/cache", "imported from db.pt.*sha256 was"),
    ):
        before = into.tree(root)
        with pipeline_refuses(was):
            import_database(tmp_path / "db.pt", root, penn.name)
        assert into.tree(root) == before


def test_memory_of_an_import_and_of_an_export_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(split_writer, "ROWS_PER_SHARD", 64)
    monkeypatch.setattr(rows, "BATCH", 64)
    peaks = []
    for times in (1, 2, 9):  # once to import modules; the features of 280 more rows are 2.3 MB
        held = posetrack(img_name=None)
        held = {name: np.concatenate([values] * times) for name, values in held.items()}
        held["vid_name"] = np.repeat([f"v{k}" for k in range(4 * times)], 10)
        joblib.dump(held, tmp_path / "db.pt")
        split = tmp_path / f"{times}", "posetrack/train"
        jobs = (
            functools.partial(import_database, tmp_path / "db.pt", *split),
            functools.partial(export, *split, tmp_path / f"{times}.pt"),
        )
        peaks.append([memory_peak(job) for job in jobs])
    assert (np.subtract(peaks[2], peaks[1]) < 1e6).all(), peaks


def test_provenance_of_other_content_is_refused(tmp_path):
    joblib.dump(posetrack(), tmp_path / "db.pt")
    content = {"sha256": "0" * 64, "stand_in": False}
    for text in (json.dumps(content), "{", "[]"):
        (tmp_path / "db.pt.provenance.json").write_text(text)
        with pytest.raises(RawDataError):
            import_database(tmp_path / "db.pt", tmp_path / "cache", "posetrack/train")
