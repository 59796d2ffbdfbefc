"""The product's code as files, modules and tokens."""

import ast
import functools
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cache", "pipeline", "vibe_model", "tasks")
HAVE_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
COUNTED = {tokenize.NAME, tokenize.NUMBER, tokenize.OP, tokenize.STRING}
# since Python 3.12, an f-string is no STRING, but the tokens from one of these to the other
FSTRING_START = getattr(tokenize, "FSTRING_START", None)
FSTRING_END = getattr(tokenize, "FSTRING_END", None)


@functools.cache
def modules():
    """Dotted name -> file, of every module of ours; a package by its folder's name."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    names = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files}
    return {name.removesuffix(".__init__"): file for file, name in names.items()}


def counted_tokens(text):
    """First and last line of each token. An f-string counts as one, as in Python 3.11."""
    starts = []  # first lines of the f-strings around this token
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == FSTRING_START:
            starts.append(token.start[0])
        elif token.type == FSTRING_END:
            first_line = starts.pop()
            if not starts:
                yield first_line, token.end[0]
        elif token.type in COUNTED and not starts:
            yield token.start[0], token.end[0]


def lines_left_out(tree):
    """Lines of imports and docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)
        elif isinstance(node, HAVE_DOCSTRINGS) and ast.get_docstring(node) is not None:
            first = node.body[0]
            yield from range(first.lineno, (first.end_lineno or first.lineno) + 1)


def code_tokens(file):
    """Number of a file's tokens, without comments, docstrings and imports."""
    text = file.read_text()
    left_out = {*lines_left_out(ast.parse(text))}
    return sum(line not in left_out for line, _ in counted_tokens(text))
