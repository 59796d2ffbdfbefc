"""Shared code: what its digest sees, and what a raised version makes again."""

import functools

import pytest

from pipeline import datasets
from pipeline.clips import detectors
from pipeline.clips.detectors import Detector
from pipeline.datasets.penn_action import PennAction
from pipeline.features.streams.homography import Homography
from pipeline.features.streams.network import ResNet50
from pipeline.steps.conversion.identity import reader_parts
from tests.shared_code import changes, digest, references

CODE = '''"""What a module does."""

import math
from pipeline.files.places import folder_of

LIMIT = 0.5  # seconds


def name_of(share, *, width=3):
    """A name."""
    if share < LIMIT:
        return f"{share:>{width}} of {math.pi!r}" + ""
    match share:
        case [first, *_]:
            return first


class Rows:
    count: int = 0
'''
EQUAL = {
    "comment": ("# seconds", "# at most"),
    "docstring": ('"""A name."""', '"""Another.\n\n    Longer."""'),
    "format": ("(share, *, width=3)", "(\n    share,\n    *,\n    width=3,\n)"),
    "quotes": ('f"{share:>{width}} of {math.pi!r}"', "f'{share:>{width}} of {math.pi!r}'"),
    "moved": ("pipeline.files.places", "pipeline.places"),
}
OTHER = {
    "number": ("0.5", "0.6"),
    "operator": ("<", "<="),
    "text": (" of {", " for {"),
    "format": ("{width}", "{width}."),
    "default": ("width=3", "width=4"),
    "none": ("return first", "return"),
    "empty": ('+ ""', ""),
    "case": ("*_", "_"),
    "field": ("count: int = 0", "count: int"),
}


@pytest.mark.parametrize("change", EQUAL)
def test_the_digest_is_of_the_code_alone(change):
    before, after = EQUAL[change]
    assert CODE.count(before) == 1
    assert digest(CODE.replace(before, after)) == digest(CODE)


@pytest.mark.parametrize("change", OTHER)
def test_every_change_of_code_is_another_digest(change):
    before, after = OTHER[change]
    assert before in CODE
    assert digest(CODE.replace(before, after)) != digest(CODE)


def test_the_digest_is_equal_in_all_versions_of_python():
    assert digest(CODE) == "a132fbe95f5cdef3"


def test_the_order_of_definitions_and_the_name_of_a_file_are_no_change():
    parts = CODE.split("\n\n\n")
    assert digest("\n\n\n".join([parts[0], *reversed(parts[1:])])) == digest(CODE)
    recorded = {"pipeline/a.py": "11", "pipeline/b.py": "22"}
    assert changes(recorded, {"pipeline/b.py": "11", "pipeline/c.py": "22"}) == []
    assert changes(recorded, {"pipeline/a.py": "11"}) == ["pipeline/b.py"]
    assert changes(recorded, {**recorded, "pipeline/a.py": "33"}) == ["pipeline/a.py"]


def test_the_class_of_a_dataset_stream_or_detector_is_no_shared_code():
    more = f"{CODE}\n\nclass Timm(Rows):\n    kind = 1\n"
    assert digest(more) != digest(CODE)
    assert digest(more, without={"Timm"}) == digest(CODE)


def test_what_a_definition_names_is_found_without_its_annotations():
    assert ("pipeline.datasets.shared.checks", "LabelRules") in references(
        "pipeline.datasets.base", "Dataset"
    )
    assert references("pipeline.people.boxes", "crop_person") >= {
        ("pipeline.people.boxes", "crop_affine")
    }
    # in its annotations alone
    assert ("pipeline.people.body", "Body") not in references("pipeline.datasets.base", "Dataset")


class Faces(Detector):
    name = "faces"

    def load(self, device): ...


def test_a_version_of_shared_code_is_in_identities_from_2_on(monkeypatch, tmp_path):
    clips = datasets.get("videos")
    users = {
        PennAction: lambda: reader_parts(PennAction(), "train", tmp_path, None),
        type(clips): lambda: reader_parts(clips, "train", tmp_path, None),
        ResNet50: ResNet50().identity,
        Homography: Homography().identity,
        Faces: functools.partial(detectors.identity, Faces()),
    }
    for user, identity in users.items():
        monkeypatch.setattr(user, "uses", {"one": 1, "other": 1})
        before = identity()
        assert "uses" not in before
        monkeypatch.setattr(user, "uses", {"one": 1, "other": 2})
        assert identity() == before | {"uses": {"other": 2}}
    for stream in (ResNet50(), Homography()):
        assert type(stream).from_identity(stream.identity()) == stream
