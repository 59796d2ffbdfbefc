"""A split as GVHMR's `inputs/<DATASET>/hmr4d_support`.  tracks, features -> [files of other
programs]

Shen et al.: World-Grounded Human Motion Recovery via Gravity-View Coordinates, SIGGRAPH Asia 2024.
Its classes for AMASS and BEDLAM load these files by torch.load. A motion is a run of consecutive
frames at 30 per second, here of F frames; the labels of all motions are in one file:

    AMASS   smplxpose_v2.pth        motion -> arrays of `_AmassMotions.arrays`
    BEDLAM  smplpose_v2.pth         motion -> arrays of `_BedlamMotions.arrays`
            mid_to_valid_range_*    motion -> its frames to use, (0, F)
            imgfeats/bedlam_all60/  a file per motion: features, boxes and image size

Their values are SMPL-X's, which only these datasets have.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import torch
from pydantic.dataclasses import dataclass as validated

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.datasets.bedlam import Bedlam
from pipeline.datasets.shared.smpl import load_smplx_rest_joints
from pipeline.errors import PipelineError
from pipeline.extras.exchange.bodies.estimate import N_BODY
from pipeline.extras.exchange.formats import Exported, new_folder
from pipeline.extras.exchange.rows import (
    NO_EXTRINSICS,
    NO_FEATURES,
    NO_INTRINSICS,
    NO_RATE,
    NO_SIZE,
    NO_SMPLX,
    RowCheck,
    SplitRows,
    origin_of,
    require_stream,
)
from pipeline.extras.exchange.wham.motions import ResampledMotion
from pipeline.extras.streams.world import Hmr2
from pipeline.people import cameras
from pipeline.people.cameras import resample_rotations
from pipeline.people.skeletons import Array
from pipeline.people.smpl_files import N_BETAS

_MIN_ROWS: Final = 30  # of a motion with images
TOO_SHORT: Final = f"a run of fewer than {_MIN_ROWS} frames"
_GENDERED: Final = RowCheck(
    "a gendered body (AMASS's SMPL-X N has neutral ones)",
    test=lambda split, rows: split.genders(rows) == "neutral",
)
_AMASS_FILE = "smplxpose_v2.pth"
_BEDLAM_FILE = "smplpose_v2.pth"
_RANGES_FILE = "mid_to_valid_range_all60.pt"
_SHORT_RANGES_FILE = "mid_to_valid_range_maxspan60.pt"  # which GVHMR loads, too: here it is empty
_FEATURES_FOLDER: Final = "imgfeats/bedlam_all60"
_Y_UP: Final = np.diag([1.0, -1, -1, 1])  # BEDLAM's world, y down -> y up, or back


@validated(frozen=True, config={"extra": "forbid"})
class GvhmrOptions:
    """Options: `smplx`, the file SMPLX_NEUTRAL.npz, which BEDLAM's rest joints need."""

    smplx: Path | None = None


