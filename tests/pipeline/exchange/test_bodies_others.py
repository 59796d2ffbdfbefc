"""Known files of other kinds are refused by name, in one line."""

import h5py
import joblib
import numpy as np
import pytest
import torch

from pipeline.errors import RawDataError
from pipeline.exchange.bodies.tools import read_estimates

N = 4
DICTS = {
    "GEM-X": {"body_params_incam": {"body_pose": np.zeros((N, 228))}, "K_fullimg": np.eye(3)},
    "SAM 3D Body's": [{"mhr_model_params": np.zeros(204), "pred_cam_t": np.zeros(3)}],
    "wham_api": {0: {"poses_body": np.zeros((N, 23, 3, 3)), "frame_id": np.arange(N)}},
    "WHAM's detections": {
        1: {"bbox": np.zeros((N, 3)), "keypoints": np.zeros(N), "frame_id": np.arange(N)}
    },
    "GVHMR's boxes": {"bbx_xyxy": np.zeros((N, 4)), "bbx_xys": np.zeros((N, 3))},
    "TRAM's camera": {"img_focal": 1.0, "img_center": np.zeros(2)},
    "--format vibe": {"vid_name": np.zeros(N), "features": np.zeros((N, 2048))},
    "a robot's motion (GMR)": {
        "fps": 30,
        "root_pos": np.zeros((N, 3)),
        "root_rot": np.zeros((N, 4)),
        "dof_pos": np.zeros((N, 29)),
    },
    "a robot's motion (ASAP)": {
        "walk": {"pose_aa": np.zeros(N), "root_trans_offset": np.zeros(N), "dof": np.zeros(N)}
    },
    "a motion for PHC": {
        "walk": {"pose_aa": np.zeros((N, 72)), "root_trans_offset": np.zeros((N, 3)), "fps": 30}
    },
    "AIST++": {
        "smpl_poses": np.zeros((N, 72)),
        "smpl_scaling": np.ones(1),
        "smpl_trans": np.zeros((N, 3)),
    },
    "GLAMR's results": {"person_data": {0: {"smpl_pose": np.zeros((N, 69))}}, "meta": {}},
    "dict with x": {"x": 1},
    "list with no keys": [],
}
ARCHIVES = {
    "BEAT2 or EMAGE": {"poses": 0, "betas": 0, "expressions": 0, "mocap_frame_rate": 30},
    "as ROMP's": {"results": {"smpl_thetas": np.zeros((1, 72))}},
    "import its hmr4d_results.pt": {"smpl_params_incam": {}, "K_fullimg": np.eye(3)},
    "import GVHMR's hmr4d_results.pt": {"body_pose": 0, "global_orient": 0, "transl": 0},
    "a motion in AMASS's form": {"poses": np.zeros((N, 66)), "betas": 0, "trans": 0},
    "an archive with a, b": {"a": 0, "b": 1},
}
ARRAYS = {
    "Motion-X": np.zeros((N, 322)),
    "joints of HumanML3D": np.zeros((N, 22, 3)),
    "features of HumanML3D": np.zeros((N, 263)),
    "an array of shape (4, 5)": np.zeros((N, 5)),
}
TEXTS = {
    "DeepLabCut": ("walk.csv", "scorer,DLC_resnet50\nbodyparts,nose,nose\ncoords,x,y\n"),
    "BVH": ("walk.bvh", "HIERARCHY\nROOT Hips\n{\n"),
    "TRC": ("walk.trc", "PathFileType\t4\t(X/Y/Z)\twalk.trc\n"),
    "OpenSim": ("walk.mot", "Coordinates\nversion=1\nnRows=4\nnColumns=2\ninDegrees=yes\n"),
    "C3D": ("walk.c3d", "\2P\1\0"),
    "CVAT's XML": ("annotations.xml", '<?xml version="1.0"?>\n<annotations><track/>'),
    "Label Studio": ("export.json", '[{"id": 1, "annotations": [{"result": []}]}]'),
    "COCO's JSON": ("coco.json", '{"licenses": [], "info": {}, "categories": []}'),
    "a file of another kind": ("notes.txt", "some notes"),
    "empty": ("empty.pkl", ""),
}


def refusal(file):
    with pytest.raises(RawDataError) as raised:
        list(read_estimates(file))
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("owner", DICTS)
def test_dicts(tmp_path, owner):
    file = tmp_path / "results.pkl"
    joblib.dump(DICTS[owner], file)
    assert owner in refusal(file)
    if isinstance(DICTS[owner], dict):
        np.save(tmp_path / "results.npy", DICTS[owner])
        assert owner in refusal(tmp_path / "results.npy")


def test_torchs_files(tmp_path):
    file = tmp_path / "bbx.pt"
    torch.save({"bbx_xyxy": torch.zeros(N, 4), "bbx_xys": torch.zeros(N, 3)}, file)
    assert "GVHMR's boxes" in refusal(file)
    torch.save(torch.zeros(N, 17, 3), file)  # vitpose.pt
    assert "ndarray with no keys" in refusal(file)


@pytest.mark.parametrize("owner", ARCHIVES)
def test_archives(tmp_path, owner):
    np.savez(tmp_path / "results.npz", **ARCHIVES[owner])
    assert owner in refusal(tmp_path / "results.npz")


@pytest.mark.parametrize("owner", ARRAYS)
def test_arrays(tmp_path, owner):
    np.save(tmp_path / "results.npy", ARRAYS[owner])
    assert owner in refusal(tmp_path / "results.npy")


@pytest.mark.parametrize("owner", TEXTS)
def test_texts(tmp_path, owner):
    name, content = TEXTS[owner]
    (tmp_path / name).write_text(content)
    assert owner in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("keys", "owner"),
    [(("tracks", "node_names", "point_scores"), "SLEAP"), (("df_with_missing",), "DeepLabCut")],
)
def test_hdf5(tmp_path, keys, owner):
    with h5py.File(tmp_path / "labels.h5", "w") as content:
        for key in keys:
            content[key] = np.zeros(N)
    assert owner in refusal(tmp_path / "labels.h5")
