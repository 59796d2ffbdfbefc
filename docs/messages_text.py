"""What a piece of source code says when it runs: f-strings, constants and helpers as texts with named gaps.

For docs/messages.py. A gap is written as `‹name›`. Nothing is imported or run: all is read from the source.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from messages_source import Function, Module, assignments, blocks, called, name_of, parameters, returned

World: TypeAlias = dict[str, list[str]]  # what local names may say, on one way through a function

MOST: Final = 24  # texts or ways of one place; beyond that a gap stands for what differs
FEW: Final = 2  # texts of a helper; of more, a gap stands in the message and the helper's texts by themselves
DEEP: Final = 3  # helpers within helpers
GAP: Final = re.compile(r"‹[^›]*›")
ENDS: Final = (ast.Raise, ast.Return, ast.Continue, ast.Break)


def gap(name: str) -> str:
    """
    >>> gap("_n_frames")
    '‹n_frames›'
    """
    return f"‹{name.strip('_') or 'text'}›"


def says(text: str) -> bool:
    """Whether a text has words of its own between its gaps.

    >>> says("‹found›. ‹do›"), says("no ‹key›")
    (False, True)
    """
    return re.search(r"[^\W\d_]{2}", GAP.sub("", text)) is not None


class Texts:
    """What expressions of a set of modules say."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self.modules = {module.name: module for module in modules}
        self.parts: dict[Module, dict[str, None]] = defaultdict(dict)  # texts of helpers that say one of several things
        self.calls: dict[str, list[tuple[Module, ast.Call]]] = defaultdict(list)
        for module in modules:
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Call):
                    self.calls[called(node)].append((module, node))

    # ------------------------------------------------------------------------------------------------ expressions

    def of(self, node: ast.expr, module: Module, world: World, deep: int = 0) -> list[str]:
        """Every text that an expression may be; a gap where only the running program knows."""
        match node:
            case ast.Constant(value=str() | float() | int() as value) if not isinstance(value, bool):
                return [str(value)]
            case ast.JoinedStr(values=values):
                return joined([self.of(value, module, world, deep) for value in values])
            case ast.FormattedValue(value=value, conversion=conversion):
                texts = self.of(value, module, world, deep)
                return [repr(t) if conversion == ord("r") and "‹" not in t else t for t in texts]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return joined([self.of(side, module, world, deep) for side in (left, right)])
            case ast.IfExp(body=body, orelse=orelse):
                return either(self.of(body, module, world, deep), self.of(orelse, module, world, deep))
            case ast.BoolOp(op=ast.Or(), values=values):
                return unique(t for value in values for t in self.of(value, module, world, deep))[:MOST]
            case ast.NamedExpr(value=value) | ast.GeneratorExp(elt=value):
                return self.of(value, module, world, deep)
            case ast.Name(id=name) if name in world:
                return world[name]
            case ast.Name() | ast.Attribute():
                return self._constant(node, module)
            case ast.Call():
                return self._call(node, module, world, deep)
            case ast.Subscript(value=table):
                return self._looked_up(node, table, module)
        return [gap(name_of(node))]

    def _looked_up(self, node: ast.expr, table: ast.expr, module: Module) -> list[str]:
        """Everything that stands in a table."""
        found = (module, table) if isinstance(table, ast.Dict) else self._defined(table, module)
        if found is None or not isinstance(found[1], ast.Dict):
            return [gap(name_of(node))]
        texts = unique(text for value in found[1].values for text in self.of(value, found[0], {}))
        return texts if any(map(says, texts)) and len(texts) <= MOST else [gap(name_of(node))]

    def _constant(self, node: ast.Name | ast.Attribute, module: Module) -> list[str]:
        found = self._defined(node, module)
        if found is not None and isinstance(found[1], ast.expr):
            texts = self.of(found[1], found[0], {})
            if all("‹" not in text for text in texts):
                return texts
        return [gap(name_of(node))]

    def _defined(self, node: ast.expr, module: Module) -> tuple[Module, ast.expr | Function] | None:
        """Where a name is defined in these modules, and as what."""
        match node:
            case ast.Name(id=name):
                target = module.imports.get(name)
                owner, _, name = target.rpartition(".") if target else (module.name, "", name)
            case ast.Attribute(value=ast.Name(id=alias), attr=name) if alias in module.imports:
                owner = module.imports[alias]
            case _:
                return None
        home = self.modules.get(owner)
        if home is None:
            return None
        if name in home.constants:
            return home, home.constants[name]
        if len(home.functions.get(name, ())) == 1:
            return home, home.functions[name][0]
        if name in home.imports and home is not module:  # handed on by a package's __init__
            return self._defined(ast.Name(name), home)
        return None

    def _call(self, node: ast.Call, module: Module, world: World, deep: int) -> list[str]:
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=form), attr="format")) if isinstance(form, str):
                return [re.sub(r"\{[^{}]*\}", gap("n"), form)]
            case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=[each]):
                return [gap(name_of(each))]
            case ast.Call(func=ast.Name(id="count"), args=[n, ast.Constant(value=noun)]):
                return [gap(f"{name_of(n)} {noun!s}s")]
            case ast.Call(func=ast.Name(id="command"), args=words):
                return joined([[f"{gap('python')} -m pipeline"], *self._words(words, module, world, deep)])
            case ast.Call(func=ast.Name(id="str" | "plain"), args=[value]):
                return self.of(value, module, world, deep)
        found = self._helper(node, module)
        if found is not None and deep < DEEP:
            home, function = found
            bound = self._bound(node, function, module, world, deep)
            texts = unique(t for r in returned(function) for w in self.worlds(r, home, bound, deep + 1)
                           for t in self.of(r.value or ast.Constant(""), home, w, deep + 1))  # fmt: skip
            if len(texts) > FEW:
                self.parts[home] |= dict.fromkeys(texts)
            elif any(map(says, texts)):
                return texts
        return [gap(name_of(node))]

    def _words(self, words: Sequence[ast.expr], module: Module, world: World, deep: int) -> Iterator[list[str]]:
        for word in words:
            yield [f" {text}" for text in self.of(word, module, world, deep)]

    def _helper(self, node: ast.Call, module: Module) -> tuple[Module, Function] | None:
        match node.func:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if (
                len(module.functions.get(name, ())) == 1
            ):
                return module, module.functions[name][0]
        found = self._defined(node.func, module)
        return (found[0], found[1]) if found is not None and not isinstance(found[1], ast.expr) else None

    def _bound(self, call: ast.Call, function: Function, module: Module, world: World, deep: int) -> World:
        """What a call says for the parameters of the function; those it says nothing for are left out."""
        names = parameters(function)
        given = list(zip(names, call.args, strict=False))
        given += [(keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg is not None]
        texts = {name: self.of(value, module, world, deep) for name, value in given}
        return {name: said for name, said in texts.items() if any(map(says, said))}

    # ---------------------------------------------------------------------------------------------- ways to a place

    def worlds(self, node: ast.AST, module: Module, bound: World, deep: int = 0) -> list[World]:
        """What local names say when the program reaches a node, by the ways that lead there."""
        path = module.around(node)
        ways: list[World] = [{}]
        functions = [n for n in path if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        for function in functions:
            inner = bound if function is functions[-1] else {}
            names = [*parameters(function), "self", "cls"]
            ways = [{k: v for k, v in way.items() if k not in names} | inner for way in ways]
            ways = self._flow(function.body, set(path), ways, module, deep)
        return ways

    def _flow(
        self, block: Sequence[ast.stmt], path: set[ast.AST], ways: list[World], module: Module, deep: int
    ) -> list[World]:
        for statement in block:
            if statement not in path:
                ways = self._after(statement, ways, module, deep)
                continue
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                return ways  # the next one's turn
            ways = self._assigned(statement, ways, module, deep)
            for inner in blocks(statement):
                if path.intersection(inner):
                    return self._flow(inner, path, ways, module, deep)
            return ways
        return ways

    def _after(self, statement: ast.stmt, ways: list[World], module: Module, deep: int) -> list[World]:
        """What is known behind a statement."""
        ways = self._assigned(statement, ways, module, deep)
        inner = list(blocks(statement))
        if not inner or isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return ways
        after = [] if isinstance(statement, ast.If) and statement.orelse else list(ways)
        for block in inner:
            through = list(ways)
            for each in block:
                through = self._after(each, through, module, deep)
            if not (block and isinstance(block[-1], ENDS)):
                after += through
        return merged(after)

    def _assigned(self, statement: ast.stmt, ways: list[World], module: Module, deep: int) -> list[World]:
        """The ways with what a statement itself assigns, without its blocks."""
        pairs = list(assignments(statement))
        for target, value in pairs:
            for i, way in enumerate(ways):
                texts = [] if value is None else self.of(value, module, way, deep)
                if isinstance(statement, ast.AugAssign):
                    texts = joined([way.get(target, [gap(target)]), texts])
                rest = {name: said for name, said in way.items() if name != target}
                ways[i] = rest | ({target: texts} if any(GAP.sub("", text).strip() for text in texts) else {})
        return merged(ways) if pairs else ways

    def callers(self, function: Function, home: Module) -> Iterator[World]:
        """What the calls of a function say for its parameters, by the ways that lead to them."""
        alone = sum(function.name in module.functions for module in self.modules.values()) == 1
        for module, call in self.calls[function.name]:
            plain = isinstance(call.func, ast.Name)
            ours = self._defined(call.func, module) == (home, function) if plain else alone or knows(module, home)
            if ours and not any(node is function for node in module.around(call)):
                for world in self.worlds(call, module, {}, DEEP - 1):
                    bound = self._bound(call, function, module, world, DEEP - 1)
                    yield {name: texts for name, texts in bound.items() if " " in "".join(texts)}  # not names


def either(first: list[str], second: list[str]) -> list[str]:
    """Both; of an ending that may be there, as a plural's s, a gap."""
    for texts, other in ((first, second), (second, first)):
        if texts == [""] and all(len(text) <= 2 for text in other):
            return [gap(other[0])]
    return unique((*first, *second))


def joined(parts: Iterable[list[str]]) -> list[str]:
    """Every combination; of too many, those parts that differ become gaps."""
    product = 1
    kept = []
    for texts in parts:
        product *= len(texts)
        kept.append(texts if product <= MOST else [gap("text")])
    return unique("".join(each) for each in itertools.product(*kept))


def unique(texts: Iterable[str]) -> list[str]:
    """Without doubles, in order."""
    return list(dict.fromkeys(texts))


def merged(ways: Sequence[World]) -> list[World]:
    """Ways without doubles; of too many, one that allows everything."""
    kept = list({repr(sorted(way.items())): way for way in ways}.values())
    if len(kept) <= MOST:
        return kept
    names = set().union(*kept)
    texts = {name: unique(t for way in kept for t in way.get(name, [gap(name)])) for name in sorted(names)}
    return [{name: said for name, said in texts.items() if len(said) <= MOST}]


def knows(module: Module, home: Module) -> bool:
    """Whether a module is the other one, or imports from it."""
    return module is home or any(target.startswith(f"{home.name}.") for target in module.imports.values())
