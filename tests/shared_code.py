"""Code that several datasets, streams or detectors use, as they say in `uses`: its files, their
digests, and what each of them uses.

`python -m tests.shared_code NAME...` records versions and digests: after the version of a name is
raised, or if the results are equal.
"""

import ast
import functools
import hashlib
import json
import sys
from typing import NamedTuple

from pipeline import plug_ins, table
from tests.golden import Record
from tests.source_code import ROOT, modules

# name -> its files, and folders with all files below them, but for those that another name of the
# same kind has by a longer path
FILES = {
    "readers": """
        pipeline/clips/labels/people_table.py pipeline/datasets/base.py pipeline/datasets/shared/
        pipeline/files/formats/ pipeline/files/numbers.py pipeline/files/pixels/
        pipeline/files/raw/ pipeline/people/
    """,
    "bodies": "pipeline/datasets/shared/smpl.py",
    "clips": """
        pipeline/clips/files.py pipeline/clips/labels/ pipeline/clips/listing.py
        pipeline/clips/tracks/ pipeline/datasets/shared/clips/ pipeline/files/pixels/cuts.py
        pipeline/people/homography.py
    """,
    "streams": """
        cache/crop_policy.py pipeline/clips/detectors/blaze_pose.py
        pipeline/clips/detectors/graphs.py pipeline/features/engine/worker.py
        pipeline/features/inputs.py pipeline/features/streams/base.py
        pipeline/features/weights.py pipeline/people/
    """,
    "networks": "pipeline/features/networks/ pipeline/features/streams/network.py",
    "detectors": """
        pipeline/clips/detectors/__init__.py pipeline/clips/detectors/blaze_pose.py
        pipeline/clips/detectors/graphs.py pipeline/clips/detectors/two_parts.py
        pipeline/people/boxes.py pipeline/people/joint_values.py pipeline/people/skeletons.py
    """,
}
KINDS = ("datasets", "streams", "detectors")
IMPORTS = (ast.Import, ast.ImportFrom)
# of no kind's results: messages, registries, processes; what others count; and grades, whose changes
# raise no version
PLAIN = (
    *("pipeline/accounting.py", "pipeline/cli/", "pipeline/errors.py", "pipeline/grades/"),
    *("pipeline/plug_ins.py", "pipeline/processes/", "pipeline/table.py"),
)
# what these open are weights, whose digests are in identities
OPENS_WEIGHTS = {"datasets": (), "streams": ("pipeline/files/",), "detectors": ("pipeline/files/",)}
# without computation, or of demo data alone
IDLE = ("imported", "demo")


class Member(NamedTuple):
    """A dataset, stream or detector."""

    kind: str
    name: str
    module: str
    definition: str

    @property
    def uses(self):
        return plug_ins.load(f"{self.module}:{self.definition}").uses

    def files(self):
        """The files that its class uses, but for its own."""
        used = {module for module, _ in reach(self.module, self.definition)} - {self.module}
        return sorted(path(module) for module in used)


def members():
    for kind in KINDS:
        for name, target in table.OWN[f"vibe_pipeline.{kind}"].items():
            if name not in IDLE:
                yield Member(kind, name, *target.split(":"))


@functools.cache
def names_of(kind):
    """The names of shared code that those of a kind use."""
    return tuple(dict.fromkeys(name for one in members() if one.kind == kind for name in one.uses))


def path(module):
    return modules()[module].relative_to(ROOT).as_posix()


def holds(place, file):
    return file.startswith(place) if place.endswith("/") else file == place


def owner(file, names):
    """Of some names of shared code, the one with the longest place of a file; None without any."""
    places = {place: name for name in names for place in FILES[name].split()}
    holding = [place for place in places if holds(place, file)]
    return places[max(holding, key=len)] if holding else None


def version_of(name):
    """The version that all of its users state."""
    (version,) = {one.uses[name] for one in members() if name in one.uses}
    return version


def place_of(name):
    """The file that states it."""
    words = f'{{"{name}": {version_of(name)}}}'
    (place,) = (path(module) for module, file in modules().items() if words in file.read_text())
    return place


def files_of(name):
    (kind,) = (kind for kind in KINDS if name in names_of(kind))
    return [file for file in sorted(map(path, modules())) if owner(file, names_of(kind)) == name]


# --------------------------------------------------------------------------------------------------
# digests


