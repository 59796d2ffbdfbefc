"""How dense the code may be: tokens a line, forms that a reader has to unpack, lines a file."""

import ast
import functools
from dataclasses import dataclass, field

import pytest

from tests.source_code import ROOT, counted_tokens, lines_left_out, modules

FILES = sorted(modules().values())

# of a file of FEWEST and more lines of code; of every file
FEWEST = 40
TOKENS_A_LINE = 11.5
FORMS_A_THOUSAND = 50
LINES = 500
# of all files together
ALL_TOKENS_A_LINE = 9.4
ALL_TOKENS_A_STATEMENT = 12.0
ALL_FORMS_A_THOUSAND = 20

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass
class Density:
    """Of code without imports, docstrings and comments."""

    tokens: int = 0
    lines: set[tuple[str, int]] = field(default_factory=set)
    statements: int = 0
    forms: list[str] = field(default_factory=list)

    def add_text(self, text, name=""):
        tree = ast.parse(text)
        left_out = {*lines_left_out(tree)}
        for first_line, last_line in counted_tokens(text):
            if first_line not in left_out:
                self.tokens += 1
                self.lines.update((name, n) for n in range(first_line, last_line + 1))
        for node in ast.walk(tree):
            if isinstance(node, ast.stmt) and node.lineno not in left_out:
                self.statements += 1
            self.forms += [f"{name}:{line_of(node)}: {form}" for form in forms_of(node)]

    def add(self, other):
        self.tokens += other.tokens
        self.lines |= other.lines
        self.statements += other.statements
        self.forms += other.forms

    @property
    def tokens_a_line(self):
        return self.tokens / len(self.lines)

    @property
    def forms_a_thousand(self):
        return 1000 * len(self.forms) / len(self.lines)


@functools.cache
def density_of(file):
    density = Density()
    density.add_text(file.read_text(), str(file.relative_to(ROOT)))
    return density


def line_of(node):
    return int(getattr(node, "lineno", 0))


def forms_of(node):
    """The forms of this node that a reader has to unpack."""
    if isinstance(node, ast.NamedExpr):
        yield "walrus"
    elif isinstance(node, ast.IfExp):
        yield "ternary"
        if has_inner(node, (ast.IfExp,)):
            yield "ternary in a ternary"
    elif isinstance(node, ast.For) and isinstance(node.iter, ast.IfExp):
        yield "loop over a ternary"
    elif isinstance(node, COMPREHENSIONS):
        if len(node.generators) > 1:
            yield "comprehension with two `for`"
        if has_inner(node, COMPREHENSIONS):
            yield "comprehension in a comprehension"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
        if node.func.id == "next" and isinstance(node.args[0], ast.GeneratorExp):
            yield "next of a comprehension"
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
        target = node.targets[0]
        if isinstance(target, ast.Tuple) and not is_swap(target, node.value):
            yield "two assignments in one"


def has_inner(node, kinds):
    return any(isinstance(inner, kinds) for inner in ast.walk(node) if inner is not node)


def is_swap(target, value):
    return sorted(map(ast.unparse, target.elts)) == sorted(map(ast.unparse, value.elts))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_is_no_denser_than_people_enjoy_reading(file):
    assert file.read_text().count("\n") <= LINES, "make two files of it"
    density = density_of(file)
    if len(density.lines) >= FEWEST:
        assert density.tokens_a_line <= TOKENS_A_LINE, "give the parts of long lines a name"
        assert density.forms_a_thousand <= FORMS_A_THOUSAND, "\n".join(density.forms)


def test_an_f_string_is_one_token_in_every_python():
    text = 'say(f"{a + b:>{width}} of {name!r}" "that", f"""{\nc\n}""")\n'
    assert [*counted_tokens('x = f"{a + b:>{width}} of {name!r}"\n')] == [(1, 1)] * 3
    density = Density()
    density.add_text(text)
    assert density.tokens == 7
    assert len(density.lines) == 3


def test_all_of_it_is_no_denser_than_other_projects_of_the_field():
    every = Density()
    for file in FILES:
        every.add(density_of(file))
    assert every.tokens_a_line <= ALL_TOKENS_A_LINE
    assert every.tokens / every.statements <= ALL_TOKENS_A_STATEMENT
    assert every.forms_a_thousand <= ALL_FORMS_A_THOUSAND
