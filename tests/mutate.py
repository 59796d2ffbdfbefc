"""Which planted faults do the tests notice?

    .venv/bin/python -m pytest --numprocesses 2 --cov --cov-context=test --cov-report=
    nice .venv/bin/python tests/mutate.py --coverage .coverage

A fault is one operator, comparison, condition, number or truth value that is changed in a file
of the product, drawn by file, in a clone of HEAD. The tests that run its line, as the coverage
says, are run until one fails: those of the file's own name first, NEAREST at most. A test that
fails without the fault, too, or runs out of time, does not count. A fault that changes no result,
or the number in a message, is rightly not noticed.

Results are kept in a file by fault, product and tests: the same command goes on where it stopped.
`--all` runs all tests of a line, and lists at the end how many faults each test noticed, and how
many of them alone. Two states of the tests are compared with one product: `--tests REV` runs the
tests of another commit, with the coverage of those.
"""

import argparse
import ast
import gc
import hashlib
import importlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

DRAWN = {"cache": 60, "pipeline": 60, "vibe_model": 20, "tasks": 10}  # faults of 150, by folder
NEAREST = 250
LIMIT_S = 300  # for one test
SWAPPED = "Add-Sub Mult-Div FloorDiv-Mult Mod-Mult And-Or Lt-LtE Gt-GtE Eq-NotEq Is-IsNot In-NotIn"
SWAP = {}
for pair in SWAPPED.split():
    one, other = (getattr(ast, name) for name in pair.split("-"))
    SWAP |= {other: one, one: other}
IMPORTED_ONCE = "hypothesis torch torchvision zarr scipy.signal scipy.stats h5py cv2 cdflib luigi"


def mutable(tree):
    """Operators, comparisons, conditions and constants of a file that may be changed."""
    kept = set()
    for node in ast.walk(tree):
        for decorator in getattr(node, "decorator_list", ()):
            kept.update(ast.walk(decorator))
        if isinstance(node, ast.keyword) and node.arg == "strict":
            kept.add(node.value)
    nodes = [node for node in ast.walk(tree) if node not in kept]
    return [node for node in nodes if can_change(node)]


def can_change(node):
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        return type(node.op) in SWAP
    if isinstance(node, ast.Compare):
        return type(node.ops[0]) in SWAP
    if isinstance(node, ast.If | ast.IfExp):
        return not isinstance(node.test, ast.BoolOp | ast.Compare)
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def change(node):
    """Change a node. Returns what stood there, and what stands there now."""
    shown = node.test if isinstance(node, ast.If | ast.IfExp) else node
    before = ast.unparse(shown)
    if isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.Compare):
        node.ops[0] = SWAP[type(node.ops[0])]()
    elif isinstance(node, ast.If | ast.IfExp):
        node.test = shown = ast.UnaryOp(ast.Not(), node.test)
    else:
        node.op = SWAP[type(node.op)]()
    return before, ast.unparse(shown)


def runs_at_import(tree, line):
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return not any(node.body[0].lineno <= line <= node.end_lineno for node in functions)


def tests_of(coverage, file, line):
    """Tests that run a line, or any line of the file if `line` is None; the nearest by name first."""
    rows = coverage.execute(
        "select distinct context from arc join file on file.id = file_id join context on "
        "context.id = context_id where path like ? and coalesce(? in (fromno, tono), true)",
        (f"%/{file}", line),
    )
    tests = {context.rpartition("|")[0] for (context,) in rows} - {""}
    stem = Path(file).stem
    words = set(re.split(r"\W|_", str(file)))

    def distance(test):
        path = test.partition("::")[0]
        n_shared = len(words & set(re.split(r"\W|_", path)))
        return "journeys" in path, stem not in path, -n_shared, test  # journeys take long

    return sorted(tests, key=distance)


