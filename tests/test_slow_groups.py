"""Each slow test is in one of the groups that `.ci/run` runs on the days of a week."""

from pathlib import Path

from tests.slow_groups import LIMIT_S, groups, seconds

ROOT = Path(__file__).parents[1]
MARK = "mark.slow"


def test_each_file_with_slow_tests_is_in_one_group_that_ends_in_time():
    slow = {
        str(file.relative_to(ROOT))
        for file in ROOT.glob("tests/**/test_*.py")
        if MARK in file.read_text() and file != Path(__file__)
    }
    found = [file for files in groups() for file in files]
    assert sorted(found) == sorted(slow)
    assert len(groups()) == 7
    assert max(map(seconds, groups())) <= LIMIT_S