def export(
    root: cache.Root,
    name: str,
    out: Path,
    *,
    stream: str = Hmr2.kind,
    progress: Progress = silent,
    options: GvhmrOptions = GvhmrOptions(),  # noqa: B008  it is frozen
) -> Exported:
    """Write the split `name` in the cache `root` into the folder `out`. Memory does not grow with
    the split.

    stream: of kind hmr2, for BEDLAM.

    Raises:
        cache.CacheError: the split is missing.
        PipelineError: the split has no SMPL-X labels, or GVHMR no file for it; the stream or the
            body is missing; no motion can be exported; the folder is not new or empty.
        RawDataError: `smplx` is another file.
    """
    split = cache.open(root)[name]
    dataset = name.partition("/")[0]
    if "smplx_pose" not in split.columns:
        do = "Convert AMASS's SMPL-X files, or BEDLAM's all_npz_12_training"
        raise PipelineError(
            f"{name}: has no SMPL-X labels, and SMPL's parameters do not fit GVHMR's body. {do}."
        )
    if dataset not in ("amass", "bedlam", "bedlam2"):
        raise PipelineError(
            f"{name}: GVHMR has no class for this dataset here. Choose amass, bedlam or bedlam2."
        )
    with new_folder(out) as (folder, provenance):
        motions: _AmassMotions | _BedlamMotions
        if dataset == "amass":
            motions = _AmassMotions(split)
            ranges = _write_motions(folder / _AMASS_FILE, split, motions, progress)
            origin = origin_of(split)
        else:
            motions = _BedlamMotions(split, stream, options.smplx)
            ranges = _write_motions(folder / _BEDLAM_FILE, split, motions, progress)
            torch.save(ranges, folder / _RANGES_FILE)
            torch.save({}, folder / _SHORT_RANGES_FILE)
            motions.write_features(folder)
            origin = origin_of(split, stream)
        n_rows = sum(stop for _, stop in ranges.values())
        provenance |= {
            **origin,
            "format": "gvhmr",
            "rows": n_rows,
            "left_out": dict(motions.segments.left_out),
        }
    summary = f"{count(n_rows, 'row')} in {count(len(ranges), 'motion')}"
    return Exported(out, n_rows, summary, {}, motions.segments.left_out, origin["stand_in"])


def _write_motions(
    file: Path, split: cache.Split, motions: _AmassMotions | _BedlamMotions, progress: Progress
) -> dict[str, tuple[int, int]]:
    """Write the arrays of each motion, by motion. Returns the frames [0, F) of each.

    torch.save takes the whole dictionary, so all arrays go one after the other into a temporary
    file first, and the dictionary has views of it: they need no memory.
    """
    motions.segments.require_rows(split)
    shapes: list[tuple[str, str, tuple[int, ...]]] = []  # motion, key and shape of each array
    with tempfile.TemporaryFile(dir=file.parent) as stream:
        for number, name in enumerate(motions.names):
            for key, values in motions.arrays(number).items():
                shapes.append((name, key, values.shape))
                stream.write(np.ascontiguousarray(values, "<f4").tobytes())
            progress(number + 1, len(motions.names), name)
        stream.flush()
        flat = torch.from_numpy(np.memmap(stream, "<f4", "r+"))
        content: dict[str, dict[str, torch.Tensor]] = {}
        start = 0
        for name, key, shape in shapes:
            stop = start + math.prod(shape)
            content.setdefault(name, {})[key] = flat[start:stop].view(shape)
            start = stop
        torch.save(content, file)
    return {name: (0, len(arrays["trans"])) for name, arrays in content.items()}


class _AmassMotions:
    """AMASS's motions with a neutral SMPL-X body, at 30 frames per second; z is up.

    segments: rows of each motion. names: of each motion.
    """

    def __init__(self, split: cache.Split) -> None:
        segments = SplitRows(split).select_segments([NO_SMPLX, _GENDERED])
        self._motions, self.segments = ResampledMotion.find(split, segments)
        self.names = [motion.name for motion in self._motions]

    def arrays(self, number: int) -> dict[str, Array]:
        """A motion's pose (F, 66) rad, trans (F, 3) m and beta (10,)."""
        motion = self._motions[number]
        pose = motion.read_column("smplx_pose")
        betas = motion.read_column("smplx_betas")
        joints = pose[:, :N_BODY].reshape(len(pose), -1, 3)
        body = resample_rotations(joints, motion.positions)
        return {
            "pose": body.reshape(-1, N_BODY),
            "trans": motion.translations(),
            "beta": betas[0, :N_BETAS],
        }


