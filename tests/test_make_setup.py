"""`make setup` installs what the product needs, by uv where it is installed, else by pip; commands
that need tools for tests, checks and docs add them, once.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A program that writes down how it was called; uv and `python -m venv` create an environment.
PROGRAM = f"""#!/bin/sh
if [ "$1" = -c ]; then
    exec {sys.executable} "$@"
fi
echo "$(basename "$0") $*" >> {{calls}}
case "$*" in
    venv* | "-m venv"*)
        mkdir -p .venv/bin
        for name in python pip ruff; do cp "$0" .venv/bin/$name; done ;;
    *--torch-backend*) exit {{code}} ;;
esac
"""
PIP = "pip install --quiet --disable-pip-version-check"
PRODUCT = "--constraint constraints.txt --editable .[clips]"
TOOLS = "--constraint constraints.txt --group dev --group docs"
SYSTEM = ("basename", "cp", "mkdir", "touch")


def found(name):
    program = shutil.which(name)
    assert program is not None
    return program


class Clone:
    def __init__(self, folder):
        self.folder = folder / "a clone"
        self.programs = folder / "bin"
        self.calls_file = folder / "calls"
        self.folder.mkdir()
        self.programs.mkdir()
        for name in ("Makefile", "constraints.txt", "find_python.sh", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder)
        for name in SYSTEM:  # its Pythons and its uv stay out
            (self.programs / name).symlink_to(found(name))

    def has(self, name, code=0):
        program = self.programs / name
        program.write_text(PROGRAM.format(calls=self.calls_file, code=code))
        program.chmod(0o755)

    def make(self, *words):
        """Run `make`. Returns what it prints, and the calls of the programs."""
        self.calls_file.write_text("")
        done = subprocess.run(
            [found("make"), *words],
            cwd=self.folder,
            env={"PATH": str(self.programs)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout, self.calls_file.read_text().splitlines()


@pytest.fixture
def clone(tmp_path):
    made = Clone(tmp_path)
    made.has("python3.13")
    return made


def test_uv_installs_the_product_alone_with_the_pytorch_of_this_machine(clone):
    clone.has("uv")
    printed, calls = clone.make("setup")
    python = clone.programs / "python3.13"
    assert calls == [
        f"uv venv --quiet --allow-existing --seed --python {python} .venv",
        f"uv pip install --quiet --python .venv/bin/python {PRODUCT} --torch-backend auto",
    ]
    assert "no builds of PyTorch" not in printed
    assert clone.make("setup")[1] == []


def test_where_uv_cannot_reach_the_builds_of_pytorch_it_installs_those_of_the_package_index(clone):
    clone.has("uv", code=2)
    printed, calls = clone.make("setup")
    assert "no builds of PyTorch for this machine: from the package index" in printed
    assert calls[-1] == f"uv pip install --quiet --python .venv/bin/python {PRODUCT}"
    assert clone.make("setup")[1] == []


def test_without_uv_pip_installs_the_product_alone(clone):
    assert clone.make("setup")[1] == [
        "python3.13 -m venv .venv",
        f"{PIP} pip>=25.1",
        f"{PIP} {PRODUCT}",
    ]
    assert clone.make("setup")[1] == []


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_commands_that_need_tools_add_them_once_and_again_when_pyproject_changes(clone, installer):
    if installer == "uv":
        clone.has("uv")
    clone.make("setup")
    installs, *others = clone.make("lint")[1]
    assert installs.startswith(f"{installer} ")
    assert installs.endswith(TOOLS)
    assert others == ["ruff check .", "ruff format --check ."]
    assert clone.make("lint")[1] == others
    (clone.folder / "pyproject.toml").touch()
    calls = clone.make("lint")[1]
    assert [call for call in calls if PRODUCT in call]
    assert calls[-3:] == [installs, *others]


def test_without_a_python_that_fits_nothing_is_made(clone):
    (clone.programs / "python3.13").unlink()
    with pytest.raises(subprocess.CalledProcessError) as ended:
        clone.make("setup")
    assert ended.value.returncode == 2
    assert "found no Python 3.11, 3.12 or 3.13" in ended.value.stderr
    assert not (clone.folder / ".venv").exists()


def test_commands_of_the_product_add_no_tools(clone):
    clone.has("uv")
    clone.make("setup")
    assert clone.make("try")[1] == ["python -m pipeline try"]
