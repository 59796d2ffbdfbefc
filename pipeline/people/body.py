"""SMPL as a torch module: shape and rotations -> vertices and spin49 joints.  raw -> tracks;
training; evaluation

In come the arrays of SMPL's files, read by `formats.smpl_files`; smplx poses the body from them,
because smplx itself would unpickle the files. Out go modules: `Body`, with vertices and joints, and
`PosedJoints`, with joints alone and far faster. SMPL's licence forbids distribution, so the body's
data is kept out of checkpoints.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from smplx.body_models import SMPL
from torch import Tensor, nn

from pipeline import plug_ins, table
from pipeline.errors import PipelineError, require_option
from pipeline.people import smpl_files
from pipeline.people.skeletons import Doubles, Floats, Ints, correspondence
from pipeline.people.smpl_files import N_JOINTS, SmplArrays

JointOrder = Literal["spin49", "common14", "smpl"]
AT_ONCE: Final = 64  # bodies that `posed_joints` poses at once: their vertices are 5 MB


class PosedJoints(nn.Module):
    """Joints of posed bodies without their vertices: shape and rotations -> joints.

    SMPL has 24 joints, each at the head of a bone. Further joints, such as the nose, are regressed:
    each is a weighted sum of vertices. A vertex, in turn, is a weighted sum of the places to which
    the bones would move it. So a regressed joint is a sum over the bones of one point on each bone,
    moved with the bone. The sums over the vertices, which give these points, are done once in
    advance. This is exact for any regressor, with a hundredth of the work of skinning (Loper et al.
    2015, equations 2-4 and 8-10).

    regressors: (K, V), from posed vertices to further joints. take: the joints to return, in order:
    0 to 23 are SMPL's, then the regressed ones. Buffers are float32 and not persistent.
    """

    # (24,) SMPL's joints in the order of their depth in the tree: the root, its children, theirs.
    # Each depth is a level, whose bones are moved at once. In all that follows, bones are in this
    # order.
    by_depth: Tensor
    parent: Tensor  # (24,) index of each bone's parent in the level above
    # (11, 24 * 3) from (1, betas) to the joints at rest, m
    rest: Tensor
    # (11 + 207, 24 * 3 * K) from (1, betas, pose correctives) to the point of each regressed joint
    # on each bone, seen from the bone's joint, m
    points: Tensor
    share: Tensor  # (K, 24) how much of each regressed joint moves with each bone
    take: Tensor  # (J,) columns of SMPL's joints by depth and then the regressed ones

    def __init__(self, arrays: SmplArrays, regressors: Floats, take: Sequence[int]) -> None:
        super().__init__()
        levels, parent = _levels(arrays.parents.tolist())
        self._levels = [len(level) for level in levels]
        by_depth = np.concatenate(levels)

        surface = _rest_vertices(arrays, slice(None))
        rest = np.einsum("jv,vci->jci", arrays.J_regressor[by_depth], surface)  # (24, 3, 11)
        points, share = _bone_points(arrays, np.asarray(regressors, np.float64), by_depth, rest)
        # number of a joint, SMPL's or a regressed one -> its column in `forward`
        column_of = np.append(np.argsort(by_depth), np.arange(N_JOINTS, N_JOINTS + len(share)))
        _register(
            self,
            by_depth=torch.tensor(by_depth),
            parent=torch.tensor(parent),
            rest=torch.tensor(rest.reshape(-1, rest.shape[-1]).T.copy(), dtype=torch.float32),
            points=torch.tensor(points, dtype=torch.float32),
            share=torch.tensor(share, dtype=torch.float32),
            take=torch.tensor(column_of[list(take)]),
        )

    def forward(self, betas: Tensor, rotmat: Tensor) -> Tensor:
        """betas (B, 10), rotmat (B, 24, 3, 3) relative to parents -> (B, J, 3) m."""
        n = len(betas)
        # inputs of the linear maps
        shape = torch.cat((torch.ones_like(betas[:, :1]), betas), dim=1)  # (B, 11)
        identity = torch.eye(3, dtype=rotmat.dtype, device=rotmat.device)
        # SMPL bends the surface by how far each bone, but the root, is turned from rest.
        correctives = (rotmat[:, 1:] - identity).flatten(1)  # (B, 207)

        points = torch.cat((shape, correctives), dim=1) @ self.points  # (B, 24 * 3 * K)
        rest = (shape @ self.rest).view(n, N_JOINTS, 3)
        turned, joints = self._bones(rest, rotmat)

        # All bones side by side: one product turns a joint's points, and sums them over the bones.
        side_by_side = turned.transpose(1, 2).reshape(n, 3, N_JOINTS * 3)
        offsets = side_by_side @ points.view(n, N_JOINTS * 3, -1)  # (B, 3, K) from bones' joints
        regressed = offsets.transpose(1, 2) + self.share @ joints  # (B, K, 3)
        return torch.cat((joints, regressed), dim=1).index_select(1, self.take)

    def _bones(self, rest: Tensor, rotmat: Tensor) -> tuple[Tensor, Tensor]:
        """Pose the bones, one level of the tree after the other, each in its parent's frame.

        rest (B, 24, 3) m by depth, rotmat (B, 24, 3, 3) relative to parents -> rotations
        (B, 24, 3, 3) and joints (B, 24, 3) m in the body's frame, by depth.
        """
        local = torch.split(rotmat.index_select(1, self.by_depth), self._levels, dim=1)
        rests = torch.split(rest, self._levels, dim=1)
        parents = torch.split(self.parent, self._levels)
        turned = [local[0]]
        joints = [rests[0]]
        for level in range(1, len(self._levels)):
            turn = turned[-1].index_select(1, parents[level])  # the parents', (B, n, 3, 3)
            arm = rests[level] - rests[level - 1].index_select(1, parents[level])  # (B, n, 3)
            moved = turn @ torch.cat((local[level], arm[..., None]), dim=-1)  # (B, n, 3, 4)
            turned.append(moved[..., :3])
            joints.append(joints[-1].index_select(1, parents[level]) + moved[..., 3])
        return torch.cat(turned, dim=1), torch.cat(joints, dim=1)


def _levels(parents: Sequence[int]) -> tuple[list[list[int]], list[int]]:
    """The tree's joints level by level from the root, and for each of them the index of its parent
    in the level above (0 for the root).
    """
    level = [joint for joint, parent in enumerate(parents) if parent < 0]
    levels = []
    index_of_parent = [0]
    while level:
        levels.append(level)
        children = [joint for joint, parent in enumerate(parents) if parent in level]
        index_of_parent += [level.index(parents[joint]) for joint in children]
        level = children
    return levels, index_of_parent


def _rest_vertices(arrays: SmplArrays, vertices: slice | NDArray[np.intp]) -> Floats:
    """The linear map (v, 3, 11) from (1, betas) to some vertices at rest, m."""
    return np.concatenate(
        [arrays.v_template[vertices, :, None], arrays.shapedirs[vertices]], axis=2
    )


def _bone_points(
    arrays: SmplArrays, regressors: Floats, by_depth: Ints, rest: Floats
) -> tuple[Floats, Floats]:
    """`PosedJoints.points` (218, 24 * 3 * K) and `PosedJoints.share` (K, 24).

    rest: (24, 3, 11), from (1, betas) to the joints at rest, by depth.
    """
    points = []
    shares = []
    for regressor in regressors:
        used = np.flatnonzero(regressor)  # v vertices
        # (v, 24) how much of the joint is this vertex as this bone moves it
        weights = regressor[used, None] * arrays.weights[used][:, by_depth]
        # (v, 3, 218) from (1, betas, pose correctives) to these vertices before bones move them
        surface = np.concatenate([_rest_vertices(arrays, used), arrays.posedirs[used]], axis=2)
        point = np.tensordot(weights, surface, axes=(0, 0))  # (24, 3, 218)
        share = weights.sum(0)  # (24,)
        # a bone turns about its own joint
        point[..., : rest.shape[-1]] -= share[:, None, None] * rest
        points.append(point)
        shares.append(share)
    n_inputs = arrays.posedirs.shape[-1] + rest.shape[-1]  # 218
    stacked = np.zeros((N_JOINTS, 3, n_inputs, len(points)))
    for i, point in enumerate(points):
        stacked[..., i] = point
    by_input = np.moveaxis(stacked, 2, 0).reshape(n_inputs, -1)
    return by_input, np.reshape(shares, (len(points), N_JOINTS))


def rotations_of(pose: Floats) -> Tensor:
    """pose (N, 72) rad -> rotations (N, 24, 3, 3)."""
    matrices = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix()
    return torch.from_numpy(matrices).float().reshape(-1, smpl_files.N_JOINTS, 3, 3)


class BodyOutput(NamedTuple):
    """B posed bodies, in the frame of `trans`, metres."""

    verts: Tensor  # (B, 6890, 3)
    joints: Tensor  # (B, 49, 3) spin49


class _Smpl(SMPL):  # type: ignore[misc]  # smplx is untyped
    # smplx expects 300 shape directions and prints a warning for fewer; VIBE uses ten.
    SHAPE_SPACE_DIM = smpl_files.N_BETAS


class Gendered:
    """A body model of one gender, which has those of the other genders in the same folder."""

    read: Callable[..., Any]  # reads the arrays of a folder and a gender
    _of: Callable[[str], Any]  # makes the body of another gender

    @classmethod
    def load(cls, folder: Path | str, gender: str = "neutral") -> Self:
        """Load the body of one gender from `folder`. Raises what `read` raises."""
        make: Callable[..., Self] = cls

        @functools.cache
        def load_gender(gender: str) -> Any:
            return make(cls.read(folder, gender), load_gender)

        body: Self = load_gender(gender)
        return body

    def of(self, gender: str) -> Self:
        """The body of another gender from the same folder, loaded once. Raises what loading it
        raises.
        """
        body: Self = self._of(gender)
        return body

    def only(self, genders: Sequence[str], whose: str) -> Self:
        """This body, with an `of` that raises PipelineError for any other gender.

        A split's identity has the digests of the declared genders' files only.
        """

        def load_declared(gender: str) -> Any:
            if gender not in genders:
                declared = ", ".join(genders)
                raise PipelineError(
                    f"body.of({gender!r}): the property `genders` of {whose} has only "
                    f"{declared}. Add {gender!r}."
                )
            return self.of(gender)

        limited = copy.copy(self)
        limited._of = load_declared
        return limited


class Body(Gendered, nn.Module):
    """One gender's body model, float32, on one device. Its state_dict is empty: checkpoints hold no
    body data.
    """

    read = staticmethod(smpl_files.load)

    faces: Tensor  # (13776, 3) int64, anticlockwise seen from outside
    mean_pose: Tensor  # (144,) 24 rotations in 6D: the first two columns of each matrix, as (3, 2)
    mean_shape: Tensor  # (10,)
    mean_cam: Tensor  # (3,) scale, tx, ty
    J_regressor_extra: Tensor  # (9, 6890)
    J_regressor_h36m: Tensor  # (17, 6890)
    spin49_index: Tensor  # (49,) into smplx's 45 joints and the 9 extra ones
    common14_index: Tensor  # (14,) into Human3.6M's 17

    def __init__(self, arrays: SmplArrays, of: Callable[[str], Body]) -> None:
        """of: makes the body of another gender."""
        super().__init__()
        self._of = of
        self.is_stand_in = arrays.stand_in  # the procedural body must not be used with real data
        # sha256: part of the fingerprint of whatever is derived through this body
        self.digest = arrays.digest
        self.smpl = _smpl(arrays)
        spin49, _ = correspondence("smpl54", "spin49")
        common14, _ = correspondence("h36m", "common14")
        _register(
            self,
            faces=torch.tensor(arrays.faces),
            spin49_index=torch.tensor(spin49),
            common14_index=torch.tensor(common14),
        )
        means = ("mean_pose", "mean_shape", "mean_cam")
        for name in (*means, "J_regressor_extra", "J_regressor_h36m"):
            _register(self, **{name: torch.tensor(getattr(arrays, name), dtype=torch.float32)})

        # For `joints`: a module for each order.
        # smplx's joints after SMPL's 24 are single vertices: (21, 6890), a 1 for each of them
        vertices = self.smpl.vertex_joint_selector.extra_joints_idxs.numpy()
        is_vertex = vertices[:, None] == np.arange(smpl_files.N_VERTICES)
        regressors = np.concatenate([is_vertex, arrays.J_regressor_extra])
        self._spin49 = PosedJoints(arrays, *_select_regressors(regressors, spin49))
        h36m = [smpl_files.N_JOINTS + row for row in common14]
        self._common14 = PosedJoints(arrays, *_select_regressors(arrays.J_regressor_h36m, h36m))
        self._smpl = PosedJoints(arrays, arrays.J_regressor_h36m[:0], range(smpl_files.N_JOINTS))

    @classmethod
    def stand_in(cls, gender: str = "neutral") -> Body:
        """The procedural body for tests and demo data."""
        return cls(plug_ins.load(table.DEMO_BODY)(gender), functools.cache(cls.stand_in))

    def forward(self, *, betas: Tensor, rotmat: Tensor, trans: Tensor | None = None) -> BodyOutput:
        """betas (B, 10), rotmat (B, 24, 3, 3) relative to parents, trans (B, 3) m -> BodyOutput.

        The root turns about its own joint, which is not at the origin (SMPL paper, equations 2-4).
        """
        posed = self.smpl(
            betas=betas,
            global_orient=rotmat[:, :1],
            body_pose=rotmat[:, 1:],
            transl=trans,
            pose2rot=False,
        )
        verts = posed.vertices
        joints45 = posed.joints
        joints54 = torch.cat([joints45, self._regress(self.J_regressor_extra, verts)], dim=1)
        return BodyOutput(verts, joints54[:, self.spin49_index])

    def joints(
        self,
        *,
        betas: Tensor,
        rotmat: Tensor,
        order: JointOrder = "spin49",
    ) -> Tensor:
        """The joints of `forward`, or of `common14` of its vertices, for a hundredth of the work.

        betas (B, 10), rotmat (B, 24, 3, 3) relative to parents -> (B, 49 or 14, 3) m; "smpl": (B,
        24, 3).
        """
        require_option("order", order, JointOrder)
        by_order = {"spin49": self._spin49, "common14": self._common14, "smpl": self._smpl}
        joints: Tensor = by_order[order](betas, rotmat)
        return joints

    def posed_joints(self, pose: Floats, betas: Floats) -> tuple[Doubles, Doubles]:
        """pose (N, 72) rad, betas (N, 10) -> spin49 (N, 49, 3) and common14 (N, 14, 3) m, without
        translation.
        """
        rotmat = rotations_of(pose)
        device = self.faces.device
        joints = np.empty((len(pose), 49, 3))
        common14 = np.empty((len(pose), 14, 3))
        with torch.no_grad():
            for start in range(0, len(rotmat), AT_ONCE):
                part = slice(start, start + AT_ONCE)
                out = self(
                    betas=torch.from_numpy(betas[part]).float().to(device),
                    rotmat=rotmat[part].to(device),
                )
                joints[part] = out.joints.double().cpu().numpy()
                common14[part] = self.common14(out.verts).double().cpu().numpy()
        return joints, common14

    def h36m17(self, verts: Tensor) -> Tensor:
        """(B, 6890, 3) -> (B, 17, 3), Human3.6M's joints in its order."""
        return self._regress(self.J_regressor_h36m, verts)

    def common14(self, verts: Tensor) -> Tensor:
        """(B, 6890, 3) -> (B, 14, 3), the joints compared in evaluation."""
        return self.h36m17(verts)[:, self.common14_index]

    @staticmethod
    def _regress(regressor: Tensor, verts: Tensor) -> Tensor:
        return torch.einsum("jv,bvc->bjc", regressor, verts)


