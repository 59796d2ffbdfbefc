"""`make setup` finds a Python that fits, whatever comes first on the PATH; `.ci/run` the oldest and
the newest.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "find_python.sh"
NAMES = ("python3.13", "python3.12", "python3.11", "python3")
# answers as a Python of another version does: whether it fits is asked by its exit code
OTHER = "#!/bin/sh\nexit 1\n"
FITTING = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
UV = """#!/bin/sh
case "$2" in
    install) touch "$(dirname "$0")/installed" ;;
    find) [ -e "$(dirname "$0")/installed" ] && echo /uv/python3.12 ;;
esac
"""


@pytest.fixture
def programs(tmp_path):
    """A folder with Pythons of which none fits, first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in NAMES:
        write(folder / name, OTHER)
    return folder


def write(file, text):
    file.write_text(text)
    file.chmod(0o755)


def find(programs, python="", folder=None):
    for name in ("dirname", "touch"):  # no more of the system: its Pythons and its uv stay out
        program = shutil.which(name)
        assert program is not None
        if not (programs / name).exists():
            (programs / name).symlink_to(program)
    environment = {"PATH": str(programs), "PYTHON": python}
    return subprocess.run(
        ["/bin/sh", str(SCRIPT)],
        cwd=folder or programs,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_one_that_fits_is_found_behind_others(programs, name):
    write(programs / name, FITTING)
    assert find(programs).stdout == f"{programs / name}\n"


def test_the_newest_that_fits_is_taken_and_another_if_it_is_named(programs):
    for name in ("python3.12", "python3.11"):
        write(programs / name, FITTING)
    assert find(programs).stdout == f"{programs / 'python3.12'}\n"
    assert find(programs, "python3.11").stdout == f"{programs / 'python3.11'}\n"


def test_an_environment_that_is_there_keeps_its_python(programs, tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    own = tmp_path / ".venv/bin/python"
    write(own, FITTING)
    write(programs / "python3.13", FITTING)
    assert find(programs, folder=tmp_path).stdout == ".venv/bin/python\n"
    own.unlink()
    own.symlink_to("/nowhere/python3.12")  # an interpreter that was removed
    assert find(programs, folder=tmp_path).stdout == f"{programs / 'python3.13'}\n"


def test_a_path_with_spaces_is_one_python(programs, tmp_path):
    named = tmp_path / "my python"
    write(named, FITTING)
    assert find(programs, str(named)).stdout == f"{named}\n"


def test_uv_installs_one_if_none_fits(programs):
    write(programs / "uv", UV)
    for _ in range(2):
        assert find(programs).stdout == "/uv/python3.12\n"


def test_without_any_a_line_says_what_to_install(programs):
    answer = find(programs)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "found no Python 3.11, 3.12 or 3.13 with venv. (Luigi has no" in answer.stderr
    assert "make PYTHON=/path/to/python3.12 setup" in answer.stderr
    named = find(programs, "python3")
    assert "3.13 with venv, but PYTHON=python3." in named.stderr


MAKE = """#!/bin/sh
echo "$PYTHON $VENV $*" >> calls
if [ "$1" = test ]; then
    [ -e "$VENV" ] && echo "two environments" >> calls
    mkdir -p "$VENV/bin"
    printf '#!/bin/sh\n' > "$VENV/bin/python"
    chmod +x "$VENV/bin/python"
fi
"""


def checks(programs, folder, python=""):
    """What `.ci/run` has `make` do, in a clone with Pythons on the PATH and pyenv's in HOME."""
    (folder / ".ci").mkdir(parents=True)
    for name in (".ci/run", SCRIPT.name):
        shutil.copy(ROOT / name, folder / name)
    write(programs / "make", MAKE)
    subprocess.run(
        [str(folder / ".ci/run")],
        env={
            "PATH": f"{programs}:/usr/bin:/bin",
            "HOME": str(programs.parent),
            "PYENV_ROOT": str(programs.parent / "pyenv"),
            "PYTHON": python,
            "SLOW": "3",
        },
        check=True,
    )
    assert not (folder / ".venv-ci").exists()
    return (folder / "calls").read_text().splitlines()


def test_the_checks_run_the_tests_by_the_oldest_and_the_newest_python_and_the_rest_by_the_newest(
    programs, tmp_path
):
    for name in ("python3.12", "python3.11"):
        write(programs / name, FITTING)
    oldest = programs / "python3.11"
    newest = tmp_path / "pyenv/versions/3.13.0/bin/python"
    newest.parent.mkdir(parents=True)
    write(newest, FITTING)
    assert checks(programs, tmp_path / "clone") == [
        f"{oldest} .venv-ci test",
        f"{newest} .venv-ci test",
        f"{newest} .venv-ci lint types",
        f"{newest} .venv-ci docs",
        f"{newest} .venv-ci test-slow SLOW=3",
    ]


def test_the_checks_run_by_the_python_that_is_named_alone(programs, tmp_path):
    for name in ("python3.12", "python3.11"):
        write(programs / name, FITTING)
    calls = checks(programs, tmp_path / "clone", "python3.12")
    assert {call.split()[0] for call in calls} == {"python3.12"}
    assert len(calls) == 4
