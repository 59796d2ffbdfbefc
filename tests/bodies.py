"""The stand-in body, made once a process: that takes a third of a second."""

import functools

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pipeline.people.body import Body

the_body = functools.cache(Body.stand_in)


def posed(body, pose, betas, trans=(0, 0, 0)):
    """What a body gives for poses (n, 72) rad; shapes and translations m are of each pose or of
    all.
    """
    turns = Rotation.from_rotvec(np.asarray(pose, np.float64).reshape(-1, 3)).as_matrix()
    turns = turns.reshape(-1, 24, 3, 3)
    shapes, shifts = (
        np.broadcast_to(values, (len(turns), n)) for values, n in ((betas, 10), (trans, 3))
    )
    tensors = (torch.tensor(np.array(values)).float() for values in (shapes, turns, shifts))
    with torch.no_grad():
        return body(**dict(zip(("betas", "rotmat", "trans"), tensors, strict=True)))
