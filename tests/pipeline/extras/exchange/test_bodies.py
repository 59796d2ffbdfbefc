"""Results of body estimators: files of exactly the tools' keys and containers, of a planted scene."""

import contextlib
import os
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from pipeline.errors import RawDataError, UnsafePickle
from pipeline.extras.exchange.bodies.estimate import BodyEstimate, pinhole
from pipeline.extras.exchange.bodies.matching import NOTED, fit
from pipeline.extras.exchange.bodies.tools import _ResultDict, read_estimates
from pipeline.extras.exchange.pickled_arrays import load_results
from tests.hostile import Call
from tests.pipeline.extras.exchange import planted_bodies as planted
from tests.raising import raw_refuses


def smpl():
    """The first planted person, exactly."""
    frames = np.arange(planted.N)
    pose = planted.pose(0)
    return BodyEstimate(
        tool="WHAM",
        person="0",
        frames=frames,
        pose=pose,
        betas=planted.betas(0),
        trans=planted.trans(0),
    )


def posed(estimate):
    return planted.smpl().posed_joints(estimate.pose, estimate.betas)[0]


def fitted(estimate):
    """Compared with the first person."""
    return fit(estimate, posed(estimate), [planted.keypoints(0)], planted.SIZE)


@pytest.mark.parametrize(("every", "fps"), [(1, 30.0), (1, 60.0), (2, 119.9)])
def test_prompthmrs_smaller_and_fewer_pictures_are_undone(tmp_path, every, fps):
    """Trap 8: at 120 frames a second, its frame k is 2k + 1."""
    file = planted.write(tmp_path, "prompthmr", planted.prompthmr(every=every))
    people = [estimate.convert_to_clip(planted.SIZE, fps) for estimate in read_estimates(file)]
    assert len(people) == 2
    for person, estimate in enumerate(people):
        assert estimate.dropped == {"not detected": 1}
        assert estimate.pose.shape[1] == 165
        frames = np.delete(np.arange(every - 1, planted.N, every), 3)
        assert_array_equal(estimate.frames, frames)
        turned = np.abs(estimate.pose[:, 3:66] - planted.pose(person)[frames, 3:66])
        assert turned.max() < 1e-5
        camera = pinhole(planted.DIAGONAL, planted.SIZE)
        assert_allclose(estimate.pixel_intrinsics(planted.SIZE), camera)


def test_ghosts_of_phalp_are_counted_and_left_out(tmp_path):
    """Trap 5, and the size of its README, which is height and width (trap 6)."""
    first, second = read_estimates(planted.write(tmp_path, "phalp"))
    assert (len(first.frames), len(second.frames)) == (planted.N, planted.N - 3)
    assert second.dropped == {"ghost": 3}
    for person, estimate in enumerate((first, second)):
        rows = estimate.frames
        assert_allclose(estimate.pose[:, 3:], planted.pose(person)[rows, 3:], atol=1e-5)
        assert_allclose(estimate.betas, planted.betas(person)[rows], atol=1e-5)
    assert first.size == planted.SIZE


@pytest.mark.parametrize(("margin", "of"), [(1.1, "VIBE"), (1.0, "TCMR")])
def test_the_margin_of_the_crop_is_told_by_projection(tmp_path, margin, of):
    """Trap 10."""
    file = planted.write(tmp_path, "vibe", planted.vibe(margin))
    found = fitted(next(read_estimates(file)))
    assert (found.margin, found.cause) == (margin, ""), of
    assert found.distance < 0.01


def test_repeated_frames_of_a_variable_rate_count_once(tmp_path):
    frames = np.r_[0, 0, np.arange(planted.N - 2)]
    file = planted.write(tmp_path, "wham", planted.wham(frame_ids=np.sort(frames)))
    first = next(read_estimates(file))
    assert (np.diff(first.frames) > 0).all()
    assert first.dropped == {"repeated frame": 2}


