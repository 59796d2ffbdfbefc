"""Reproducible files in the official releases' formats.  pixels and labels -> [raw]

Shares no code with the readers in `pipeline.files.formats`, so that their mistakes cannot cancel
out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import cv2
import google_crc32c
import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Image
from pipeline.people.skeletons import Array, Floats
from pipeline.show.video_file import encode_jpeg

JPEG_QUALITY: Final = 95
MAT_HEADER: Final = b"MATLAB %s MAT-file, Platform: stand-in, Created on: Thu Jan  1 00:00:00 1970"
MAT_TEXT: Final = 116  # bytes of text in MATLAB's header
MAT73_VERSION: Final = bytes(8) + b"\x00\x02IM"  # follows the text
MAT73_USER_BLOCK: Final = 512  # bytes before the HDF5 begins

Feature = Sequence[bytes] | Floats | NDArray[np.integer[Any]]


def jpeg(image: Image) -> bytes:
    """Encode an RGB image (H, W, 3)."""
    return encode_jpeg(image, JPEG_QUALITY)


@contextmanager
def mp4_writer(file: Path, fps: float, width: int, height: int) -> Iterator[cv2.VideoWriter]:
    """Open a video file (MPEG-4 part 2, which every build of OpenCV supports) for BGR images."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    try:
        if not writer.isOpened():
            raise PipelineError(
                f"{file}: OpenCV cannot write MPEG-4. Install opencv-python with its video codecs."
            )
        yield writer
    finally:
        writer.release()


def write_mat(file: Path, variables: Mapping[str, Any], *, compressed: bool = False) -> None:
    """Write a MATLAB v5 file without the time that SciPy writes into its header."""
    savemat(file, dict(variables), do_compression=compressed)
    with file.open("r+b") as stream:
        stream.write((MAT_HEADER % b"5.0").ljust(MAT_TEXT))


def write_mat73(file: Path, variables: Mapping[str, Array]) -> None:
    """Write a MATLAB 7.3 file: MATLAB's header, then compressed HDF5 with reversed axes."""
    with h5py.File(file, "w", userblock_size=MAT73_USER_BLOCK, libver="earliest") as stored:
        for name, values in variables.items():
            written = stored.create_dataset(
                name, data=values, chunks=values.shape, compression="gzip"
            )
            written.attrs["MATLAB_class"] = np.bytes_(
                "double" if values.dtype == np.float64 else values.dtype.name
            )
    with file.open("r+b") as stream:
        stream.write((MAT_HEADER % b"7.3" + b" HDF5 schema 1.00 .").ljust(MAT_TEXT) + MAT73_VERSION)


def tfrecord(data: bytes) -> bytes:
    """Encode a TFRecord: length and data, each followed by its checksum."""
    framed = b""
    for part in (len(data).to_bytes(8, "little"), data):
        crc = int(google_crc32c.value(part))
        framed += part + struct.pack(
            "<I", (((crc >> 15) | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8) % 2**32
        )
    return framed


def tf_example(features: Mapping[str, Feature]) -> bytes:
    """Encode a tf.train.Example in key order; arrays are flattened in C order, floats are
    float32.
    """
    entries = [
        _field(1, key.encode()) + _field(2, _feature(features[key])) for key in sorted(features)
    ]
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def _feature(values: Feature) -> bytes:
    if not isinstance(values, np.ndarray):
        return _field(1, b"".join(_field(1, value) for value in values))
    if values.dtype.kind == "f":
        number = 2
        packed = values.astype("<f4").tobytes()
    else:
        number = 3
        packed = b"".join(_varint(int(value) % 2**64) for value in values.ravel())
    return _field(number, _field(1, packed) if packed else b"")


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field with a length; its tag is one byte for numbers under 16."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def python2_pickle(value: Any) -> bytes:
    """Pickle dicts, lists, tuples, str, bool, int, float, None and numeric arrays as Python 2 and
    NumPy 1 did.

    3DPW's files have this format; Python 3's pickler writes Unicode and other module names. Raises
    TypeError for other types.
    """
    # protocol 2; for the opcodes see Python's pickletools
    return b"\x80\x02" + _pickle_value(value) + b"."


def _pickle_value(value: Any) -> bytes:
    match value:
        case None:
            return b"N"
        case bool() | np.bool_():
            return b"\x88" if value else b"\x89"
        case str():
            return _python2_str(value.encode("latin1"))
        case int():
            return b"J" + struct.pack("<i", value)
        case float():
            return b"G" + struct.pack(">d", value)
        case np.ndarray():
            return _pickle_array(value)
        case Mapping():
            return (
                b"}("
                + b"".join(_pickle_value(k) + _pickle_value(v) for k, v in value.items())
                + b"u"
            )
        case tuple():
            return b"(" + b"".join(map(_pickle_value, value)) + b"t"
        case Sequence():
            return b"](" + b"".join(map(_pickle_value, value)) + b"e"
    raise TypeError(f"a 3DPW file holds no {type(value).__name__}")


def _pickle_array(array: Array) -> bytes:
    """Pickle NumPy 1's `ndarray.__reduce__`: an empty array, then its state."""
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a 3DPW file holds no array of {array.dtype}")
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
    empty = start + _pickle_value((0,)) + _pickle_value("b") + b"tR"
    order = "|" if array.dtype.itemsize == 1 else "<"
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    state_of_dtype = _pickle_value((3, order, None, None, None, -1, -1, 0))
    dtype = b"cnumpy\ndtype\n" + _pickle_value((kind, 0, 1)) + b"R" + state_of_dtype + b"b"
    content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    state = (
        _pickle_value(1)
        + _pickle_value(tuple(array.shape))
        + dtype
        + _pickle_value(False)
        + _python2_str(content)
    )
    return empty + b"(" + state + b"tb"


def _python2_str(content: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(content)) + content
