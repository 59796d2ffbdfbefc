"""The documentation site, which `make docs` builds from the Markdown files of the whole repository.

The source folder is the repository, so that links to README.md, benchmarks/ and code work on the
site and on GitHub.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]
# Importing the tasks reads a luigi.cfg: always this repository's.
os.environ["LUIGI_CONFIG_PATH"] = str(DOCS.parent / "luigi.cfg")

project = "vibe-pipeline"
root_doc = "docs/index"
# page -> phrases by which people search for it
keywords = dict(line.split(": ") for line in (DOCS / "keywords.txt").read_text().splitlines()[1:])
extensions = ["myst_parser", "sphinx.ext.autodoc", "api_entries"]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
include_patterns = ["*.md", "docs/*.ipynb", "docs/*.md", "docs/*/*.md", "benchmarks/*.md"]
exclude_patterns = ["data", "demo", "runs", ".*", "build", "dist", "docs/_build"]
highlight_language = "sh"  # of indented blocks
default_role = "code"  # docstrings are plain prose with `code` in it
nitpicky = True
# Types in signatures are from other projects and private modules. Links to pages, files and
# headings are all checked.
nitpick_ignore_regex = [("py:.*", ".*")]
suppress_warnings = ["ref.python"]  # packages may have classes of one name
linkcheck_anchors = False  # pages that scripts render have no anchors

myst_heading_anchors = 4

autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = "vibe-pipeline"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"}), ("search.js", {"defer": "defer"})]
html_search_scorer = str(DOCS / "_static" / "scorer.js")
templates_path = ["_templates"]
# the first page itself is docs/index.html
html_additional_pages = {"index": "to-the-first-page.html"}
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False


def read_notebook(_app: Sphinx, page: str, source: list[str]) -> None:
    """Replace a notebook by Markdown: its texts, its code, and what each cell shows."""
    if not (DOCS.parent / f"{page}.ipynb").is_file():
        return
    parts = []
    for cell in json.loads(source[0])["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            if "image/png" in output["data"]:
                parts.append(f"![Its plots](data:image/png;base64,{output['data']['image/png']})")
            else:
                parts.append(f"```text\n{''.join(output['data']['text/plain'])}\n```")
    source[0] = "\n\n".join(parts)


def name_the_files_of_folders(_app: Sphinx, page: str, source: list[str]) -> None:
    """Replace links to folders, which are no pages of the site, by links to their files."""

    def files(link: re.Match[str]) -> str:
        folder = (DOCS.parent / page).parent / link["folder"]
        names = sorted(file.name for file in folder.iterdir() if file.suffix in (".py", ".toml"))
        links = [f"[{name}]({link['folder']}{name})" for name in names]
        return f"`{link['text']}` ({', '.join(links)})"

    source[0] = re.sub(r"\[(?P<text>[^\]]+)\]\((?P<folder>[\w./-]+/)\)", files, source[0])


def add_keywords(app: Sphinx, page: str, source: list[str]) -> None:
    """Make the phrases by which people search for a page main entries of the index."""
    phrases = app.config.keywords.get(page)
    if phrases:
        entries = ", ".join(f"! {phrase}" for phrase in phrases.split(", "))
        source[0] = f"```{{index}} {entries}\n```\n\n{source[0]}"


def copy_pictures(app: Sphinx, error: Exception | None) -> None:
    """Copy the files that HTML in the pages names: the moving picture and the player."""
    if error is None:
        shutil.copytree(DOCS / "pictures", Path(app.outdir) / "docs/pictures", dirs_exist_ok=True)


def setup(app: Sphinx) -> None:
    """Sphinx calls this once."""
    app.add_config_value("keywords", {}, "env")  # if it changes, all pages are read again
    app.connect("build-finished", copy_pictures)
    app.connect("source-read", read_notebook, priority=400)  # before the others
    app.connect("source-read", add_keywords)
    app.connect("source-read", name_the_files_of_folders)
