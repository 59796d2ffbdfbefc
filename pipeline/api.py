"""The names that a package with its own dataset, stream or detector imports from the pipeline.

Names that need torch or HDF5 are imported when first used, because plans are made without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cache import CropPolicy, ExtraColumn
from pipeline.accounting import Totals, VideoAccount
from pipeline.clips.detectors import Detect, Detector, People
from pipeline.datasets.base import (
    Dataset,
    ImageFolders,
    Licence,
    Mistake,
    Origin,
    Release,
    ReleasePart,
)
from pipeline.datasets.shared.checks import LabelRules, finite_joints, finite_rows
from pipeline.datasets.shared.images import frames_there, inputs, pictures_or_video
from pipeline.datasets.shared.labelled_track import labelled_track
from pipeline.datasets.shared.smpl import BODIES, EXTRINSICS, UP, smpl_labels
from pipeline.errors import ConfigError, MissingAssets, PipelineError, RawDataError
from pipeline.features.streams.base import (
    ROW_RATE,
    Computer,
    LabelComputer,
    LabelStream,
    Machine,
    NumberStream,
    PairStream,
    Reads,
    Stream,
)
from pipeline.features.weights import WeightsSpec
from pipeline.files.formats.arrays import load_json, load_mat, load_npz, numbers
from pipeline.files.formats.pickles import load_pickle
from pipeline.files.pixels.frames import FrameSource, Image, Video
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.pixels.sources import picture_pattern
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import open_regular, read_regular, whole_file_digest
from pipeline.people.boxes import extents, smooth_boxes, tight_boxes
from pipeline.people.skeletons import JOINTS, KEYPOINTS_13, convert, joint_names, keypoints_13
from pipeline.people.track import Track
from pipeline.plug_ins import import_on_use

if TYPE_CHECKING:
    from pipeline.features.networks import chosen_device as chosen_device
    from pipeline.features.networks.base import Normalisation as Normalisation
    from pipeline.features.networks.calibration_crops import calibration_crops as calibration_crops
    from pipeline.files.formats.hdf5 import load_hdf5 as load_hdf5
    from pipeline.people.body import Body as Body

__all__ = ["Dataset", "ExtraColumn", "LabelRules", "RawVideo"]  # datasets
__all__ += ["ImageFolders", "Licence", "Mistake", "Origin", "Release", "ReleasePart"]  # downloads
__all__ += ["Totals", "Track", "VideoAccount"]  # their tracks and accounts
__all__ += ["BODIES", "EXTRINSICS", "UP", "labelled_track", "smpl_labels"]  # labels
__all__ += ["finite_joints", "finite_rows"]  # that are numbers
__all__ += ["extents", "smooth_boxes", "tight_boxes"]  # boxes
__all__ += ["JOINTS", "KEYPOINTS_13", "convert", "joint_names", "keypoints_13"]  # joints
__all__ += ["FrameSource", "Image", "Pictures", "Video"]  # images
__all__ += ["frames_there", "inputs", "picture_pattern", "pictures_or_video"]  # their files
# files of labels
__all__ += ["load_json", "load_mat", "load_npz", "load_pickle", "numbers"]
__all__ += ["open_regular", "read_regular", "whole_file_digest"]  # other files
__all__ += ["LabelStream", "NumberStream", "PairStream", "Stream"]  # streams
__all__ += ["ROW_RATE", "CropPolicy", "Reads"]  # their inputs
# networks
__all__ += ["Computer", "LabelComputer", "Machine", "WeightsSpec"]
__all__ += ["Detect", "Detector", "People"]  # detectors
__all__ += ["ConfigError", "MissingAssets", "PipelineError", "RawDataError"]  # errors

LATER: Final = {  # imported when first used
    "Body": "pipeline.people.body",
    "calibration_crops": "pipeline.features.networks.calibration_crops",
    "Normalisation": "pipeline.features.networks.base",
    "chosen_device": "pipeline.features.networks",
    "load_hdf5": "pipeline.files.formats.hdf5",
}

if not TYPE_CHECKING:  # type checkers know all names
    __getattr__, __dir__ = import_on_use(__name__, LATER)
    __all__ += LATER
