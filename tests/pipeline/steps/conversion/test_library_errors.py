"""A library that lacks something in its version: no file is to blame, and none is given up."""

import re
import sys
from types import ModuleType

import pytest
from google.protobuf import message_factory, text_format
from scipy.spatial.transform import Rotation

from pipeline.errors import RawDataError, describe_error, library_of
from pipeline.files.formats import tfrecords
from pipeline.files.formats.arrays import reading

CONVERT = "convert insta_variety/train --raw RAW/insta_variety --cache CACHE"


@pytest.fixture
def records(embedded, tmp_path):
    """The raw files of InstaVariety's demo data."""
    raw = embedded.copy("insta_variety", tmp_path / "raw/insta_variety")
    return sorted(raw.glob("train/*.tfrecord"))


def test_videos_at_which_a_library_fails_name_its_version_and_are_read_by_the_next_run(
    records, types, monkeypatch
):
    with monkeypatch.context() as earlier:
        earlier.delattr(message_factory, "GetMessageClass")
        tfrecords._message.cache_clear()
        named = f"protobuf {sys.modules['google.protobuf'].__version__}"
        said = types(CONVERT, "library_error: AttributeError", named, "could not be read", code=1)
    assert "Unpack or download" not in said
    assert "--retry" not in said
    assert "library_error" not in types(CONVERT)
    assert "0 rejected" not in types("status --all --cache CACHE")


def test_a_damaged_record_is_still_the_files(records, types):
    damaged = bytearray(records[0].read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    records[0].write_bytes(damaged)
    assert "library_error" not in types(CONVERT, "record_damaged", "Unpack or download")


def lacks_attribute():
    return Rotation.from_nothing


def lacks_name():
    from scipy.spatial import nothing

    return nothing


def fails_within():
    return text_format.Parse("x: 1", None)  # an AttributeError of protobuf's own code


def is_not_installed():
    import no_such_package

    return no_such_package


@pytest.mark.parametrize(
    ("fail", "named"),
    [
        (lacks_attribute, r"scipy \d+\.\d+\.\d+"),
        (lacks_name, r"scipy \d+\.\d+\.\d+"),
        (fails_within, r"protobuf \d+\.\d+\.\d+"),
        (is_not_installed, "no_such_package, which is not installed"),
        (lambda: None.shape, ""),  # of our own code, perhaps for what a file holds
        (lambda: ModuleType("mine").name, ""),
        (lambda: __import__("xml.nothing"), "xml.nothing, which is not installed"),
        (lambda: Rotation.from_quat([]), ""),  # a ValueError: it may well be the file's
    ],
)
def test_only_what_a_library_lacks_is_about_it(fail, named, tmp_path):
    expected = RawDataError if not named else (AttributeError, ImportError)
    with pytest.raises(expected) as raised, reading(tmp_path / "labels", "labels"):
        fail()
    error = raised.value if named else raised.value.__cause__
    assert re.fullmatch(named, library_of(error))
    assert re.search(rf"test_library_errors\.py:\d+, {named}\)$|\)$", describe_error(error))
