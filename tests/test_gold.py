"""Digests of everything that the embedded data become: raw files, columns, tables, streams; and the
losses of a short training. Each dataset has a record of its own: tests/golden/datasets/NAME.json.

What is compared to the byte was recorded on one machine. On another one (another processor or
another version of a library), floats may differ in their last digits: where a digest of floats
differs there, types, shapes and rounded sums are compared. A line of the test run says what was left so.
`pytest --rewrite-golden tests/test_gold.py` records again what differs: on purpose, in a commit
that says why it changed.
"""

import functools
import hashlib
import platform
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
from vibe_model import TrainConfig, training

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


class Made:
    """Demo data, and what becomes of them through public doors; each part when it is asked for."""

    def __init__(self, folder, demo_data):
        self.folder, self._demo_data = folder, demo_data

    @functools.cache  # noqa: B019 - there is one of them
    def raw(self, name):
        folder = self.folder / "raw" / name
        self._demo_data.dataset(name, folder, size="tiny")
        return folder

    @functools.cached_property
    def body(self):
        self._demo_data.body(self.folder / "body")
        return self.folder / "body"

    @functools.cached_property
    def network(self):
        # in a file, since "untrained" weights would be standardised first: 12 s of a core
        torch.manual_seed(0)
        torch.save(resnet50(weights=None).state_dict(), self.folder / "resnet50.pt")
        return self.folder / "resnet50.pt"

    @functools.cache  # noqa: B019 - there is one of them
    def split(self, name):
        """Convert a split, and extract its features if it is EXTRACTED; its folder."""
        dataset = name.split("/")[0]
        place = [name, "--cache", str(self.folder / "cache"), "--workers", "1"]
        converted = ["convert", *place, "--raw", str(self.raw(dataset))]
        if datasets.get(dataset).labels.uses_body:
            converted += ["--body", str(self.body)]
        assert main(converted) == 0
        if name in EXTRACTED:
            options = ["--precision", "exact", "--device", "cpu", "--batch-size", "16"]
            weights = ["--weights", f"file:{self.network}"]
            assert main(["extract", *place, *weights, *options]) == 0
        return self.folder / "cache" / name


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


def losses(made):
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
    for split in (*EXTRACTED, "amass/train"):
        made.split(split)
    places = {"cache": made.folder / "cache", "runs": made.folder / "runs", "body": made.body}
    config = TrainConfig.embedded(
        name="gold", evaluation=("3dpw/validation",), **small, **course, **data, **places
    )
    run = training.run(config)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("speed/")]
    return {tag: [event.value for event in events.Scalars(tag)] for tag in sorted(tags)}


@pytest.fixture(scope="module")
def made(tmp_path_factory, demo_data):
    return Made(tmp_path_factory.mktemp("gold"), demo_data)


def compare(ours, theirs):
    """What differs from a record, and what was left to the machine that made the record: names of
    arrays and of raw files.

    On that machine, every digest is compared. On another one, floats with another digest must have
    the same type and shape and, up to rounding, the same sum; raw files may differ, and with them
    the keys of features, which are hashes of these.
    """
    wrong, left = [], []
    is_same_machine = theirs["machine"] == machine()
    is_other_raw = not is_same_machine and ours["raw"] != theirs["raw"]
    if ours["raw"] != theirs["raw"]:
        (wrong if is_same_machine else left).append("raw files")
    ours, theirs = (record.get("cache", {}) for record in (ours, theirs))
    wrong += sorted(ours.keys() ^ theirs.keys())
    for split in sorted(ours.keys() & theirs.keys()):
        names = ours[split].keys() | theirs[split].keys()
        for name in sorted(names):
            array, recorded = ours[split].get(name), theirs[split].get(name)
            if array == recorded:
                continue
            is_key_of_raw = is_other_raw and name.endswith("_key") and None not in (array, recorded)
            is_left = is_key_of_raw and array[1:] == recorded[1:]
            is_left |= not is_same_machine and is_same_but_rounded(array, recorded)
            if not is_left:
                wrong.append(f"{split}/{name}: {array} in place of {recorded}")
            else:
                left.append(f"{split}/{name}")
    return wrong, left


def is_same_but_rounded(ours, theirs):
    if ours is None or theirs is None or theirs[3] is None:
        return False
    return ours[1:3] == theirs[1:3] and ours[3] == pytest.approx(theirs[3], rel=1e-3)


def check(record, ours, record_property):
    """Compare with a record, or write it if it differs and is to be written; say what was compared."""
    wrong, left = compare(ours, record.value) if record.value else (["not recorded"], [])
    if wrong and record.rewrite:
        record.write({"machine": machine(), **ours})
        wrong, left = [], []
    assert not wrong, f"{record}"
    digests = [array[0] for split in ours.get("cache", {}).values() for array in split.values()]
    n_digests = 1 + len([digest for digest in digests if digest is not None])
    text = f"{n_digests - len(left)} of {n_digests} digests are equal"
    if left:
        text += f"; left to the machine that recorded them: {', '.join(left)}"
    record_property("compared", text)


def test_only_another_machine_may_give_other_digests_and_only_those():
    array, other = ["a", "float32", [2], 1.0], ["b", "float32", [2], 1.0001]
    of = {"raw": "c", "cache": {"x/train": {"bbox": array, "kp_2d": array}}}
    ours = {"raw": "d", "cache": {"x/train": {"bbox": array, "kp_2d": other}}}
    here, elsewhere = {"machine": machine(), **of}, {"machine": "another", **of}
    assert compare(of, here) == ([], [])
    assert [name.split(":")[0] for name in compare(ours, here)[0]] == ["raw files", "x/train/kp_2d"]
    assert compare(ours, elsewhere) == ([], ["raw files", "x/train/kp_2d"])
    wrong = (
        ["b", "float32", [3], 1.0],
        ["b", "float32", [2], 1.1],
        ["b", "int64", [2], None],
        None,
    )
    for changed in wrong:
        ours["cache"]["x/train"]["kp_2d"] = changed
        assert len(compare(ours, elsewhere)[0]) == 1


@pytest.mark.parametrize("name", RELEASES)
def test_a_dataset_becomes_what_is_recorded(name, made, record, record_property):
    splits = [f"{name}/{split}" for split in datasets.get(name).splits]
    raw = tree(made.raw(name))
    ours = {"raw": raw, "cache": {split: arrays(made.split(split)) for split in splits}}
    check(record(f"datasets/{name}", "made"), ours, record_property)


def test_the_demo_body_is_as_recorded(made, record, record_property):
    check(record("demo_body", "made"), {"raw": tree(made.body)}, record_property)


def test_a_short_training_has_the_recorded_losses(made, record):
    """Up to rounding, which differs between processors. OpenCV 5 interpolates between pixels
    exactly, OpenCV 4 at 32nds of a pixel: the crops differ, and most of all accelerations.
    """
    recorded, ours = record("models/vibe", "losses"), losses(made)
    tolerance = 1e-3 if metadata.version("opencv-python").startswith("4.") else 0.03
    expected = {tag: pytest.approx(of, rel=tolerance) for tag, of in (recorded.value or {}).items()}
    if recorded.rewrite and ours != expected:
        equal = {tag for tag in ours.keys() & expected.keys() if ours[tag] == expected[tag]}
        recorded.write({tag: recorded.value[tag] if tag in equal else ours[tag] for tag in ours})
        return
    assert ours == expected, f"{recorded}"