def _select_regressors(regressors: Floats, take: list[int]) -> tuple[Floats, list[int]]:
    """Select the regressors that `take` needs, and renumber `take` to fit: arguments of
    `PosedJoints`.

    regressors: of joint 24, 25, ...; joints below 24 are SMPL's. With take [0, 30, 27], the
    regressors of 27 and 30 are selected, and take becomes [0, 25, 24].
    """
    rows = sorted({joint - N_JOINTS for joint in take if joint >= N_JOINTS})
    index_of = {N_JOINTS + row: N_JOINTS + i for i, row in enumerate(rows)}
    return regressors[rows], [index_of.get(joint, joint) for joint in take]


def _smpl(arrays: SmplArrays) -> _Smpl:
    """smplx's module from arrays, without buffers in its state_dict."""
    # as smplx reads them from a file
    data = SimpleNamespace(
        v_template=arrays.v_template,
        shapedirs=arrays.shapedirs,
        posedirs=arrays.posedirs,
        J_regressor=arrays.J_regressor,
        weights=arrays.weights,
        kintree_table=np.stack([arrays.parents, np.arange(smpl_files.N_JOINTS)]),
        f=arrays.faces,
    )
    # smplx makes no parameters: callers pass all values
    ours = {f"create_{name}": False for name in ("betas", "global_orient", "body_pose", "transl")}
    smpl = _Smpl(model_path="", data_struct=data, num_betas=smpl_files.N_BETAS, **ours)
    for module in smpl.modules():
        _register(module, **dict(module.named_buffers(recurse=False)))
    return smpl


def _register(module: nn.Module, **buffers: Tensor) -> None:
    """Set buffers that are not in its state_dict."""
    for name, value in buffers.items():
        module.register_buffer(name, value, persistent=False)
