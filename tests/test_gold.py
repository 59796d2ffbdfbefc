"""Digests of everything that the embedded data become: raw files, columns, tables, streams, a short
training's losses.

What the tests compare to the byte was recorded on one machine. On another one (another processor or
another version of a library), floats may differ in their last digits: there, shapes, types and
rounded sums are compared. `python -P tests/test_gold.py FOLDER` makes them in an empty folder and
records them again: on purpose, in a commit that says why they changed.
"""

import functools
import hashlib
import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from torchvision.models import resnet50

from pipeline import datasets
from pipeline.__main__ import main
from pipeline.datasets import RELEASES
from pipeline.extras.demo.writing import LAYOUTS
from vibe_model import TrainConfig, training

RECORD = Path(__file__).with_name("gold.json")
SPLITS = [f"{name}/{split}" for name in RELEASES for split in datasets.get(name).splits]
# tables of digests of raw files, which are compared themselves
OF_FILES = ("video_fingerprint", "video_pixels", "video_source", "video_account_stop")
EXTRACTED = ("penn_action/test", "mpi_inf_3dhp/train", "3dpw/validation")  # by the network: 80 rows


@functools.cache
def machine():
    """All that may change the last digit of a float."""
    cpu = [
        line
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("model name", "flags"))
    ]
    versions = [
        f"{name} {metadata.version(name)}"
        for name in ("numpy", "scipy", "opencv-python", "torch", "h5py")
    ]
    return sha256("\n".join([platform.python_version(), *sorted(set(cpu)), *versions]).encode())


def sha256(*parts):
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def make(folder):
    """Synthesize, convert, extract and train below `folder`, through public doors; the digests of
    all of it.
    """
    ok = main(["synthesize", "--out", str(folder), "--size", "tiny"])
    assert ok == 0
    # in a file, since "untrained" weights would be standardised first: 12 s of a core
    torch.manual_seed(0)
    torch.save(resnet50(weights=None).state_dict(), folder / "resnet50.pt")
    for name in SPLITS:
        dataset = name.split("/")[0]
        place = [name, "--cache", str(folder / "cache")]
        uses_body = (
            ["--body", str(folder / "body")] if datasets.get(dataset).labels.uses_body else []
        )
        assert (
            main(
                [
                    "convert",
                    *place,
                    "--raw",
                    str(folder / "raw" / dataset),
                    "--workers",
                    "1",
                    *uses_body,
                ]
            )
            == 0
        )
        if name in EXTRACTED:
            options = [
                "--weights",
                f"file:{folder / 'resnet50.pt'}",
                "--precision",
                "exact",
                "--device",
                "cpu",
            ]
            assert main(["extract", *place, *options, "--workers", "1", "--batch-size", "16"]) == 0
    return {
        "raw": {part: tree(folder / "raw" / part) for part in RELEASES}
        | {"body": tree(folder / "body")},
        "cache": {name: arrays(folder / "cache" / name) for name in SPLITS},
        "training": losses(folder),
    }


def tree(folder, *patterns):
    """A digest of the names and the bytes of all files below a folder, or of those that match."""
    files = sorted(
        {
            path
            for pattern in patterns or ("**/*",)
            for path in folder.glob(pattern)
            if path.is_file()
        }
    )
    return sha256(
        *(
            part
            for file in files
            for part in (str(file.relative_to(folder)).encode(), file.read_bytes())
        )
    )


def arrays(split):
    """Every array of a split: the digest of its files (of a table: of its numbers), its type and
    shape, and the sum of its numbers' sizes.
    """
    digests = {}
    stored = {}
    for file in sorted(split.rglob("zarr.json")):
        array = zarr.open(file.parent, mode="r")
        if isinstance(array, zarr.Array):
            name = str(file.parent.relative_to(split))
            digests[name] = tree(file.parent, "zarr.json", "c/**/*")
            stored[name] = np.asarray(array)
    (file,) = split.glob("tables-*.npz")
    with np.load(file) as tables:
        for name, table in tables.items():
            digests[name] = None if name in OF_FILES else sha256(table.tobytes())
            stored[name] = table
    found = {}
    for name, array in sorted(stored.items()):
        size = None
        if array.dtype.kind == "f":
            known = array.astype(np.float64)
            size = float(np.abs(known[np.isfinite(known)]).sum())
        found[name] = [digests[name], str(array.dtype), [*array.shape], size]
    return found


def losses(folder):
    """Every curve of a training of 6 steps, but for those of the clock."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    small = {
        "hidden_size": 8,
        "regressor_size": 8,
        "disc_size": 8,
        "seqlen": 6,
        "stride": 4,
        "batch_size": 4,
    }
    course = {"iterations": 3, "epochs": 2, "threads": 1, "strides": {}, "lr_generator": 1e-3}
    data = {
        "datasets_2d": ("penn_action/test",),
        "datasets_3d": ("mpi_inf_3dhp/train",),
        "validation": ("3dpw/validation",),
    }
    places = {"cache": folder / "cache", "runs": folder / "runs", "body": folder / "body"}
    config = TrainConfig.embedded(
        name="gold", evaluation=("3dpw/validation",), **small, **course, **data, **places
    )
    run = training.run(config)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("speed/")]
    return {tag: [event.value for event in events.Scalars(tag)] for tag in sorted(tags)}


@pytest.fixture(scope="module")
def made(tmp_path_factory, demo_data):
    folder = tmp_path_factory.mktemp("gold")
    for name in LAYOUTS:
        demo_data.dataset(name, folder / "raw" / name, size="tiny")
    demo_data.body(folder / "body")
    return make(folder)


@pytest.fixture(scope="module")
def gold():
    recorded = json.loads(RECORD.read_text())
    return recorded


@pytest.fixture(scope="module")
def same(gold):
    """Equal to the bit on the machine that recorded them, equal up to rounding elsewhere."""

    def compare(ours, theirs):
        equal = bool(ours == theirs)
        return equal or (gold["machine"] != machine() and ours == pytest.approx(theirs, rel=1e-3))

    return compare


def test_the_embedded_raw_files_are_as_recorded(made, gold):
    if gold["machine"] != machine():
        pytest.skip("recorded on another machine: pictures may differ in their last bit")
    assert made["raw"] == gold["raw"]


@pytest.mark.parametrize("split", SPLITS)
def test_every_column_table_and_stream_is_as_recorded(split, made, gold, same):
    ours, theirs = made["cache"][split], gold["cache"][split]
    assert ours.keys() == theirs.keys()
    for name, (digest, dtype, shape, size) in theirs.items():
        if gold["machine"] == machine():
            assert ours[name][0] == digest, name
        assert ours[name][1] == dtype
        assert ours[name][2] == shape
        assert same(ours[name][3], size), name


def test_a_short_training_has_the_recorded_losses(made, gold):
    """Up to rounding, which differs between processors. OpenCV 5 interpolates between pixels
    exactly, OpenCV 4 at 32nds of a pixel: the crops differ, and most of all accelerations.
    """
    ours, theirs = made["training"], gold["training"]
    assert ours.keys() == theirs.keys()
    tolerance = 1e-3 if metadata.version("opencv-python").startswith("4.") else 0.03
    for tag, values in theirs.items():
        assert ours[tag] == pytest.approx(values, rel=tolerance), tag


if __name__ == "__main__":
    made_now = {"machine": machine(), **make(Path(sys.argv[1]))}
    lists = re.compile(r"\[[^{}]*?\](?=,?\n *[\"}])")  # a line each
    text = json.dumps(made_now, indent=1)
    RECORD.write_text(lists.sub(lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n")
