"""A link in a raw folder may lead to any file of its user: messages, which a group reads, show no
text of it, but names as labels have them.
"""

import json
import pickle

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from pipeline.clips.labels.detections import read_results
from pipeline.datasets.labels import h36m, motions, mpi_inf_3dhp
from pipeline.errors import RawDataError
from pipeline.files.formats import arrays, hdf5, pickles, sequences

SECRET = "hunter2"
LINE = f"machine lab login me password {SECRET}"
NAMES = {LINE: 1, "poses_body": 2}


def write_text(text):
    return lambda file: file.write_text(text)


def write_json(content):
    return write_text(json.dumps(content))


def write_hdf5(file):
    with h5py.File(file, "w") as stored:
        stored.create_dataset(LINE, data=1)
        stored.create_dataset("poses_body", data=1)


def write_npz(file):
    with file.open("wb") as stream:
        np.savez(stream, **{name: np.zeros(1) for name in NAMES})


def write_pickle(file):
    file.write_bytes(pickle.dumps(NAMES))


PERSON = {"name": "a", "id": 1, "keypoints": [LINE, "b"]}
COCO = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": []}
# what is written, and what reads it
CASES = {
    "mat": (lambda file: savemat(file, {SECRET * 6: 1}), lambda file: arrays.load_mat(file, ["x"])),
    "npz": (write_npz, lambda file: arrays.load_npz(file, ["poses"])),
    "hdf5": (write_hdf5, lambda file: hdf5.load_hdf5(file, {"poses": [(1,)]})),
    "pickle": (write_pickle, motions.Motion.read),
    "text as a pickle": (write_text(LINE), pickles.load_labels),
    "text as json": (write_text(LINE), lambda file: arrays.load_json(file, do="")),
    "text as numbers": (write_text(f"1,{LINE},1,1,1,1"), read_results),
    "csv header": (write_text(f"{SECRET},track,frame"), read_results),
    "json keys": (write_json(NAMES), read_results),
    "image name": (write_json([{"image_id": LINE}]), read_results),
    "categories": (
        write_json(
            {**COCO, "categories": [PERSON, {**PERSON, "name": LINE, "keypoints": ["a", "b"]}]}
        ),
        read_results,
    ),
    "trc": (write_text(f"{LINE}\n" * 7), read_results),
    "xml tags": (write_text(f"<a><{SECRET * 6}/></a>"), h36m.load_metadata),
    "sequence": (
        write_text(f'{{"{LINE}": {{"1": {{"1": {{}}}}}}}}'),
        lambda file: sequences.load_sequence(file, sequences.SequenceKeys(1, 1), "frames", do=""),
    ),
    "frame": (
        write_text(f'{{"1": {{"1": {{"{LINE}": {{}}}}}}}}'),
        lambda file: sequences.load_sequence(file, sequences.SequenceKeys(1, 1), "frames", do=""),
    ),
    "calibration": (
        write_text(f"{mpi_inf_3dhp.FIRST_LINE}\nname 0\nintrinsic {LINE}\n"),
        lambda file: mpi_inf_3dhp.Calibration.read(file, 0),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_no_message_shows_text_of_a_private_file(case, tmp_path):
    write, read = CASES[case]
    file = tmp_path / "file.pkl"
    write(file)
    with pytest.raises(RawDataError) as caught:
        read(file)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", [LINE, f"""it's {LINE}" """])
def test_a_librarys_message_shows_none_either(text, tmp_path):
    with pytest.raises(RawDataError) as caught, arrays.reading(tmp_path / "file", "numbers"):
        np.array([text]).astype(float)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("end", ["", "\\"])
def test_a_quote_that_a_library_cuts_off_is_not_shown_either(end, tmp_path):
    cut_off = f"no array: b'{SECRET}" + r"\x00" * 99 + end
    with pytest.raises(RawDataError) as caught, arrays.reading(tmp_path / "file", "numbers"):
        raise ValueError(cut_off)
    assert "no array" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_names_as_labels_have_them_are_shown(tmp_path):
    file = tmp_path / "file.npz"
    write_npz(file)
    with pytest.raises(RawDataError, match="found only poses_body, 1 more"):
        arrays.load_npz(file, ["poses"])
