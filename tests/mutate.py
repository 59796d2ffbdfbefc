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

Which faults were noticed only by tests that are gone? `--gone REV`, with REV's product and coverage.
A test that reads as it did notices the same before and after. The NEAREST_REMAINING tests that
remain are run first; if none of them notices a fault, those that read otherwise, with what they use
of tests/*.py, or do not exist. If one of these notices it, all that remain are run until one does. A
fault that none of them notices is LOST.
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
from collections import Counter, defaultdict
from pathlib import Path

import pytest

DRAWN = {"cache": 60, "pipeline": 60, "vibe_model": 20, "tasks": 10}  # faults of 150, by folder
NEAREST = 250
NEAREST_REMAINING = 40
LIMIT_S = 300  # for one test
SWAPPED = "Add-Sub Mult-Div FloorDiv-Mult Mod-Mult And-Or Lt-LtE Gt-GtE Eq-NotEq Is-IsNot In-NotIn"
SWAP = {}
for pair in SWAPPED.split():
    one, other = (getattr(ast, name) for name in pair.split("-"))
    SWAP |= {other: one, one: other}
IMPORTED_ONCE = """hypothesis torch torchvision zarr scipy.signal scipy.stats h5py cv2 cdflib luigi
    distributed onnx matplotlib.figure boto3"""


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
    return nearest_first(file, {context.rpartition("|")[0] for (context,) in rows} - {""})


def nearest_first(file, tests):
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
    def place(self, item):
        whole = item.nodeid.partition("[")[0].split(
            "::"
        )  # a function, or a class, stands for all in it
        return self.places.get(item.nodeid, self.places.get("::".join(whole[:2])))

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if self.place(item) is not None]
        items.sort(key=self.place)

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
    """Run tests in a process that need not import again what takes long.

    Returns those that failed, those that ran out of time, and those that are still to run.
    """
    log = clone.with_name("log")
    log.write_text("")
    if not (child := os.fork()):
        os.setsid()
        os.chdir(clone)
        os.environ["PYTHONPATH"] = sys.path[0] = str(clone)
        sys.dont_write_bytecode = False
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
    if not stopped and not (failed and "-x" in options):
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


def pieces(clone):
    """(file, name) -> what reads there in tests/, and where that may stand which it names.

    The name "" is for what a file does at its import, and for fixtures of every test.
    """
    found = defaultdict(lambda: ([], set()))
    for path in sorted(clone.glob("tests/**/*.py")):
        file = str(path.relative_to(clone))
        named_in, modules = [file, *conftests(file)], {}
        for node in ast.parse(path.read_text()).body:
            places, names = set(), []
            for part in ast.walk(node):
                if isinstance(part, ast.ImportFrom) and part.module.startswith("tests"):
                    source = part.module.replace(".", "/")
                    named_in += [f"{source}.py"] * (part.names[0].name == "*")
                    for alias in part.names:
                        modules[alias.asname or alias.name] = f"{source}/{alias.name}.py"
                        places.add((f"{source}.py", alias.name))
                words = [getattr(part, field, None) for field in ("id", "arg", "value")]
                places.update((file, word) for word in words if isinstance(word, str))
                if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                    places.add((modules.get(part.value.id), part.attr))
                elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    names.append(part.id)
            places = {
                (at, word) for of, word in places for at in (named_in if of == file else [of])
            }
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.asname or alias.name for alias in node.names]
                node = ast.Constant(getattr(node, "module", None))  # the names are in `places`
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                every = any("autouse=True" in ast.unparse(word) for word in node.decorator_list)
                names = [node.name, ""] if every else [node.name]
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # what the file says of itself
            elif not isinstance(node, ast.Assign | ast.AnnAssign) or "pytestmark" in names:
                names.append("")
            for name in names:
                found[file, name][0].append(ast.unparse(node))
                found[file, name][1].update(places | {(at, "") for at, _ in places})
    return dict(found)


def conftests(file):
    return [f"{folder}/conftest.py" for folder in Path(file).parents]


def reading(found, test):
    """All that a test reads of tests/*.py: its own lines, and those that it uses."""
    file, name = test.partition("[")[0].split("::")[:2]
    read, left = {}, [(file, name), *((at, "") for at in (file, *conftests(file)))]
    while left:
        place = left.pop()
        if place in found and place not in read:
            read[place], further = found[place]
            left += further
    return read


def put_tests(clone, commit):
    git("-C", str(clone), "rm", "-rfq", "tests")
    git("-C", str(clone), "checkout", "-q", commit, "--", "tests")


