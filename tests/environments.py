"""Commands in processes of their own, and fresh environments of Python for them."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def run(words, folder, **more):
    """A finished process in a folder, with more variables of the environment."""
    pipes = {"capture_output": True, "text": True}
    return subprocess.run([*map(str, words)], cwd=folder, env=os.environ | more, **pipes)


def git(folder, *words, **more):
    """What git prints in a folder."""
    named = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words]
    done = run(named, folder, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_apart(words, folder, **more):
    """A finished process that knows nothing of this checkout or of its tests; its output and its
    errors are one text.
    """
    own = ("PYTEST", "COVERAGE", "PYTHONPATH", "LUIGI_CONFIG_PATH")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    environment |= {"COLUMNS": "200", "OMP_NUM_THREADS": "1", **more}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    words = [*map(str, words)]
    return subprocess.run(words, cwd=folder, env=environment, check=False, timeout=1800, **pipes)


def fresh_python(home):
    """The interpreter of a new environment. Other packages are the running one's."""
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    # Folders named so have no .pth files run in them: this checkout's editable installation stays
    # unknown.
    (site / "others.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    return home / "bin/python"
