"""Formulas: what they compute, and that nothing but a formula is one."""

from __future__ import annotations

import math

import pytest

from core.graders.formula import LONGEST, compute, names_in, parse

VALUES = {"a": 0.5, "b": 2.0, "zero": 0.0}


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("a", 0.5),
        ("0.25 * a + 0.75 * b", 1.625),
        ("(a + b) / 2", 1.25),
        ("-b ^ 2", -4.0),
        ("2 ^ -1", 0.5),
        ("2 ^ 3 ^ 2", 512.0),
        ("min(a, b, 0.1) + max(a, b)", 2.1),
        ("abs(-a) + floor(1.9) + ceil(1.1)", 3.5),
        ("exp(0) + sqrt(4) + log(exp(1))", 4.0),
        ("  a\n + b ", 2.5),
        ("1e-2 * b", 0.02),
    ],
)
def test_computes(formula: str, value: float) -> None:
    assert compute(formula, VALUES) == pytest.approx(value)


def test_names_are_graders_and_not_functions() -> None:
    assert names_in("min(a, 0.5) * b ^ 2") == {"a", "b"}


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("a / zero", "division by zero in 'a / zero' where a is 0.5"),
        ("sqrt(-a)", "is no number"),
        ("log(zero)", "is no number"),
        ("(-b) ^ a", "is no number"),
        ("exp(1000)", "is no number"),
        ("10 ^ 300 * 10 ^ 300", "is inf .* at most 1e"),
        ("exp(50)", "at most 1e"),
        ("zero ^ -1", "is no number"),
    ],
)
def test_tells_what_has_no_value(formula: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        compute(formula, VALUES)


@pytest.mark.parametrize(
    "formula",
    [
        *("", "a +", "a b", "(a", "a; b", "a = 1", "__import__('os')", "a.real", "a[0]", "lambda: 1", "'a' * 9", "1j"),
        *("a if b else 0", "a and b", "a < b", "[a for a in b]", "min(*a)", "min(a=1)", "a ** b", "a // b", "a % b"),
        *("f(a)", "min(a)", "sqrt(a, b)", "min + 1", "True", "None", "a @ b", "~a", "not a", "{a}", "a :=b", "ä + 1"),
        *("9" * 400, "(" * 500 + "a" + ")" * 400, "-" * 999 + "a", "a+" * LONGEST + "a", "a\\\n+ b", "a # b"),
    ],
)
def test_refuses_what_is_no_formula(formula: str) -> None:
    with pytest.raises(ValueError, match=r"a formula|the formula|function|takes"):
        compute(formula, VALUES)


def test_a_tower_of_powers_takes_no_time() -> None:
    with pytest.raises(ValueError, match="no number"):
        compute("9 ^ 9 ^ 9 ^ 9 ^ 9", VALUES)
    assert math.isclose(compute("+".join(["a"] * 400), VALUES), 200)
    assert parse("a") is parse("a")
