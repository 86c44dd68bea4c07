"""Formulas over graders' rewards, such as `0.7 * answer + 0.3 * min(format, 1)`: parsed and computed, never run."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

LONGEST = 1000
LARGEST = 1e9  # of a value: its square, and sums of that, are numbers of float32, too
FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
_OF_MANY = ("min", "max")
_BINARY: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_CHARACTERS = re.compile(r"[\w\s.,()+*/^-]*", re.ASCII)


@lru_cache(maxsize=256)
def parse(formula: str) -> ast.expr:
    """The formula as a tree of numbers, names, `+ - * / ^` and FUNCTIONS; raises ValueError for all else.

    Python's parser reads it, with `^` for its `**`; nothing of it is compiled.
    """
    if len(formula) > LONGEST:
        raise ValueError(f"a formula has at most {LONGEST} characters, and this one {len(formula):,}")
    if not _CHARACTERS.fullmatch(formula) or "**" in formula or "//" in formula:
        raise ValueError(f"a formula is made of numbers, names of graders, + - * / ^ ( ) and {', '.join(FUNCTIONS)}")
    try:
        tree = ast.parse(" ".join(formula.split()).replace("^", "**"), mode="eval").body
        _check(tree)
    except (SyntaxError, RecursionError, MemoryError, OverflowError):
        raise ValueError("the formula cannot be read: look for a missing operator, name or parenthesis") from None
    return tree


def names_in(formula: str) -> set[str]:
    """The graders that the formula names."""
    called = {id(node.func) for node in ast.walk(parse(formula)) if isinstance(node, ast.Call)}
    return {node.id for node in ast.walk(parse(formula)) if isinstance(node, ast.Name) and id(node) not in called}


def compute(formula: str, values: Mapping[str, float]) -> float:
    """The formula's value; raises ValueError where it has none: division by zero, log(0), sqrt(-1), an overflow."""
    tree = parse(formula)
    try:
        value = _value(tree, values)
    except ZeroDivisionError:
        raise ValueError(f"division by zero in '{_short(formula)}' {_where(values)}") from None
    except (ValueError, OverflowError):
        raise ValueError(f"'{_short(formula)}' is no number {_where(values)}") from None
    if not abs(value) <= LARGEST:
        raise ValueError(f"'{_short(formula)}' is {value:g} {_where(values)}, and a reward is at most {LARGEST:g}")
    return value


def _check(node: ast.expr) -> None:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            float(number)
        case ast.Name():
            if node.id in FUNCTIONS:
                raise ValueError(f"'{node.id}' is a function: it takes its arguments in parentheses")
        case ast.UnaryOp() if type(node.op) in _UNARY:
            _check(node.operand)
        case ast.BinOp() if type(node.op) in _BINARY:
            _check(node.left)
            _check(node.right)
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
            is_right = len(node.args) > 1 if name in _OF_MANY else len(node.args) == 1
            if not is_right:
                raise ValueError(f"'{name}' takes {'at least two numbers' if name in _OF_MANY else 'one number'}")
            for each in node.args:
                _check(each)
        case ast.Call(func=ast.Name(id=name)):
            raise ValueError(f"'{name}' is no function here: there are {', '.join(FUNCTIONS)}")
        case _:
            raise ValueError(
                f"a formula is made of numbers, names of graders, + - * / ^ ( ) and {', '.join(FUNCTIONS)}"
            )


def _value(node: ast.expr, values: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return float(values[name])
        case ast.UnaryOp():
            return _UNARY[type(node.op)](_value(node.operand, values))
        case ast.BinOp():
            return _BINARY[type(node.op)](_value(node.left, values), _value(node.right, values))
        case ast.Call(func=ast.Name(id=name)):
            return float(FUNCTIONS[name](*(_value(each, values) for each in node.args)))
        case _:
            raise AssertionError(ast.dump(node))  # refused by parse


def _short(formula: str) -> str:
    return formula if len(formula) <= 60 else formula[:60] + "..."


def _where(values: Mapping[str, float]) -> str:
    return "where " + ", ".join(f"{name} is {value:g}" for name, value in values.items())
