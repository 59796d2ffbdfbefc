"""Small bodies of random numbers in SMPL-X's file format."""

import numpy as np

N_VERTICES, N_JOINTS = 60, 55
PARENTS = np.array([-1, *np.random.default_rng(3).integers(0, np.arange(1, N_JOINTS))])


def made_model(seed):
    """With 300 shape components and 100 of the expression."""
    rng = np.random.default_rng(seed)
    weights = rng.random((N_VERTICES, N_JOINTS)) ** 8
    regressor = rng.random((N_JOINTS, N_VERTICES)) ** 8
    kintree = np.stack([PARENTS, np.arange(N_JOINTS)]) % 2**32
    return {
        "v_template": rng.normal(0, (0.2, 0.5, 0.1), (N_VERTICES, 3)),
        "shapedirs": rng.normal(0, 0.02, (N_VERTICES, 3, 400)),
        "posedirs": rng.normal(0, 0.002, (N_VERTICES, 3, 9 * (N_JOINTS - 1))),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "kintree_table": kintree.astype(np.uint32),
        "hands_meanl": rng.normal(0, 0.3, 45),
        "hands_meanr": rng.normal(0, 0.3, 45),
        "hands_componentsl": rng.normal(0, 0.3, (45, 45)),
        "hands_componentsr": rng.normal(0, 0.3, (45, 45)),
        "joint2num": np.array({"pelvis": 0}, object),  # as in the official files: never unpickled
    }


def write_models(folder):
    """The files of both genders; what they hold, by gender."""
    models = {gender: made_model(seed) for seed, gender in enumerate(("male", "female"))}
    for gender, model in models.items():
        np.savez(folder / f"SMPLX_{gender.upper()}.npz", **model)
    return models
