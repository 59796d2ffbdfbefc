"""A reader's own columns: what the contract and `verify` find, and what another declaration reads
again.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cache
from cache import ExtraColumn
from pipeline import cameras
from pipeline.conversion import convert, plan
from pipeline.datasets.base import Dataset
from pipeline.datasets.checks import LabelRules
from pipeline.files.raw import RawVideo
from pipeline.testing import datasets as contract

CONTACT = ExtraColumn(
    name="contact", about="on the ground", shape=(4,), dtype="uint8", mirror=((0, 2), (1, 3))
)
EXTRINSICS = ExtraColumn(
    name="extrinsics", about="world to camera", unit="m", shape=(4, 4), mirror=cameras.mirrored
)
UP = ExtraColumn(
    name="up",
    about="up in the world",
    shape=(3,),
    per="track",
    mirror=lambda up: up * np.float32([-1, 1, 1]),
)


@dataclass(frozen=True)
class Steps(Dataset):
    """<video>.txt: a line a frame, of four flags."""

    name = "steps"
    splits = ("train",)
    version = 1
    declared: ClassVar[tuple[ExtraColumn, ...]] = (CONTACT, EXTRINSICS, UP)
    spoil: ClassVar[Callable[[Any], dict[str, Any]]] = lambda extra: extra

    def columns(self, split, *, body):
        return ("frame_index",)

    def extra_columns(self, split, *, body):
        return self.declared

    def videos(self, raw, split):
        return [RawVideo(file.stem, files=(Path(file.name),)) for file in sorted(raw.glob("*.txt"))]

    def read(self, raw, split, video, account, body):
        contact = np.loadtxt(raw / video.files[0], np.uint8, ndmin=2)
        account.found = len(contact)
        account.keep_track(len(contact))
        camera = np.tile(np.eye(4, dtype=np.float32), (len(contact), 1, 1))
        camera[:, :3, 3] = np.arange(len(contact))[:, None]
        camera[:, :3, :3] = Rotation.from_rotvec([0, 0, 0.5]).as_matrix()
        extra = {"contact": contact, "extrinsics": camera, "up": np.float32([0.6, 0.8, 0])}
        return [
            self.track(
                split,
                video,
                fps=25.0,
                frame_index=np.arange(len(contact)),
                extra=type(self).spoil(extra),
            )
        ]


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.txt").write_text("0 0 0 1\n0 1 0 1\n1 1 0 0\n")
    (folder / "b.txt").write_text("1 0 0 0\n")
    return folder


def in_mm(extrinsics):
    """Of a camera that stands some 3 m away."""
    changed = extrinsics.copy()
    changed[:, :3, 3] = (changed[:, :3, 3] + [3, 0, 0]) * 1000
    return changed


def variant(**changes):
    changes = {
        key: staticmethod(value) if key == "spoil" else value for key, value in changes.items()
    }
    return type("Steps", (Steps,), changes)()


def spoilt(**arrays):
    """Delivers others in the place of these columns; None: not at all."""

    def spoil(extra):
        changed = {
            k: array(extra[k]) if callable(array) and k in extra else array
            for k, array in arrays.items()
        }
        return {name: array for name, array in {**extra, **changed}.items() if array is not None}

    return {"spoil": spoil}


def declared(name, **change):
    return {
        "declared": tuple(replace(c, **change) if c.name == name else c for c in Steps.declared)
    }


RANDOM = np.random.default_rng(0)
FAULTS = {
    "a wrong shape": (
        r"contact is \(3, 3\), expected \(3, 4\)",
        spoilt(contact=lambda c: c[:, :3]),
    ),
    "a wider type": (
        "extrinsics is float64, not float32",
        spoilt(extrinsics=lambda e: e.astype(np.float64)),
    ),
    "a declared column that is missing": (
        "has no contact, which its reader declares",
        spoilt(contact=None),
    ),
    "mirrored twice is another": (
        "extrinsics differs after mirroring it twice",
        declared("extrinsics", mirror=lambda e: np.roll(e, 1, axis=-1)),
    ),
    "mirrored into another type": (
        "extrinsics is invalid after mirroring",
        declared("extrinsics", mirror=lambda e: e.astype(np.float64)),
    ),
    "cameras that are scaled": (
        "is in the wrong unit: expected rows R t",
        spoilt(extrinsics=lambda e: 2 * e),
    ),
    "cameras in mm": (
        "extrinsics is in the wrong unit: expected a camera at most 1,000 m from its world's "
        "origin, found 3,0",
        spoilt(extrinsics=lambda e: in_mm(e)),
    ),
    "a mirror that fails": (
        "up cannot be mirrored: ZeroDivisionError",
        declared("up", mirror=lambda _: 1 // 0),
    ),
    "read otherwise the second time": (
        "a/0: up differs when read again",
        spoilt(up=lambda up: up + np.float32(RANDOM.uniform())),
    ),
    "two columns of one name": ("each name once", {"declared": (CONTACT, CONTACT, EXTRINSICS, UP)}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_contract_names_a_fault(fault, raw):
    expected, changes = FAULTS[fault]
    problems = contract.reader_problems(variant(**changes), raw, "train")
    assert any(re.search(expected, problem) for problem in problems), problems


def test_a_sound_reader_has_no_problem(raw):
    assert contract.reader_problems(Steps(), raw, "train") == []
    assert (
        contract.reader_problems(
            variant(labels=LabelRules(optional_extra=("up",)), **spoilt(up=None)), raw, "train"
        )
        == []
    )


def converted(reader, raw, root):
    """Why it was converted."""
    planned = plan.plan_conversion(reader, "train", raw=raw, root=root)
    if planned.why:
        convert.convert(planned)
    assert plan.plan_conversion(reader, "train", raw=raw, root=root).up_to_date
    return planned.why


class Fewer(Steps):
    declared = (CONTACT, EXTRINSICS)
    spoil = staticmethod(spoilt(up=None)["spoil"])


class Wider(Steps):
    declared = (replace(CONTACT, dtype="int32", fill=None), EXTRINSICS, UP)


def test_another_declaration_reads_all_again_and_the_plan_says_why(raw, tmp_path):
    root = tmp_path / "cache"
    converted(Fewer(), raw, root)
    assert converted(Steps(), raw, root).startswith("extra.up was not set, is")
    assert "extra.contact.dtype was uint8, is int32" in converted(Wider(), raw, root)
    split = cache.open(root)["steps/train"]
    track = split.tracks[0]
    batch = split.read([[track.start, track.stop]], None, fields=["contact", "extrinsics", "up"])
    assert batch["contact"][0].tolist() == [[0, 0, 0, 1], [0, 1, 0, 1], [1, 1, 0, 0]]
    assert batch["extrinsics"][0, :, 1, 3].tolist() == [0, 1, 2]
    assert track.extra["up"] == pytest.approx([0.6, 0.8, 0])
    reworded = variant(declared=(replace(Wider.declared[0], about="other words"), EXTRINSICS, UP))
    assert plan.plan_conversion(reworded, "train", raw=raw, root=root).up_to_date