class _BedlamMotions:
    """BEDLAM's motions with SMPL-X bodies, images at 30 per second and features.

    segments: rows of each motion. names: of each motion, see `_motion_name`.
    """

    def __init__(self, split: cache.Split, stream: str, smplx: Path | None) -> None:
        if smplx is None:
            raise PipelineError(
                f"{split.name}: rest joints need SMPL-X's body. Name it: --option "
                "smplx=SMPLX_NEUTRAL.npz"
            )
        require_stream(split, stream)
        if split.open_stream(stream).identity.get("kind") != Hmr2.kind:
            raise PipelineError(
                f"{split.name}: GVHMR reads tokens: {stream!r} is not of kind {Hmr2.kind}"
            )
        self._rows = SplitRows(split, stream)
        self._crop = split.open_stream(stream).crop
        # rest joints (J, 3) m of the mean body, and their change by each beta (J, 3, 10)
        self._rest, self._by_beta = load_smplx_rest_joints(smplx, N_BETAS)
        checks = (NO_SMPLX, NO_RATE, NO_EXTRINSICS, NO_INTRINSICS, NO_SIZE, NO_FEATURES)
        segments = self._rows.select_segments(checks)
        self.segments = segments.only(segments.stop - segments.start >= _MIN_ROWS, TOO_SHORT)
        names = [_motion_name(track.video, track.name) for track in split.tracks]
        self.names = self.segments.names(split, names)

    def arrays(self, number: int) -> dict[str, Array]:
        """A motion's labels in the camera and in a world whose y is up.

        GVHMR computes its camera in that world from the two roots and translations of the body.
        `trans_incam` is BEDLAM's `trans_cam`: GVHMR adds the translation of `cam_ext`, world to
        camera, as BEDLAM's own scripts do. The column `smplx_trans` already has both.
        """
        rows = self.segments.rows(number)
        names = ("smplx_pose", "smplx_betas", "smplx_trans", "extrinsics")
        columns = [self._rows.column(name, rows).astype(np.float64) for name in names]
        pose, betas, trans, camera = columns
        skeleton = self._rest + self._by_beta @ betas[0, :N_BETAS]
        root, world_trans = cameras.to_world(pose[:, :3], trans, camera @ _Y_UP, skeleton[0])
        return {
            "pose": np.concatenate([root, pose[:, 3:N_BODY]], axis=1),
            "trans": world_trans,
            "beta": betas[0, :N_BETAS],
            "skeleton": skeleton,
            "global_orient_incam": pose[:, :3],
            "trans_incam": trans - camera[:, :3, 3],
            "cam_ext": camera,
            "cam_int": self._rows.intrinsics(rows),
        }

    def write_features(self, folder: Path) -> None:
        """Write a file per motion: its features, and the boxes (x, y, side in px) that were
        cropped.
        """
        crop_scale = self._rows.split.tracks.crop_scale
        for number, name in enumerate(self.names):
            rows = self.segments.rows(number)
            bbox = self._rows.column("bbox", rows)[:, :3]
            bbox[:, 2] *= self._crop.scale * crop_scale[self.segments.track[number]]
            features = self._rows.features(rows)
            resolution = self._rows.resolutions(rows[:1])[0]
            content = {
                "features": torch.from_numpy(features),
                "bbx_xys": torch.from_numpy(bbox.astype(np.float32)),
                "img_wh": torch.from_numpy(resolution.astype(np.int64)),
                "start_end": (0, len(features)),
            }
            *_, scene, _, last = name.split("/")
            file = folder / _FEATURES_FOLDER / scene / f"{last}.pt"
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(content, file)


def _motion_name(video: str, track: str) -> str:
    """GVHMR's name of a person's motion.

    >>> video = "20221010_3_1000_batch01hand_30fps/seq_000000"
    >>> _motion_name(video, video + "/rp_a_1")
    'inputs/bedlam/bedlam_download/20221010_3_1000_batch01hand/mp4/seq_000000.mp4-rp_a_1'
    """
    scene, _, sequence = (Bedlam().origin(video).recording or video).partition("/")
    return f"inputs/bedlam/bedlam_download/{scene}/mp4/{sequence}.mp4-{track.rpartition('/')[2]}"