class Watched:
    """Has pytest run tests in their order, and log how each of them ends."""

    def __init__(self, tests, log):
        self.places = {test: place for place, test in enumerate(tests)}
        self.log = log

    def write(self, word, test):
        with self.log.open("a") as file:
            file.write(f"{word}\t{test}\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if item.nodeid in self.places]
        items.sort(key=lambda item: self.places[item.nodeid])

    def pytest_collectreport(self, report):
        if report.failed:
            self.write("failed", report.nodeid)

    def pytest_runtest_logstart(self, nodeid):
        signal.alarm(LIMIT_S)
        self.write("begun", nodeid)

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.write("failed", report.nodeid)

    def pytest_runtest_logfinish(self, nodeid):
        self.write("ended", nodeid)


def run(clone, tests, *options):
    """Run tests in a process that need not import again what takes long; it keeps no bytecode.

    Returns those that failed, those that ran out of time, and those that are still to run.
    """
    log = clone.with_name("log")
    log.write_text("")
    if not (child := os.fork()):
        os.setsid()
        os.chdir(clone)
        os.environ["PYTHONPATH"] = sys.path[0] = str(clone)
        sys.dont_write_bytecode = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        signal.alarm(LIMIT_S)
        files = dict.fromkeys(test.partition("::")[0] for test in tests)
        given = ["-q", "-p", "no:cacheprovider", "-W", "ignore:Module already imported", *options]
        os._exit(pytest.main([*given, *files], plugins=[Watched(tests, log)]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    subprocess.run(["pkill", "-9", "-g", str(child)])  # what the tests started
    logged = {"begun": [], "failed": [], "ended": []}
    for line in log.read_text().splitlines():
        word, test = line.split("\t")
        logged[word].append(test)
    stopped = [test for test in logged["begun"] if test not in logged["ended"]]
    late = stopped if code == -signal.SIGALRM else []
    failed = list(dict.fromkeys([*logged["failed"], *stopped]))  # or it ended the process
    if late:
        failed.remove(*late)
    if not logged["begun"] and not failed and code not in (0, 5):  # 5: there are no such tests
        failed = ["tests/conftest.py"]
    if not stopped and "-x" not in options:
        return failed, late, []
    left = [test for test in tests if test not in logged["begun"]]
    return failed, late, [test for test in left if test.partition("::")[0] not in failed]


def notice(clone, path, changed, tests, every):
    """Tests that fail with a changed file, but not without the change: the first, or every one."""
    source = path.read_text()
    options = ["--continue-on-collection-errors"] if every else ["-x"]
    noticed, left = [], tests
    while left and (every or not noticed):
        path.write_text(changed)
        failed, _, left = run(clone, left, *options)
        path.write_text(ast.unparse(ast.parse(source)))  # with the same lines
        wrong = [test for tests in run(clone, failed) for test in tests] if failed else []
        path.write_text(source)
        noticed += [test for test in failed if test not in wrong]
    return noticed


def faults(clone, seed, shares):
    """(number, path, line and column, before, after, changed file) of each fault, as it is drawn."""
    draw = random.Random(seed)
    paths = {folder: sorted(clone.glob(f"{folder}/**/*.py")) for folder in shares}
    folders = [folder for folder, count in shares.items() for _ in range(count)]
    for number, folder in enumerate(folders):
        nodes = []
        while not nodes:
            path = draw.choice(paths[folder])
            tree = ast.parse(path.read_text())
            nodes = mutable(tree)
        node = draw.choice(nodes)
        imported = runs_at_import(tree, node.lineno)
        place = f"{path.relative_to(clone)}:{node.lineno}:{node.col_offset}"
        before, after = change(node)
        yield number, path, place, imported, before, after, ast.unparse(tree)


def git(*words):
    return subprocess.check_output(["git", *words], text=True)


def count_of(tests):
    """Lines: how many faults each test noticed, and how many of them no other test."""
    counts = Counter(test for noticed in tests for test in noticed)
    alone = Counter(noticed[0] for noticed in tests if len(noticed) == 1)
    return [f"{count}\t{alone[test]}\t{test}" for test, count in sorted(counts.items())]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--coverage", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=".mutations.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=sum(DRAWN.values()))
    parser.add_argument("--under", help="a folder of the product for all faults")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of faults")
    parser.add_argument("--all", action="store_true", help="each test that notices a fault")
    parser.add_argument("--tests", default="HEAD", help="the commit whose tests are run")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # as tests/conftest.py has it, before torch is imported
    for name in IMPORTED_ONCE.split():
        importlib.import_module(name)
    gc.freeze()
    coverage = sqlite3.connect(args.coverage)
    shares = {folder: round(n * args.faults / 150) for folder, n in DRAWN.items()}
    if args.under:
        shares = {args.under: args.faults}
    product = git("rev-parse", *(f"HEAD:{folder}" for folder in DRAWN))
    trees = [hashlib.sha256(product.encode()).hexdigest(), git("rev-parse", f"{args.tests}:tests")]
    known = {}
    if args.results.exists():
        for line in args.results.read_text().splitlines():
            *key, noticed = json.loads(line)
            known[tuple(key)] = noticed
    tests_of_faults = []
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary, "clone")
        git("clone", "-q", ".", str(clone))
        git("-C", str(clone), "rm", "-rq", "tests")
        git("-C", str(clone), "checkout", "-q", args.tests, "--", "tests")
        for number, path, place, imported, before, after, changed in faults(
            clone, args.seed, shares
        ):
            if args.only and number not in args.only:
                continue
            file, line, _ = place.split(":")
            begun = time.monotonic()
            key = (*trees, args.all, place, before, after)
            if key not in known:
                tests = [] if imported else tests_of(coverage, file, int(line))
                tests = tests or tests_of(coverage, file, None)  # a later line of a statement, too
                run = tests if args.all else tests[:NEAREST]
                known[key] = notice(clone, path, changed, run, args.all)
                with args.results.open("ab", buffering=0) as results:
                    results.write(f"{json.dumps([*key, known[key]])}\n".encode())
            noticed = known[key]
            tests_of_faults.append(noticed)
            seconds = round(time.monotonic() - begun)
            state = "noticed" if noticed else "not noticed"
            row = (number, state, place, before, after, seconds, *noticed)
            print(*(str(part).replace("\n", " ") for part in row), sep="\t", flush=True)  # noqa: T201
    n_noticed = sum(map(bool, tests_of_faults))
    print(f"{n_noticed} of {len(tests_of_faults)} noticed")  # noqa: T201
    if args.all:
        print("faults\talone\ttest", *count_of(tests_of_faults), sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
