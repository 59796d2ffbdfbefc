"""The label files of all datasets as nested dicts, lists and arrays, to change what is in them."""

import json
import pickle

import h5py
import numpy as np
from scipy.io import loadmat, savemat

from pipeline.datasets.labels.h36m import load_cdf
from pipeline.extras.demo import files
from pipeline.extras.demo.layouts.h36m import _write_cdf
from pipeline.files.formats import tfrecords
from pipeline.files.formats.pickles import load_pickle


def load_labels(file):
    """What a label file holds; of a TFRecord file, a list of dicts."""
    match file.suffix:
        case ".mat" if h5py.is_hdf5(file):
            with h5py.File(file) as stored:
                return {key: stored[key][()] for key in stored}
        case ".mat":
            return {key: one for key, one in loadmat(file).items() if not key.startswith("__")}
        case ".npz":
            return dict(np.load(file))
        case ".pkl":
            return load_pickle(file, kind="sequence")
        case ".cdf":
            return {"Pose": load_cdf(file, "Pose")[0]}
        case ".tfrecord":
            return [_features(tfrecords.read(file, *span)) for span in tfrecords.spans(file)]
    return json.loads(file.read_bytes())


def _features(data):
    found = {}
    for key, feature in tfrecords.parse_example(data).items():
        kind = feature.WhichOneof("kind")
        values = getattr(feature, kind).value
        dtypes = {"float_list": np.float32, "int64_list": np.int64}
        found[key] = [*values] if kind == "bytes_list" else np.array(values, dtypes[kind])
    return found


def write_labels(file, labels):
    """Write what `load_labels` gives, into a file of the same form."""
    is_hdf5 = file.exists() and h5py.is_hdf5(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    match file.suffix:
        case ".mat" if is_hdf5:
            files.write_mat73(file, labels)
        case ".mat":
            savemat(file, labels)
        case ".npz":
            np.savez(file, **labels)
        case ".pkl":
            file.write_bytes(pickle.dumps(labels))
        case ".cdf":
            _write_cdf(file, labels["Pose"])
        case ".tfrecord":
            file.write_bytes(b"".join(files.tfrecord(files.tf_example(one)) for one in labels))
        case _:
            file.write_text(json.dumps(labels))


def edit_labels(file, change):
    """Change the content of a label file in place: what `change` returns takes its place, if it
    returns something.
    """
    labels = load_labels(file)
    changed = change(labels)
    write_labels(file, labels if changed is None else changed)
