"""SMPL's equations, one body at a time."""

import numpy as np


def smpl_paper(arrays, betas, rotations):
    """Loper et al. 2015, equations 2-4 and 8-10, one body, float64, with 4 x 4 matrices: (verts, 24
    joints).
    """
    shaped = arrays.v_template + np.einsum("vci,i->vc", arrays.shapedirs, betas)  # T + B_S
    rest = arrays.J_regressor @ shaped  # J(beta)
    # B_P
    corrective = np.einsum(
        "vci,i->vc", arrays.posedirs.astype(float), (rotations[1:] - np.eye(3)).ravel()
    )
    world = []
    for joint, parent in enumerate(arrays.parents):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = rest[joint] - (rest[parent] if joint else 0)
        world.append(world[parent] @ local if joint else local)
    relative = []
    for matrix, place in zip(world, rest, strict=True):
        away = np.eye(4)
        away[:3, 3] = -place
        relative.append(matrix @ away)  # G'
    blended = np.einsum("vj,jab->vab", arrays.weights, np.stack(relative))
    points = np.concatenate([shaped + corrective, np.ones((len(shaped), 1))], axis=1)
    return np.einsum("vab,vb->va", blended, points)[:, :3], np.stack(
        [matrix[:3, 3] for matrix in world]
    )
