"""`make quick`: for a minute, the tests nearest to what differs from HEAD.

The nearest test file has the name of a changed file. Then come those that import it, those in the
mirror of its folder, those that import what imports it, and the others of its package; of equally
near ones, first those whose paths have more words in common with its own. At the end, the tests of
architecture, lines and names.
"""

import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

PRODUCT = ("cache/", "pipeline/", "tasks/", "vibe_model/")
PACKAGES = ("benchmarks", "cache", "pipeline", "tasks", "tests", "vibe_model")
AT_THE_END = (
    "tests/test_architecture.py",
    "tests/test_how_a_line_reads.py",
    "tests/test_public_names.py",
)
# test files of minutes, which run if they, or what their folder mirrors, have changed
LONG = ("tests/docs/", "tests/journeys/", "tests/pipeline/cluster/", "tests/test_gold.py")
MOST_FILES = 20
LIMIT_S = 40  # for the nearest tests; start and end take 20 s
IMPORT = re.compile(r"^ *(?:from ([\w.]+) import (\([^)]*\)|.*)|import ([\w.]+))", re.MULTILINE)
DOTTED = re.compile(rf"\b(?:{'|'.join(PACKAGES)})(?:\.\w+)+")
SAME_NAME, IMPORTS, SAME_FOLDER, IMPORTS_AN_IMPORTER, SAME_PACKAGE = range(1, 6)
clock = time.monotonic


def changed_files():
    names = set()
    for words in ("diff --name-only HEAD", "ls-files --others --exclude-standard"):
        done = subprocess.run(["git", *words.split()], capture_output=True, text=True, check=True)
        names.update(done.stdout.splitlines())
    return sorted(names)


def module_name(file):
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def importers():
    """Module -> the files that name it: in an import, or in a text, such as "cache.read:Split"."""
    files = [file for package in PACKAGES for file in Path(package).rglob("*.py")]
    modules = {module_name(file) for file in files}
    found = defaultdict(set)
    for file in files:
        text = file.read_text()
        names = set(DOTTED.findall(text))
        for module, members, plain in IMPORT.findall(text):
            names.add(module or plain)
            names.update(f"{module}.{member}" for member in re.findall(r"\w+", members))
        for name in names:
            while name and name not in modules:
                name = name.rpartition(".")[0]
            found[name].add(file)
    return found


def words_of(file):
    return set(re.split(r"\W|_", str(file)))


def mirror_of(file):
    """The folder of tests for a file's folder, or for the next one above it that has tests."""
    if file.suffix == ".md":
        return Path("tests/docs")
    if file.parts[0] == "tests":
        return file.parent
    folder = Path("tests", file.parent)
    while not folder.is_dir():
        folder = folder.parent
    return folder


def ranks(changed, importers):
    """The test files near to a changed file, each with its rank: 0, the file itself, to 5."""
    direct = importers[module_name(changed)]
    indirect = {file for one in direct for file in importers[module_name(one)]}
    mirror = mirror_of(changed)
    stem = changed.parent.name if changed.stem == "__init__" else changed.stem
    near = {}
    for test in Path("tests").rglob("test_*.py"):
        is_of_package = test.parts[1] == changed.parts[0]
        if test == changed:
            near[test] = 0
        elif str(test).startswith(LONG) and not f"{mirror}/".startswith(LONG):
            continue
        elif is_of_package and test.stem == f"test_{stem}":
            near[test] = SAME_NAME
        elif test in direct:
            near[test] = IMPORTS
        elif test.parent == mirror:
            near[test] = SAME_FOLDER
        elif test in indirect:
            near[test] = IMPORTS_AN_IMPORTER
        elif is_of_package:
            near[test] = SAME_PACKAGE
    return near


def nearest(names):
    """The test files near to changed files, the nearest first."""
    of_modules = importers()
    keys = {}
    for name in names:
        changed = Path(name)
        for test, rank in ranks(changed, of_modules).items():
            key = (rank, -len(words_of(test) & words_of(changed)), str(test))
            keys[str(test)] = min(key, keys.get(str(test), key))
    return sorted(keys.keys() - {*AT_THE_END}, key=keys.get)


def has_examples(name):
    """Whether a file, which may be gone, is code of the product, whose docstrings are run."""
    return name.startswith(PRODUCT) and name.endswith(".py") and Path(name).exists()


class Quick:
    """Has pytest run files in an order, and leave what the time does not suffice for."""

    def __init__(self, files):
        self.files = files
        self.end = 0.0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda item: self.files.index(item.nodeid.partition("::")[0]))
        self.end = clock() + LIMIT_S

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        if clock() > self.end and not item.nodeid.startswith(AT_THE_END):
            pytest.skip("no time left: make test")


def main():
    changed = changed_files()
    if not changed:
        sys.exit("nothing differs from HEAD")
    near = nearest(changed)
    files = [*filter(has_examples, changed), *near[:MOST_FILES], *AT_THE_END]
    ended = pytest.main(["-x", *files], plugins=[Quick(files)])
    all_files = {str(file) for file in Path("tests").rglob("test_*.py")}
    n_left = len(all_files.difference(files))
    print(f"{n_left} of {len(all_files)} test files left: make test")  # noqa: T201
    return ended


if __name__ == "__main__":
    sys.exit(main())