def form(node):
    """A syntax tree as lists: without imports, docstrings and comments, and without positions and
    empty fields, which differ between versions of Python.
    """
    if isinstance(node, list):
        return [form(item) for item in node if not is_idle(item)]
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.JoinedStr):  # to which Python 3.12 adds empty texts
        return ["JoinedStr", *(form(part) for part in node.values if not is_empty_text(part))]
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return [type(node).__name__, *([name, form(value)] for name, value in fields)]


def is_empty_text(node):
    return isinstance(node, ast.Constant) and node.value == ""


def is_idle(node):
    """Whether a statement is an import, whose path a move of files changes, or a string."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return isinstance(node, IMPORTS) or (is_text and isinstance(node.value.value, str))


def digest(text, without=()):
    """A digest of a file's statements in any order; "" without any. without: definitions that are
    of one member alone, whose own version is raised.
    """
    body = [node for node in ast.parse(text).body if getattr(node, "name", None) not in without]
    statements = sorted(json.dumps(statement) for statement in form(body))
    if not statements:
        return ""
    return hashlib.sha256("\n".join(statements).encode()).hexdigest()[:16]


def digests(name):
    """The files of a name -> their digests."""
    own = {}
    for one in members():
        own.setdefault(path(one.module), set()).add(one.definition)
    found = {file: digest((ROOT / file).read_text(), own.get(file, ())) for file in files_of(name)}
    return {file: value for file, value in found.items() if value}


def changes(recorded, now):
    """The files whose content is not recorded, and recorded ones whose content is nowhere. A file
    may have moved.
    """
    changed = {file for file, value in now.items() if value not in recorded.values()}
    gone = {file for file, value in recorded.items() if value not in now.values()}
    return sorted(changed | gone)


def record_of(name):
    return Record(f"shared_code/{name}", "code", rewrite=False)


# --------------------------------------------------------------------------------------------------
# what a class uses


class Module(NamedTuple):
    statements: dict[str, list[ast.stmt]]  # name -> those that define it; "": all others
    # name -> the module and the name that it is imported from, None: it is the module
    imports: dict[str, tuple[str, str | None]]


@functools.cache
def parsed(name):
    tree = ast.parse(modules()[name].read_text())
    imports = {}
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, IMPORTS) else ():
            if isinstance(node, ast.ImportFrom):
                member = f"{node.module}.{alias.name}"
                source = (member, None) if member in modules() else (node.module, alias.name)
                imports[alias.asname or alias.name] = source
            else:
                full = alias.name if alias.asname else alias.name.partition(".")[0]
                imports[alias.asname or full] = (full, None)
    statements = {}
    for node in tree.body:
        for defined in names_in(node):
            statements.setdefault(defined, []).append(node)
    return Module(statements, imports)


def names_in(statement):
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = getattr(statement, "targets", None) or [statement.target]
        nodes = [node for target in targets for node in ast.walk(target)]
        return [node.id for node in nodes if isinstance(node, ast.Name)]
    return [] if isinstance(statement, IMPORTS) else [""]


def evaluated(node):
    """The nodes below a node, without those of annotations."""
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and field not in ("annotation", "returns"):
                yield child
                yield from evaluated(child)


def attribute_path(node):
    """a.b.c -> ["a", "b", "c"]; [] for other expressions."""
    attributes = []
    while isinstance(node, ast.Attribute):
        attributes.insert(0, node.attr)
        node = node.value
    return [node.id, *attributes] if isinstance(node, ast.Name) else []


@functools.cache
def references(module, name):
    """The definitions that a definition names: (module, name)."""
    statements, imports = parsed(module)
    found = set()
    for node in (node for statement in statements.get(name, ()) for node in evaluated(statement)):
        first, *attributes = attribute_path(node) or [""]
        if first in imports:
            found.add(defined_in(*imports[first], attributes))
        elif first in statements:
            found.add((module, first))
    if name in imports:  # which a package's __init__ passes on
        found.add(defined_in(*imports[name], []))
    if "" in statements:
        found.add((module, ""))
    return {(source, defined) for source, defined in found if source in modules()}


def defined_in(module, name, attributes):
    for attribute in attributes:
        if name is not None:
            break
        member = f"{module}.{attribute}"
        module, name = (member, None) if member in modules() else (module, attribute)
    return module, "" if name is None else name


def reach(module, name):
    """All definitions that one needs, by what each of them names."""
    found = set()
    waiting = [(module, name)]
    while waiting:
        definition = waiting.pop()
        if definition not in found:
            found.add(definition)
            waiting += references(*definition)
    return found


if __name__ == "__main__":
    for name in sys.argv[1:]:
        record_of(name).write({"version": version_of(name), "files": digests(name)})
