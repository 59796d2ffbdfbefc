"""Estimated bodies become labels of the people whom they lie on, and stay marked."""

import functools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cache
from pipeline.__main__ import main
from pipeline.errors import StandInMixed
from pipeline.extras.exchange.bodies.importing import import_bodies
from pipeline.extras.exchange.bodies.matching import SMPLX_PELVIS
from pipeline.people.cameras import project
from pipeline.people.estimates import estimates_of, fits_of
from tests.made_splits import write_split, write_stream
from tests.pipeline.extras.exchange import planted_bodies as planted
from tests.pipeline.extras.exchange.planted_bodies import NAME, run, write_clips
from tests.raising import pipeline_refuses, raw_refuses
from tests.vibe_model.builders import SMALL
from vibe_model.training.data import TrainingBatches
from vibe_model.vibe.config import TrainConfig

COLUMNS = ("frame_index", "bbox", "kp_2d")


@pytest.fixture(scope="module")
def usual_clips(tmp_path_factory):
    """Only to be copied."""
    root = tmp_path_factory.mktemp("usual") / "clips"
    write_clips(root)
    return root


@pytest.fixture(autouse=True)
def clips(request, usual_clips, tmp_path):
    changed = getattr(request, "param", {})
    if changed:
        write_clips(tmp_path / "clips", **changed)
    else:
        shutil.copytree(usual_clips, tmp_path / "clips")


class Imported(NamedTuple):
    """A tool's files of the clip `walk`, and the split with their bodies."""

    done: object
    split: cache.Split
    files: list[Path]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """By tool. Only to be read."""

    @functools.cache
    def of(tool):
        folder = tmp_path_factory.mktemp(tool)
        write_clips(folder / "clips")
        files = planted.files_of(folder, tool)
        done = run(folder, *files)
        assert not run(folder, *files).is_written
        return Imported(done, cache.open(folder / "c")[NAME], files)

    return of


def rows_of(split, track, *names):
    return [split.rows(name, track.start, track.stop) for name in names]


def off(found, expected):
    """The largest difference."""
    return np.abs(found - expected).max()


@pytest.mark.parametrize("tool", ["wham", "vibe", "tram"])
def test_bodies_go_to_the_people_whom_they_lie_on(imported, tool):
    """With the camera of their rows, by what is in the cache alone."""
    done, split, files = imported(tool)
    assert done.with_body == 2 * planted.N
    for track in split.tracks:
        pose, betas, trans, intrinsics, kp_2d, has_smpl, valid, smplx = rows_of(
            split, track, "pose", "betas", "trans", "intrinsics", "kp_2d", "has_smpl", "valid",
            "smplx_pose",
        )  # fmt: skip
        assert not valid.any() and np.isnan(smplx).all()
        is_walk = track.video == "walk.mp4"
        assert (has_smpl == is_walk).all()
        assert (np.isfinite(intrinsics[:, 0, 0]) == is_walk).all()
        fits = fits_of(split.videos[0].account, track.name)
        assert len(fits) == is_walk
        if not is_walk:
            continue
        person = int(track.name[-1])
        assert off(pose[:, 3:], planted.pose(person)[:, 3:]) < 1e-5
        assert off(trans, planted.trans(person)) < 1e-3
        in_camera = planted.smpl().posed_joints(pose, betas)[0] + trans[:, None]
        pixels = project(in_camera, intrinsics[:, None])
        assert np.abs(pixels - kp_2d[..., :2])[kp_2d[..., 2] > 0].max() < 0.5
        assert (fits[0].distance < 0.002, fits[0].cause) == (True, "")
    recorded = split.manifest["reader"]["imported"]["estimates"]["walk.mp4"]["files"]
    cameras = ["camera.npy"] if tool == "tram" else []
    assert [*recorded] == sorted([*cameras, *(file.name for file in files)])


def test_a_body_beside_the_person_is_that_far_off(tmp_path):
    wham = planted.wham()
    for person in wham.values():
        person["trans"] = person["trans"] + [0.15, 0, 0]
    run(tmp_path, planted.write(tmp_path, "wham", wham))
    (fit,) = fits_of(cache.open(tmp_path / "c")[NAME].videos[0].account, "walk.mp4/0")
    assert 0.05 < fit.distance < 0.15