@pytest.mark.parametrize("tool", ["gvhmr", "prompthmr"])
def test_a_result_without_one_of_its_keys_is_refused_by_that_key(tmp_path, tool):
    content = getattr(planted, tool)()
    key = list(content)[-1]
    del content[key]
    with raw_refuses(f"without '{key}'"):
        next(read_estimates(planted.write(tmp_path, tool, content)))


def test_another_programs_npz_is_named_without_the_advice_to_copy_it(tmp_path):
    wholes = {
        "SAM 3D Body's results, of MHR's body": {"mhr_model_params": np.zeros(204)},
        "an npz of `results`, as ROMP's: pickles": {"results": np.zeros(1)},
    }
    for owner, arrays in wholes.items():
        np.savez(tmp_path / "a.npz", **arrays)
        with raw_refuses(rf"found {owner}\. docs/results\.md has those"):
            next(read_estimates(tmp_path / "a.npz"))


def test_openposes_joints_are_compared_too():
    """They have other places among the 49 than COCO's."""
    seen = planted.keypoints(0)
    seen.kp_2d[:, 25:, 2] = 0
    found = fit(smpl(), posed(smpl()), [seen], planted.SIZE)
    assert found.distance < 1e-4


def test_a_lying_body_of_another_frame_has_no_known_cause():
    """Trap 3: values of the world under the camera's name."""
    right = smpl()
    lying = right.pose.copy()
    lying[:, :3] = [0, 0, np.pi / 2]
    found = fitted(replace(right, pose=lying))
    assert found.distance > NOTED


def test_no_cause_is_a_negative_size():
    """Bodies left of and above the image, where no resized image has them."""
    aside = replace(smpl(), trans=planted.trans(0) - [6, 2, 0])
    assert fitted(aside).cause == "no known cause"


def test_the_clip_is_the_folder_or_phalps_file_up_to_the_first_dot():
    """Trap 11."""
    for tool, file in (
        ("GVHMR", "results/walk/hmr4d_results.pt"),
        ("PHALP", "results/demo_walk.v2.pkl"),
        ("TRAM", "results/walk/hps/hps_track_0.npy"),
    ):
        assert replace(smpl(), tool=tool).clip_of(Path(file)) == "walk"


@pytest.mark.parametrize("tool", ["wham", "phalp", "gvhmr", "tram", "prompthmr"])
def test_no_code_of_a_file_runs(tmp_path, tool):
    ran = tmp_path / "ran"
    call = Call(os.mkdir, str(ran))
    if tool == "tram":
        (file,) = planted.write_tram(tmp_path, [{"pred_rotmat": call}])
    else:
        file = planted.write(tmp_path, tool, {"smpl_params_incam": call})
    with pytest.raises(UnsafePickle):
        list(read_estimates(file))
    assert not ran.exists()


def refuses(file, told=None):
    with raw_refuses(told):
        list(read_estimates(file))


NUMBERS = torch.storage.TypedStorage(
    wrap_storage=torch.arange(4.0).untyped_storage(), dtype=torch.float32, _internal=True
)


def tensor(offset, shape, steps, storage=NUMBERS):
    """A tensor with any shape and steps, of 4 numbers."""
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, storage, offset, shape, steps, False, {})


OUTSIDE = [
    (0, (5,), (1,)),
    (3, (2,), (1,)),
    (0, (2, 2), (3, 1)),
    (-1, (2,), (1,)),
    (2, (2,), (-1,)),
    (0, (1 << 40, 72), (0, 0)),
    (0, (1 << 40,), (0,)),
]


@pytest.mark.parametrize("place", OUTSIDE)
def test_a_tensor_stays_within_its_storage(tmp_path, place):
    (file,) = planted.write_tram(tmp_path, [planted.tram(0, pred_shape=tensor(*place))])
    refuses(file, "a tensor of shape")


def test_a_tensor_is_no_storage(tmp_path):
    """The numbers of the last of 4 numbers, 4 times, would be beyond the file."""
    nested = tensor(0, (4,), (1,), storage=tensor(3, (4,), (0,)))
    (file,) = planted.write_tram(tmp_path, [planted.tram(0, pred_shape=nested)])
    refuses(file, "something else than a storage")


