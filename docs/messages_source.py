"""Modules as syntax trees, and small questions about them.

For docs/messages.py. Nothing is imported or run: all is read from the source.
"""

from __future__ import annotations

import ast
import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

WRAPPERS: Final = {"str", "repr", "sorted", "list", "tuple", "set", "len", "plain", "escape", "type", "int", "round"}


@dataclass(eq=False)
class Module:
    """One file: its names, and who contains whom."""

    name: str  # "pipeline.datasets.base"
    place: str  # "pipeline/datasets/base.py"
    tree: ast.Module
    constants: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)  # local name -> "package.module.name"
    functions: dict[str, list[Function]] = field(default_factory=lambda: defaultdict(list))
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path, root: Path) -> Module:
        """One file of Python."""
        place = file.relative_to(root)
        name = ".".join(place.with_suffix("").parts).removesuffix(".__init__")
        module = cls(name, place.as_posix(), ast.parse(file.read_text()))
        for parent in ast.walk(module.tree):
            for child in ast.iter_child_nodes(parent):
                module.parents[child] = parent
            if isinstance(parent, ast.ImportFrom) and parent.module:
                module.imports |= {a.asname or a.name: f"{parent.module}.{a.name}" for a in parent.names}
            if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
                module.functions[parent.name].append(parent)
        for node in module.tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        module.constants[target.id] = node.value
        return module

    def around(self, node: ast.AST) -> list[ast.AST]:
        """The node and all that contains it, the outermost first."""
        chain = [node]
        while chain[-1] in self.parents:
            chain.append(self.parents[chain[-1]])
        return chain[::-1]


def parameters(function: Function) -> list[str]:
    """Names by position, then those that are keywords only; without self and cls."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def called(node: ast.Call) -> str:
    """The last name of what is called."""
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def name_of(node: ast.AST) -> str:
    """What to call a gap."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return "type" if name == "__name__" else name
        case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in WRAPPERS:
            return name_of(first)
        case ast.Call(func=ast.Attribute(value=value, attr=name)) if isinstance(value, ast.Name | ast.Attribute):
            return name_of(value) if name in ("strip", "removeprefix", "name", "as_posix", "relative_to") else name
        case ast.Call():
            return called(node)
        case ast.Subscript(value=value) | ast.Starred(value=value) | ast.FormattedValue(value=value):
            return name_of(value)
        case ast.GeneratorExp(elt=element) | ast.ListComp(elt=element):
            return name_of(element)
        case ast.BinOp(left=left):
            return name_of(left)
    return "text"


def returned(function: Function) -> Iterator[ast.Return]:
    """The function's own returns."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop(0)
        if isinstance(node, ast.Return):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)


def blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of statements within a statement."""
    for name in ("body", "orelse", "finalbody"):
        if inner := getattr(statement, name, None):
            yield inner
    for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield part.body


def assignments(statement: ast.stmt) -> Iterator[tuple[str, ast.expr | None]]:
    """Names that a statement assigns, without its blocks, and what; None: something that is no text."""
    match statement:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _one(target, value)
        case ast.AnnAssign(target=target, value=value) | ast.AugAssign(target=target, value=value) if value:
            yield from _one(target, value)
        case ast.For(target=target):
            yield from _one(target, None)
        case ast.Match(cases=cases):
            for node in itertools.chain.from_iterable(ast.walk(case.pattern) for case in cases):
                if isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
                    yield node.name, None
        case ast.Try(handlers=handlers):
            yield from ((handler.name, None) for handler in handlers if handler.name)
    for part in ast.iter_child_nodes(statement):
        if isinstance(part, ast.expr | ast.withitem):
            for node in ast.walk(part):
                if isinstance(node, ast.NamedExpr) and isinstance(node.target, ast.Name):
                    yield node.target.id, node.value


def _one(target: ast.AST, value: ast.expr | None) -> Iterator[tuple[str, ast.expr | None]]:
    match target, value:
        case ast.Name(id=name), _:
            yield name, value
        case (ast.Tuple(elts=names), ast.Tuple(elts=values)) if len(names) == len(values):
            for each, said in zip(names, values, strict=True):
                yield from _one(each, said)
        case (ast.Tuple(elts=names), ast.IfExp(body=ast.Tuple() as body, orelse=ast.Tuple() as orelse)):
            for i, each in enumerate(names):
                yield from _one(each, ast.IfExp(ast.Constant(True), body.elts[i], orelse.elts[i]))
        case ast.Tuple(elts=names), _:
            for each in names:
                yield from _one(each, None)
