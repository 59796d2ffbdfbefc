"""What a command imports before it works: modules, of which each costs time at each start."""

import functools
import subprocess
import sys

import pytest

from pipeline import table

DECODERS = {"av", "cv2", "h5py", "ijson", "simplejpeg"}


def imports(*words):
    """Modules that Python imports for these words."""
    command = [sys.executable, "-X", "importtime", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@functools.cache
def bare():
    return imports("-c", "pass")


def modules(*words, program="pipeline"):
    """Modules of a command that a bare Python does not have."""
    return imports("-m", program, *words) - bare()


@pytest.fixture(scope="module")
def penn(embedded, tmp_path_factory):
    """The words after `convert` for a split that is up to date, and its cache."""
    root = tmp_path_factory.mktemp("start") / "cache"
    words = ["penn_action/train", "--raw", embedded.raw("penn_action"), "--cache", root]
    imports("-m", "pipeline", "convert", *words)
    return words, root


def test_status_and_a_conversion_with_nothing_to_do_import_no_decoder(penn):
    words, root = penn
    for most, command in ((450, ["status", "--cache", root]), (500, ["convert", *words])):
        loaded = modules(*command)
        assert not loaded & {"pydantic", *DECODERS}, command
        assert len(loaded) <= most, sorted(loaded)


@pytest.mark.parametrize("program", table.COMMANDS)
def test_help_of_the_program_imports_the_standard_library_alone(program):
    loaded = modules("--help", program=program)
    assert not loaded & {"rich", "numpy", "cache", "pydantic", "importlib.metadata"}
    assert len(loaded) <= 110, sorted(loaded)


def test_help_of_a_command_imports_nothing_that_it_works_with():
    commands = [(program, name) for program, names in table.COMMANDS.items() for name in names]
    for program, name in commands:
        loaded = modules(name, "--help", program=program)
        assert not loaded & {"rich", "numpy", "cache", *DECODERS}, name
        assert len(loaded) <= 250, sorted(loaded)
