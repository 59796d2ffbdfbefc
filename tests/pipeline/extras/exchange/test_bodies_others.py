"""Known files of other kinds are refused by name, in one line: of each container a few."""

import h5py
import joblib
import numpy as np
import pytest
import torch

from pipeline.errors import RawDataError
from pipeline.extras.exchange.bodies.tools import read_estimates

N = 4


def write_hdf5(file, keys):
    with h5py.File(file, "w") as content:
        for key in keys:
            content[key] = np.zeros(N)


WRITERS = {
    ".pkl": lambda file, content: joblib.dump(content, file),
    ".pt": lambda file, content: torch.save(content, file),
    ".npy": lambda file, content: np.save(file, content),
    ".npz": lambda file, content: np.savez(file, **content),
    ".h5": write_hdf5,
}
OTHERS = [  # ending, content, whose it is
    (".pkl", {"body_params_incam": {"body_pose": np.zeros((N, 228))}}, "GEM-X"),
    (".pkl", [{"mhr_model_params": np.zeros(204)}], "SAM 3D Body's"),
    (".pkl", {0: {"poses_body": np.zeros(N), "frame_id": np.arange(N)}}, "wham_api"),
    (".pkl", [], "list with no keys"),
    (".pt", torch.zeros(N, 17, 3), "ndarray with no keys"),
    (".npz", {"results": {"smpl_thetas": np.zeros((1, 72))}}, "as ROMP's"),
    (".npy", np.zeros((N, 22, 3)), "joints of HumanML3D"),
    (".c3d", "\2P\1\0", "C3D"),
    (".h5", ["tracks", "node_names", "point_scores"], "SLEAP"),
]


@pytest.mark.parametrize(("ending", "content", "owner"), OTHERS)
def test_another_kind_of_file_is_named(tmp_path, ending, content, owner):
    file = tmp_path / f"results{ending}"
    if isinstance(content, str):
        file.write_text(content)
    else:
        WRITERS[ending](file, content)
    with pytest.raises(RawDataError) as raised:
        list(read_estimates(file))
    assert owner in str(raised.value)
    assert "\n" not in str(raised.value)