class Deletions:
    """The tests of two commits: which of them are gone, which are new, and what that costs."""

    def __init__(self, clone, before, after):
        self.clone, self.commits = clone, (before, after)
        found = []
        for commit in (after, before):
            put_tests(clone, commit)
            found.append(pieces(clone))
        self.after, self.before = found
        written = [
            f"{file}::{name}" for file, name in self.after if name.startswith(("test_", "Test"))
        ]
        self.new = [test for test in written if not self.is_kept(test)]

    def is_kept(self, test):
        if not test.startswith("tests/"):  # an example in a file of the product
            return True
        return reading(self.before, test) == reading(self.after, test)

    def notice(self, path, changed, tests):
        """A test that is gone that notices a fault, and one that remains; or one that remains
        twice, if it is among the nearest: then it does not matter what those that are gone notice.
        """
        gone = [test for test in tests if not self.is_kept(test)]
        kept = [test for test in tests if test not in gone]
        rewritten = dict.fromkeys(test.partition("[")[0] for test in gone)  # in all of its cases
        file = path.relative_to(self.clone)
        nearest = nearest_first(file, [*kept, *rewritten])[:NEAREST_REMAINING]
        noticed = self._remaining_notice(path, changed, nearest)
        if noticed:
            return noticed * 2
        noticed = notice(self.clone, path, changed, gone, every=False)
        if noticed:
            remaining = nearest_first(file, [*kept, *self.new])
            noticed += self._remaining_notice(path, changed, remaining)
        return noticed

    def _remaining_notice(self, path, changed, tests):
        put_tests(self.clone, self.commits[1])
        noticed = notice(self.clone, path, changed, tests, every=False)[:1]
        put_tests(self.clone, self.commits[0])
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


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--coverage", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=".mutations.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=sum(DRAWN.values()))
    parser.add_argument("--under", help="a folder of the product for all faults")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of faults")
    parser.add_argument("--all", action="store_true", help="each test that notices a fault")
    parser.add_argument("--tests", default="HEAD", help="the commit whose tests are run")
    parser.add_argument("--gone", metavar="REV", help="what only tests that are gone since notice")
    return parser.parse_args()


def results_of(path):
    """What a file of results knows, by key."""
    rows = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {tuple(key): noticed for *key, noticed in rows}


def state_of(noticed, gone):
    if gone and len(noticed) == 1:
        return "LOST"
    return "noticed" if noticed else "not noticed"


def main():
    args = options()
    os.environ["OMP_NUM_THREADS"] = "1"  # as tests/conftest.py has it, before torch is imported
    for name in IMPORTED_ONCE.split():
        importlib.import_module(name)
    gc.freeze()
    coverage = sqlite3.connect(args.coverage)
    shares = {folder: round(n * args.faults / 150) for folder, n in DRAWN.items()}
    if args.under:
        shares = {args.under: args.faults}
    commit, tests_commit = git("rev-parse", args.gone or "HEAD", args.tests).split()
    product = git("rev-parse", *(f"{commit}:{folder}" for folder in DRAWN))
    trees = [hashlib.sha256(product.encode()).hexdigest()]
    trees += git("rev-parse", f"{tests_commit}:tests", f"{commit}:tests").splitlines(keepends=True)
    trees = trees if args.gone else trees[:2]
    known = results_of(args.results)
    tests_of_faults = []
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary, "clone")
        git("clone", "-q", ".", str(clone))
        git("-C", str(clone), "checkout", "-q", commit)
        put_tests(clone, tests_commit)
        # by their content: a fault may change a file within a second, and leave its size
        words = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", *DRAWN]
        subprocess.run([sys.executable, *words], cwd=clone, check=True)
        deletions = Deletions(clone, commit, tests_commit) if args.gone else None
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
                if deletions:
                    known[key] = deletions.notice(path, changed, tests)
                else:
                    nearest = tests if args.all else tests[:NEAREST]
                    known[key] = notice(clone, path, changed, nearest, args.all)
                with args.results.open("ab", buffering=0) as results:
                    results.write(f"{json.dumps([*key, known[key]])}\n".encode())
            noticed = known[key]
            tests_of_faults.append(noticed)
            seconds = round(time.monotonic() - begun)
            row = (number, state_of(noticed, args.gone), place, before, after, seconds, *noticed)
            print(*(str(part).replace("\n", " ") for part in row), sep="\t", flush=True)  # noqa: T201
    states = Counter(state_of(noticed, args.gone) for noticed in tests_of_faults)
    print(f"{len(tests_of_faults)} faults: {dict(states)}")  # noqa: T201
    if args.all:
        print("faults\talone\ttest", *count_of(tests_of_faults), sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