@pytest.mark.parametrize("kind", ["float64", "float16", "int16", "uint8", "bool"])
@pytest.mark.parametrize("tool", ["gvhmr", "prompthmr"])
def test_tensors_of_other_numbers_are_read(tmp_path, tool, kind):
    content = getattr(planted, tool)()
    content["net_outputs"] = torch.ones(2, 3, dtype=getattr(torch, kind))
    read = load_results(planted.write(tmp_path, tool, content))["net_outputs"]
    assert read.dtype == kind
    assert (read == 1).all()


def test_parts_of_a_tensor_are_read(tmp_path):
    part = torch.arange(24.0).reshape(4, 6)[1::2, 2:]
    (file,) = planted.write_tram(tmp_path, [{"part": part}])
    assert_array_equal(load_results(file)["part"], part)


@pytest.mark.parametrize("tool", ["gvhmr", "tram", "prompthmr", "wham", "phalp"])
def test_cut_and_damaged_files_raise_errors_of_ours(tmp_path, tool):
    file = planted.files_of(tmp_path, tool)[0]
    content = file.read_bytes()
    for part in (20, len(content) // 3, len(content) - 30):
        file.write_bytes(content[:part])
        refuses(file)
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged)
        with contextlib.suppress(RawDataError, UnsafePickle):
            list(read_estimates(file))


def test_an_archive_that_unpacks_to_more_is_refused(tmp_path):
    file = planted.write(tmp_path, "gvhmr")
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry + bytes(100_000))
    refuses(file, "a compressed archive")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"pose": np.full((planted.N, 72), np.nan)}, "'3.pose': .*NaN"),
        ({"pose": np.zeros((planted.N, 75))}, "'3.pose': .*75"),
        ({"betas": None}, "3.betas"),
        ({"frame_ids": np.arange(planted.N)[::-1]}, "'3.frame_ids': .*ascending"),
        ({"frame_ids": np.arange(planted.N) + 0.5}, r"'3.frame_ids': .*whole .* found \[0\.5"),
    ],
)
def test_other_numbers_are_refused_with_their_key(tmp_path, changed, told):
    file = planted.write(tmp_path, "wham", planted.wham(**changed))
    refuses(file, told)


def test_pictures_without_a_key_are_refused(tmp_path):
    for key in ("tid", "camera", "time", "smpl"):
        content = planted.phalp()
        del content[f"outputs/_DEMO/walk/img/{2:06d}.jpg"][key]
        refuses(planted.write(tmp_path, "phalp", content), key)


def test_matrices_that_do_not_turn_are_refused(tmp_path):
    zeros = torch.zeros(planted.N, 24, 3, 3)
    (file,) = planted.write_tram(tmp_path, [planted.tram(0, pred_rotmat=zeros)])
    refuses(file, "pred_rotmat': expected rotations")


@pytest.mark.parametrize(
    "content", [zlib.compress(bytes(10_000_000), 9), b"\x78\x9c", b"", b"GIF8"]
)
def test_files_of_zeros_and_cut_ones_are_refused(tmp_path, content):
    file = tmp_path / "demo_walk.pkl"
    file.write_bytes(content)
    refuses(file)


def test_rows_that_are_left_out_twice_for_one_reason_are_all_counted():
    once = smpl().only(np.arange(5), "repeated frame")
    twice = once.only(np.arange(3), "repeated frame")
    n = len(smpl().frames)
    assert twice.dropped == {"repeated frame": n - 3}
    assert len(twice.frames) == len(twice.pose) == len(twice.betas) == len(twice.trans) == 3


def test_rotations_of_no_given_shape_are_one_of_each_row(tmp_path):
    entry = _ResultDict(tmp_path / "results.pkl", "", {"turns": np.tile(np.eye(3), (4, 1, 1))})
    assert_array_equal(entry.rotation_vectors("turns"), np.zeros((4, 3)))
