"""What a file is in place of the expected one, for messages.  [raw]

Downloads are often other files: login pages, archives that are still packed, pointers of Git LFS
(`other_format`). Label files may be those of programs that no reader supports (`OtherProgram`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.cli import pages
from pipeline.files.raw.files import open_unbuffered

ZIP: Final = b"PK\x03\x04"  # first bytes of an .npz archive
HDF5: Final = "an HDF5 file"
_HDF5: Final = b"\x89HDF"  # its first bytes
_OTHERS: Final = {  # first bytes of files that are often downloaded by mistake
    b"<": "a web page (a login or licence page, perhaps)",
    ZIP: "a zip archive",
    b"\x1f\x8b": "a file compressed with gzip",
    b"BZh": "a file compressed with bz2",
    b"\xfd7zXZ": "a file compressed with xz",
    b"]\x00": "a file compressed with lzma",
    b"\x04\x22\x4d\x18": "a file compressed with lz4",
    **dict.fromkeys((b"x\x01", b"x^", b"x\x9c", b"x\xda"), "a file compressed with zlib"),
    _HDF5: HDF5,
    b"version http": "a Git LFS pointer",
}
_NO_TEXT: Final = _OTHERS | {  # first bytes of other files that have the name of a text or a clip
    b"GIF8": "a GIF image",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"RIFF": "an AVI video or WebP image",
    b"\x1aE\xdf\xa3": "a WebM or Matroska video",
    b"%PDF": "a PDF",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"\x80": "a pickle",
    b"PAR1": "a Parquet file",
    b"MATLAB": "a MATLAB file",
    b"\x30\x26\xb2\x75": "Windows Media, to be converted: ffmpeg -i IN.wmv OUT.mp4",
    b"\xff\xfe": "text in UTF-16, not in UTF-8",
    b"\xfe\xff": "text in UTF-16, not in UTF-8",
}

FORMATS: Final = f"{pages.KEYPOINT_FILES} has the formats that are read: write it in one of these."
_SEARCHED: Final = 4096  # first bytes of a file, in which words of other programs are searched


class OtherProgram(NamedTuple):
    """A program whose files no reader supports."""

    owner: str  # whose file it is
    advice: str = FORMATS  # how to write its content in a format that is read

    @classmethod
    def from_file(cls, file: Path) -> OtherProgram | None:
        """Whose file it is, from its ending and its first words, or the keys of an HDF5 file; None
        if unknown. Raises OSError.
        """
        with open_unbuffered(file) as stream:
            start = stream.read(_SEARCHED)
        words = set(re.findall(r"\w+", start.decode("latin1")))
        if start.startswith(_HDF5):
            import h5py  # takes 0.2 s

            with h5py.File(file) as content:
                words = set(content)
        return _find_program({file.suffix.lower(), *words})


# Endings, keys or first words, which a file must all have -> whose it is. The first that fits
# counts.
_OTHER_PROGRAMS: Final = {
    "body_params_incam": OtherProgram("GEM-X's results, of SOMA's body"),
    "mhr_model_params": OtherProgram("SAM 3D Body's results, of MHR's body"),
    "poses_body frame_id": OtherProgram("results of wham_api.py, without trans"),
    "bbox keypoints frame_id": OtherProgram("WHAM's detections; its bodies are in wham_output.pkl"),
    "bbx_xyxy bbx_xys": OtherProgram("GVHMR's boxes; its bodies are in hmr4d_results.pt"),
    "img_focal img_center": OtherProgram("TRAM's camera; its bodies are in hps/hps_track_*.npy"),
    "vid_name features": OtherProgram("a database of VIBE's code, which --format vibe imports"),
    "root_pos root_rot dof_pos": OtherProgram("a robot's motion (GMR)"),
    "pose_aa root_trans_offset dof": OtherProgram("a robot's motion (ASAP)"),
    "pose_aa root_trans_offset": OtherProgram("a motion for PHC"),
    "smpl_poses smpl_scaling": OtherProgram("a motion of AIST++"),
    "poses expressions mocap_frame_rate": OtherProgram("a motion of BEAT2 or EMAGE"),
    "person_data": OtherProgram("GLAMR's results: import those of the estimator that it was given"),
    ".npz smpl_params_incam": OtherProgram("GVHMR's results as npz: import its hmr4d_results.pt"),
    ".npz body_pose global_orient transl timestamps": OtherProgram(
        "a motion of NymeriaPlus: a subset of the dataset amass"
    ),
    ".npz body_pose global_orient transl": OtherProgram(
        "a body's parameters without times or images, as SMPLer-X's"
    ),
    ".npz poses betas trans": OtherProgram(
        "a motion in AMASS's form: a subset of the dataset amass"
    ),
    ".npz results": OtherProgram("an npz of `results`, as ROMP's: pickles"),
    ".npy 322": OtherProgram("a motion of Motion-X"),
    ".npy 22 3": OtherProgram("joints of HumanML3D"),
    ".npy 263": OtherProgram("features of HumanML3D"),
    **dict.fromkeys(
        (".slp", "tracks node_names point_scores"),
        OtherProgram(
            "SLEAP's file, of 2D points",
            "Write its tracks as COCO's JSON, with the names of the joints.",
        ),
    ),
    **dict.fromkeys(
        ("df_with_missing", "scorer bodyparts"),
        OtherProgram(
            "DeepLabCut's table, of 2D points",
            "Write the table's x, y and likelihood as COCO's JSON, with the names of the joints.",
        ),
    ),
    "HIERARCHY ROOT": OtherProgram("a BVH file, of another skeleton"),
    "PathFileType": OtherProgram("a TRC file (Sports2D, Pose2Sim, OpenCap), of points"),
    "nRows nColumns inDegrees": OtherProgram("OpenSim's angles of joints"),
    ".c3d": OtherProgram("a C3D file, of markers"),
    "xml annotations": OtherProgram(
        "CVAT's XML, of 2D points", "Export the task as COCO Keypoints 1.0 (JSON)."
    ),
    "annotations result": OtherProgram("Label Studio's JSON, of 2D points", "Export it as COCO."),
    "licenses categories": OtherProgram("COCO's JSON, of 2D points"),
    "item slots annotations": OtherProgram("V7 Darwin's JSON, of 2D points", "Export it as COCO."),
    **dict.fromkeys(
        ("landmarks", "pose_landmarks", "poseLandmarks"),
        OtherProgram(
            "MediaPipe's landmarks",
            "Its 33 landmarks are shares of the image: run `python -m pipeline detect --detector "
            "blaze_pose` on the clip.",
        ),
    ),
    "shapes imagePath": OtherProgram(
        "labelme's JSON, of 2D points", "Convert it to COCO's JSON, with the names of the joints."
    ),
    "_via_img_metadata": OtherProgram(
        "VIA's JSON, of 2D points", "Export the annotations as COCO."
    ),
    **dict.fromkeys(
        (".xlsx", ".xls"),
        OtherProgram(
            "an Excel table", f"Save the table as CSV ({pages.KEYPOINT_FILES} has its columns)."
        ),
    ),
}


def other_format(start: bytes) -> str | None:
    """What a file is in place of the expected download, from its first bytes; None if
    unknown."""
    if not start:
        return "empty (0 bytes)"
    return _identify_format(start.lstrip(), _OTHERS)


def other_than_text(content: bytes) -> str | None:
    """What a file is in place of text in UTF-8; None if it may be text."""
    if not content.strip():
        return f"empty ({len(content)} bytes)"
    if not content.strip(b"\0"):
        return "zero bytes alone, as a full disk or a broken copy leaves them"
    if content[4:8] == b"ftyp":
        return "an MP4 or MOV video"
    if content[257:262] == b"ustar":
        return "a tar archive"
    return _identify_format(content.lstrip(), _NO_TEXT)


def _identify_format(start: bytes, formats: Mapping[bytes, str]) -> str | None:
    """The name of the first of `formats` (first bytes -> name) that `start` begins with; None
    for none.
    """
    for magic, name in formats.items():
        if start.startswith(magic):
            return name
    return None


def owner_of(marks: Collection[str]) -> str | None:
    """Whose file it is that has these keys and words; None if unknown.

    >>> owner_of({"root_pos", "root_rot", "dof_pos", "fps"})
    "a robot's motion (GMR)"
    """
    program = _find_program(marks)
    return None if program is None else program.owner


def _find_program(marks: Collection[str]) -> OtherProgram | None:
    for needed, program in _OTHER_PROGRAMS.items():
        if set(needed.split()) <= set(marks):
            return program
    return None
