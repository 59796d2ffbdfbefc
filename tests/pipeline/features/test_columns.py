"""Streams whose networks get columns beside the crop: the values of each row, its key, and
refusals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import cache
from cache import CropPolicy, Jitter
from pipeline import table
from pipeline.errors import ConfigError
from pipeline.features import streams
from pipeline.features.networks.base import Loaded, Normalisation
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import LabelStream, Machine, Precision
from pipeline.features.streams.network import NetworkStream
from pipeline.processes.settings import Resources
from pipeline.steps.extraction.extract import extract_together
from pipeline.steps.extraction.plan import plan_extraction
from pipeline.testing.streams import stream_problems
from tests.oracles.features import SAME, differences
from tests.pipeline.features.made_pictures import SPLIT, N, box_of, convert, expected

SMALL = CropPolicy(size=16)
COLUMNS = ("bbox", "crop_scale", "image_size", "intrinsics")
DIM = 3 + 4 + 1 + 2 + 9
ONE_WORKER = Resources(device="cpu", workers=1, batch_size=4)


class Beside(torch.nn.Module):
    """The crop's mean colour, and all that it gets beside it."""

    def forward(self, pixels, **columns):
        assert {values.dtype for values in columns.values()} == {torch.float32}
        rows = [columns[name].reshape(len(pixels), -1) for name in COLUMNS]
        return torch.cat([pixels.mean((2, 3)), *rows], 1)


@dataclass(frozen=True, kw_only=True)
class Conditioned(NetworkStream):
    precision: Precision = "exact"
    crop: CropPolicy = SMALL

    kind = "conditioned"
    dim = DIM
    dtype = "float32"

    @property
    def columns(self):
        return COLUMNS

    def load_network(self):
        parts = [{"offset": i} for i in (0, 3, 7, 8, 10)]
        about = {"network": "beside", "sha256": "0", "stand_in": True, "parts": parts}
        return Loaded(Beside(), about, (16, 16), Normalisation(16))


@dataclass(frozen=True, kw_only=True)
class Cliff(LabelStream):
    kind = "cliff"
    dim = 3
    columns = ("bbox", "image_size", "intrinsics")

    def __call__(self, labels):
        focal = labels["intrinsics"][:, 0, 0]
        middle = labels["bbox"][:, :2] - labels["image_size"] / 2
        numbers = np.column_stack([middle, labels["bbox"][:, 2]]) / focal[:, None]
        return numbers.astype(np.float32), np.ones(len(numbers), bool)


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    for name, cls in (("conditioned", "Conditioned"), ("cliff", "Cliff"), ("plain", "Plain")):
        monkeypatch.setitem(table.OWN[streams.ENTRY_POINTS], name, f"{__name__}:{cls}")


@dataclass(frozen=True, kw_only=True)
class Plain(Conditioned):
    """The same without columns."""

    kind = "plain"
    dim = 3

    @property
    def columns(self):
        return ()

    def load_network(self):
        network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        return Loaded(
            network,
            {"network": "mean", "sha256": "0", "stand_in": True},
            (16, 16),
            Normalisation(16),
        )


def extracted(root, stream):
    return extract_together(
        [plan_extraction(root, SPLIT, StreamSpec(stream.kind, stream))], ONE_WORKER
    )[0]


def stored(root, stream):
    """Rows of all tracks."""
    split = cache.open(root)[SPLIT]
    start = int(split.tracks.start[0])
    return split.rows(f"features/{stream}", start, start + 3 * N)


def test_a_network_gets_the_columns_of_each_row_and_changed_ones_recompute_their_rows(tmp_path):
    root = convert(tmp_path)
    for stream in (Conditioned(), Plain(), Cliff()):
        assert extracted(root, stream).computed == 3 * N
    assert_allclose(stored(root, "conditioned")[:, 3:], expected(), rtol=1e-6)
    assert_array_equal(stored(root, "conditioned")[:, :3], stored(root, "plain"))
    boxes, sizes, focal = expected()[:, :4], expected()[:, 5:7], expected()[:, 7:8]
    assert_allclose(stored(root, "cliff")[:, :2], (boxes[:, :2] - sizes / 2) / focal, rtol=1e-5)
    split = cache.open(root)[SPLIT]
    assert all((differences(split, name) < SAME).all() for name in split.streams)
    moved = {"a/1": box_of("a/1")}
    moved["a/1"][2, 0] += 1
    convert(tmp_path, moved, focal=700.0)
    assert [extracted(root, one).computed for one in (Conditioned(), Plain(), Cliff())] == [
        N + 1,
        1,
        N + 1,
    ]
    assert_allclose(stored(root, "conditioned")[:, 3:], expected(moved, 700.0), rtol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_gets_the_same_columns():
    rng = np.random.default_rng(0)
    crops, columns = (
        rng.integers(0, 256, (64, 16, 16, 3), np.uint8),
        rng.normal(0, 100, (64, DIM - 3)),
    )
    labels = dict(zip(COLUMNS, np.split(columns, (4, 5, 7), axis=1), strict=True))
    there, here = (
        Conditioned().load(Machine(device, 64), None)(crops, labels) for device in ("cuda", "cpu")
    )
    assert_allclose(there, here, rtol=1e-5)
    assert_allclose(here[:, 3:], columns, rtol=1e-6)


def test_a_split_without_a_column_is_refused(tmp_path, types):
    split = cache.open(convert(tmp_path, focal=None))[SPLIT]
    asked = ["intrinsics", "bbox", "image_size", "crop_scale"]
    assert split.unknown_columns(asked) == ["intrinsics"]
    for kind in ("conditioned", "cliff"):
        said = f"{SPLIT}: stream '{kind}' reads intrinsics"
        types(f"extract {SPLIT} --cache CACHE --kind {kind}", said, code=1)
    assert not split.streams


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"crop": CropPolicy(size=16, jitter=Jitter(copy=1))}, "jitter.*bbox"),
        ({"precision": "fast"}, "precision fast.*bbox"),
    ],
)
def test_what_columns_do_not_follow_is_refused(tmp_path, changed, message):
    with pytest.raises(ConfigError, match=message):
        extracted(convert(tmp_path), Conditioned(**changed))


class Forgetful(Conditioned):
    """Its numbers depend on the other rows' boxes, or it changes them."""

    fault = ""

    def load(self, machine, recorded):
        network = super().load(machine, recorded)
        fault = self.fault

        class Computer:
            batch_size, provenance = network.batch_size, network.provenance
            adopt, release = network.adopt, network.release

            def __call__(self, crops, labels):
                if fault == "changes its labels":
                    labels["bbox"][:] += 1
                out = network(crops, labels)
                return out + labels["bbox"].max() if fault == "batches of another size" else out

        return Computer()


@pytest.mark.parametrize("fault", ["", "changes its labels", "batches of another size"])
def test_the_contract_passes_columns_and_finds_faults(fault):
    stream = type("Forgetful", (Forgetful,), {"fault": fault})()
    problems = stream_problems(stream, another_process=False)
    assert (fault in str(problems)) if fault else not problems