@pytest.mark.parametrize("tool", ["gvhmr", "prompthmr"])
def test_bodies_of_smplx_have_columns_of_their_own(imported, tool):
    """Trap 2, and trap 8."""
    done, split, _ = imported(tool)
    n_people = 1 if tool == "gvhmr" else 2
    rows = np.arange(planted.N) if tool == "gvhmr" else np.delete(np.arange(planted.N), 3)
    assert done.with_body == n_people * len(rows)
    for track in split.tracks:
        smpl, pose, betas, trans = rows_of(
            split, track, "pose", "smplx_pose", "smplx_betas", "smplx_trans"
        )
        assert np.isnan(smpl).all()
        person = int(track.name[-1])
        if track.video != "walk.mp4" or person >= n_people:
            assert np.isnan(pose[:, 0]).all()
            continue
        assert (np.flatnonzero(np.isfinite(pose[:, 0])) == rows).all()
        assert off(pose[rows, 3:66], planted.pose(person)[rows, 3:66]) < 1e-5
        hands = planted.HANDS if tool == "gvhmr" else np.zeros(90)
        assert_allclose(pose[rows, 75:], np.tile(hands, (len(rows), 1)), rtol=1e-6)
        assert off(betas[rows, :10], planted.betas(person)[rows]) < 1e-6
        assert not betas[rows, 10:].any()
        assert off(trans[rows] + SMPLX_PELVIS, planted.trans(person)[rows]) < 1e-5
    assert not split.column("valid")[:].any()
    assert not split.column("has_smpl")[:].any()


@pytest.mark.parametrize("tool", ["wham", "tram", "gvhmr", "prompthmr"])
def test_the_world_of_a_body_is_in_its_rows(imported, tool):
    """Traps 1, 4, 9 and 12: places are of the mid-hip, bodies turn about the pelvis, `Twc` is
    wrong, and worlds of WHAM and GVHMR are one person's.
    """
    split, column = imported(tool).split, "smplx_pose" if "hmr" in tool else "pose"
    n_with_world = 0
    for track in split.tracks:
        to_camera, pose = rows_of(split, track, "extrinsics", column)
        has_world = np.isfinite(to_camera[:, 0, 0])
        assert_array_equal(has_world, np.isfinite(pose[:, 0]))
        expected = planted.extrinsics()[has_world]
        assert_allclose(to_camera[has_world], expected, atol=2e-5)
        if has_world.any():
            n_with_world += 1
            assert_array_equal(track.extra.get("up"), [0, 1, 0])
    assert n_with_world == (1 if tool == "gvhmr" else 2)


def test_a_world_with_fewer_pictures_than_the_person_is_refused(tmp_path):
    camera = planted.tram_camera()
    for key in ("world_cam_R", "world_cam_T"):
        camera[key] = camera[key][:5]
    files = planted.write_tram(tmp_path, camera=camera)
    with raw_refuses("'world_cam_R': expected one for each of 12 frames"):
        run(tmp_path, *files)


@pytest.mark.parametrize("clips", [{"confidence": 0.1}], indirect=True)
def test_a_person_without_sharp_joints_is_told_unchecked(tmp_path):
    done = run(tmp_path, planted.write(tmp_path, "wham"))
    assert done.with_body == 0
    assert "not checked" in done.notes["walk.mp4"][0]


def test_results_of_no_clip_are_refused(tmp_path):
    file = planted.write(tmp_path, "wham")
    moved = file.parent.rename(tmp_path / "run") / file.name
    with raw_refuses("'run'"):
        run(tmp_path, moved)


@pytest.mark.parametrize("clips", [{"name": "walk.v2.mp4"}], indirect=True)
@pytest.mark.parametrize(("tool", "folder"), [("wham", "walk.v2"), ("prompthmr", "walk")])
def test_clips_with_dots_are_known_as_the_tools_shorten_them(tmp_path, tool, folder):
    """Trap 11."""
    done = run(tmp_path, planted.write(tmp_path, tool, clip=folder))
    assert done.with_body > planted.N


