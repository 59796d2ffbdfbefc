"""A fixture of the tests of conversions by command."""

import pytest


@pytest.fixture
def by_command(penn, ran):
    """`convert` of Penn Action's train split; both outputs."""

    def run(*more, raw=penn.raw, code=0):
        shown = ran("convert", penn.name, "--raw", raw, "--cache", penn.root, *more, code=code)
        return str(shown.out + shown.err)

    return run
