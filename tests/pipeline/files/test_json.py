from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RawDataError
from pipeline.files.formats.json_files import kind, whole

FILE = Path("labels.json")


@pytest.mark.parametrize("value", [3, 3.0, -7, 0, 2**53])
def test_whole_numbers_may_be_written_as_floats(value: Any) -> None:
    assert whole(FILE, "id", value, do="") == value


@pytest.mark.parametrize("value", [True, None, 1.5, float("nan"), float("inf"), 2**53 + 1, 10**400, "3", [1]])
def test_anything_else_is_no_whole_number(value: Any) -> None:
    with pytest.raises(RawDataError, match="'id': expected a whole number, found "):
        whole(FILE, "id", value, do="")


def test_a_description_is_short() -> None:
    assert kind("x" * 40) == f"a text '{'x' * 40}'"
    assert kind("x" * 41) == f"a text '{'x' * 40}'..."
    assert (kind(2**53), kind(2**53 + 1)) == (str(2**53), "a number out of range")