def test_a_clip_that_is_gone_takes_its_bodies_with_it(tmp_path):
    walk = planted.write(tmp_path, "wham")
    content = planted.wham()
    del content[4]
    other = planted.write(tmp_path, "wham", content, clip="other")
    assert run(tmp_path, walk, other).with_body == 3 * planted.N
    with pipeline_refuses(r"lost, of walk\.mp4: wham_output\.pkl, which is not"):
        run(tmp_path, other)
    write_split(tmp_path / "clips", NAME, [], drop=["walk.mp4"], columns=COLUMNS)
    assert run(tmp_path, other).clips == 0
    split = cache.open(tmp_path / "c")[NAME]
    assert [track.video for track in split.tracks] == ["other.mp4"]
    assert split.rows("has_smpl", split.tracks[0].start, split.tracks[0].stop).all()
    assert not run(tmp_path, other).is_written


def test_a_killed_import_goes_on_and_other_settings_of_clips_write_all_anew(
    small_shards, tmp_path, monkeypatch
):
    file = planted.write(tmp_path, "wham")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(cache.NextCommit, "commit", lambda *_: 1 / 0)
        run(tmp_path, file)
    assert run(tmp_path, file).with_body == 2 * planted.N
    changed = {"reader": {"version": 9}, "stand_in": True}
    write_split(tmp_path / "clips", NAME, [], changed, columns=COLUMNS)
    assert run(tmp_path, file).clips == 2


def test_splits_of_another_origin_are_not_written_over(tmp_path):
    file = planted.write(tmp_path, "wham")
    with pipeline_refuses(r"not made of such files.*own is not changed"):
        import_bodies([file], tmp_path / "clips", tmp_path / "clips", NAME, planted.models())
    run(tmp_path, file)
    with pipeline_refuses("other labels than 2D joints"):
        import_bodies([file], tmp_path / "c", tmp_path / "d", NAME, planted.models())


def test_demo_bodies_are_for_demo_clips_alone(tmp_path):
    write_split(tmp_path / "clips", NAME, [], {"stand_in": False}, columns=COLUMNS)
    with pytest.raises(StandInMixed, match="demo data"):
        run(tmp_path, planted.write(tmp_path, "wham"))


def test_an_exported_database_of_estimates_is_imported_as_estimates(tmp_path):
    run(tmp_path, planted.write(tmp_path, "wham"))
    root = tmp_path / "c"
    write_stream(
        root, NAME, "resnet50", lambda rows: np.zeros((len(rows), 2048), np.float32), dim=2048
    )
    database = tmp_path / "db.pt"
    words = ["export", "videos/train", "--cache", str(root), "--format", "vibe", "--out"]
    assert main([*words, str(database)]) == 0
    again = tmp_path / "again"
    assert main(["import", str(database), "videos/train", "--cache", str(again)]) == 0
    assert estimates_of(cache.open(again)[NAME]) == "estimates of WHAM"


def test_training_takes_bodies_of_named_splits_alone(tmp_path):
    run(tmp_path, planted.write(tmp_path, "wham"))
    root = tmp_path / "c"
    write_stream(root, NAME, "resnet50", lambda rows: np.zeros((len(rows), 6), np.float32), dim=6)
    splits = {NAME: cache.open(root)[NAME]}
    config = TrainConfig(
        datasets_2d=(NAME,),
        datasets_3d=(),
        prior="none",
        validation=(NAME,),
        evaluation=(),
        seqlen=4,
        batch_size=9,
        iterations=1,
        epochs=1,
        **SMALL,
    )
    labels = TrainingBatches(config, splits)[0].labels
    assert labels["kp_2d"].any()
    assert not labels["theta"].any()
    assert not labels["w_smpl"].any()
    named = replace(config, datasets_2d=(), datasets_3d=(NAME,))
    labels = TrainingBatches(named, splits)[0].labels
    assert labels["w_smpl"].any()


def test_a_damaged_split_names_the_files_of_its_damaged_clips(tmp_path, capsys):
    run(tmp_path, *planted.write_tram(tmp_path))
    (shard,) = [
        file for file in (tmp_path / "c" / NAME / "pose" / "c").rglob("*") if file.is_file()
    ]
    shard.write_bytes(bytes(shard.stat().st_size))
    assert main(["verify", "--repair", "--cache", str(tmp_path / "c")]) == 1
    printed = capsys.readouterr()
    told = " ".join((printed.out + printed.err).split())
    for file in ("camera.npy", "hps_track_0.npy", "hps_track_1.npy"):
        assert f"walk.mp4: {file}" in told
    assert "other.mp4:" not in told
