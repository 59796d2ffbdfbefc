"""Packages that add a dataset, a stream, a detector or a model, as pip leaves them; those of the
pages among them.
"""

import shutil
import tomllib
from contextlib import contextmanager

from tests.docs.markdown import ROOT, blocks, document

DOCS = ROOT / "docs"
# of a package whose module does not load
BROKEN = {"vibe_pipeline.datasets": {"dances": "dances_reader:Dances"}}


def install(site, name, entry_points, **modules):
    """Write a package into `site`, which is to be on the path: its modules' text, and what pip
    records of it.

    Return the folder that makes it an installed one. entry_points: group -> name -> module:object.
    """
    about = site / f"{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = (
        f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in of.items())
        for group, of in entry_points.items()
    )
    (about / "entry_points.txt").write_text("\n".join(lines))
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)
    return about


def install_source(site, source):
    """Install a package's source, without its tests."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    shutil.copytree(
        source,
        site,
        ignore=shutil.ignore_patterns("__pycache__", "test_*", "*.toml"),
        dirs_exist_ok=True,
    )
    return install(site, project["name"], project["entry-points"])


def install_page(site, kind):
    """Install the package of docs/adding-a-<kind>, or the module that the page shows whole."""
    folder = DOCS / f"adding-a-{kind}"
    if folder.is_dir():
        return install_source(site, folder)
    (shown,) = blocks("toml", document(f"adding-a-{kind}.md"))
    groups = tomllib.loads(shown)["project"]["entry-points"]
    ((target,),) = (names.values() for names in groups.values())
    module = target.partition(":")[0]
    return install(site, f"example-{kind}", groups, **{module: page_code(kind)})


def page_code(kind):
    """The code of a page that shows a whole module."""
    (code,) = blocks("python", document(f"adding-a-{kind}.md"))
    return code


@contextmanager
def without(entries, name):
    """A registry or table lacks an entry for a while; all of it is there again afterwards, in the
    same order.
    """
    before = dict(entries)
    del entries[name]
    try:
        yield
    finally:
        entries.clear()
        entries.update(before)
