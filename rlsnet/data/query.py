"""Filters of trials and units: comparisons of columns in Python syntax, and nothing else of Python.

In `trial_instruction == 'left' and outcome in ['hit', 'miss'] and not early`, names are columns; constants are texts, numbers,
True, False, None and nan. A text column compared with a number is converted to numbers; a text that is not a number ("N/A")
becomes NaN, for which only != is true. `== None` and `== nan` are true for missing values.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from rlsnet.data.number_texts import number_in
from rlsnet.data.session import Table
from rlsnet.errors import UserError, did_you_mean

COMPARISONS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
ALLOWED_NODES = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.Compare, ast.cmpop),
    *(ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.Set),
)
MISSING_CELLS = ("", "na", "<na>", "#n/a", "nan", "nat", "n/a", "null", "none")  # cells without a number, in a column of numbers
EXPECTED = "expected comparisons of columns, such as outcome == 'hit' and quality in ['good', 'multi'] and not early"


def require_column(name: str, columns: Iterable[str], what: str, where: str) -> None:
    """Raises UserError unless a column exists.

    Args:
      name: of the column.
      columns: names of the columns that exist.
      what: the setting that contains the name, for the message.
      where: the file, for the message.
    """
    columns = sorted(set(columns))
    if name in columns:
        return
    raise UserError(f"{what}: no {name} in {where}; expected one of {', '.join(columns) or 'none'}.{did_you_mean(name, columns)}")


def column_names(text: str, what: str = "") -> list[str]:
    """Names of the columns in a filter, in order; `what`: the setting that contains it, for the message if it cannot be read."""
    tree = _parse(text, f"{what}={text}" if what else text)
    found = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id != "nan"]
    return list(dict.fromkeys(found))


def select_rows(text: str | None, table: Table, size: int, what: str, where: str) -> np.ndarray:
    """Mask [size] bool of the rows that pass a filter; without a filter all rows pass.

    Args:
      text: the filter.
      table: columns of length `size`.
      size: number of rows.
      what: the setting that contains the filter, such as conditions.left, for messages.
      where: the file, for messages.

    Raises:
      UserError: the text is not a filter, or a column does not exist.
    """
    if text is None or not text.strip():
        return np.ones(size, bool)
    tree = _parse(text, f"{what}={text}")
    for name in column_names(text):
        require_column(name, table, f"{what}={text}", where)
    return _Query(table, size, f"{what}={text}", where).mask(tree)


def decide_rows(text: str, table: Table, size: int, what: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """([size] bool rows that pass a filter, [size] bool rows whose values decide whether they pass).

    A row without a value in a column of a comparison is undecided, unless the rest of the filter decides it, as with
    `a > 1 and b > 1` where a is 0. Arguments and errors as for `select_rows`.
    """
    passed, query = select_rows(text, table, size, what, where), _Query(table, size, f"{what}={text}", where)
    known = query.known(_parse(text, f"{what}={text}"))
    return passed & known, known


def _parse(text: str, what: str) -> ast.expr:
    """Syntax tree of a filter; raises UserError if it contains anything that filters may not contain."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # ValueError: a zero byte
        assigned = " (= is an assignment; == compares)" if re.search(r"(?<![=!<>])=(?!=)", text) else ""
        raise UserError(f"{what}: cannot be read as a filter{assigned}; {EXPECTED}.") from error
    for node in ast.walk(tree):
        if not isinstance(node, ALLOWED_NODES):
            raise _not_allowed(what, node)
    return tree


def _not_allowed(what: str, node: ast.AST) -> UserError:
    """Error about a part of a filter that is not allowed at its place."""
    return UserError(f"{what}: {ast.unparse(node)} is not allowed there in a filter; {EXPECTED}.")


class _Query:
    """Evaluation of a syntax tree over the columns of a table."""

    def __init__(self, table: Table, size: int, what: str, where: str):
        self.table, self.size, self.what, self.where = table, size, what, where

    def mask(self, node: ast.expr) -> np.ndarray:
        """Rows [size] bool for which a condition is true."""
        if isinstance(node, ast.BoolOp):
            combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return combine.reduce([self.mask(value) for value in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.mask(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            masks = [self._compare(*each) for each in zip(sides[:-1], node.ops, sides[1:], strict=True)]
            return np.logical_and.reduce(masks)
        if isinstance(node, ast.Name) and node.id != "nan":
            return self._boolean_column(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            return np.full(self.size, node.value)
        raise _not_allowed(self.what, node)

    def known(self, node: ast.expr) -> np.ndarray:
        """Rows [size] bool in which a condition is decided by values that are not missing (Kleene's logic)."""
        if isinstance(node, ast.BoolOp):
            decisive = isinstance(node.op, ast.Or)  # `or` is true if one side is, `and` false if one side is
            known = [self.known(value) for value in node.values]
            decided = [each & (self.mask(value) == decisive) for each, value in zip(known, node.values, strict=True)]
            return np.logical_and.reduce(known) | np.logical_or.reduce(decided)
        if isinstance(node, ast.UnaryOp):
            return self.known(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            return np.logical_and.reduce([self._both_known(*each) for each in zip(sides[:-1], node.ops, sides[1:], strict=True)])
        return np.ones(self.size, bool)  # columns of booleans have no missing values

    def _both_known(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> np.ndarray:
        """Rows [size] bool in which both sides of a comparison have a value; all rows if it asks whether one is missing."""
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            return np.logical_and.reduce([self._both_known(left, op, each) for each in right.elts])
        if self._is_missing(left) or self._is_missing(right):
            return np.ones(self.size, bool)
        sides = [np.asarray(self._value(side)) for side in (left, right)]
        missing = [missing_values(each) for side, each in zip((left, right), sides, strict=True) if isinstance(side, ast.Name)]
        missing += [np.isnan(each) for each in _comparable(*sides) if each.dtype.kind == "f"]  # a text that is not a number
        return ~np.broadcast_to(np.logical_or.reduce(np.broadcast_arrays(*missing, False)), self.size)

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> np.ndarray:
        """Rows [size] bool for which one comparison is true; the right side may be a list after `in`."""
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.List | ast.Tuple | ast.Set):
                raise _not_allowed(self.what, right)
            found = [self._compare(left, ast.Eq(), each) for each in right.elts]
            inside = np.logical_or.reduce(found) if found else np.zeros(self.size, bool)
            return ~inside if isinstance(op, ast.NotIn) else inside
        if isinstance(op, ast.Is | ast.IsNot):
            op = ast.Eq() if isinstance(op, ast.Is) else ast.NotEq()
        for side, other in ((left, right), (right, left)):
            if self._is_missing(side):
                if not isinstance(op, ast.Eq | ast.NotEq):
                    raise _not_allowed(self.what, side)
                absent = missing_values(np.asarray(self._value(other)))
                return np.broadcast_to(absent if isinstance(op, ast.Eq) else ~absent, self.size)
        operands = np.asarray(self._value(left)), np.asarray(self._value(right))
        a, b = _comparable(*operands)
        ordered = not isinstance(op, ast.Eq | ast.NotEq)
        if ordered and a.dtype.kind == "U" and any(each.dtype.kind in "biuf" for each in operands):
            raise UserError(
                f"{self.what}: in {self.where}, {ast.unparse(left)} and {ast.unparse(right)} are a number and a text; {EXPECTED}."
            )
        return np.broadcast_to(np.asarray(COMPARISONS[type(op)](a, b), bool), self.size)

    def _value(self, node: ast.expr) -> Any:
        """Column or constant."""
        if isinstance(node, ast.Name):
            return self.table[node.id]
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd) and isinstance(node.operand, ast.Constant):
            if isinstance(node.operand.value, int | float):
                return -node.operand.value if isinstance(node.op, ast.USub) else node.operand.value
        raise _not_allowed(self.what, node)

    def _boolean_column(self, name: str) -> np.ndarray:
        """Column without a comparison: booleans, 0 and 1, or the words true and false."""
        column = np.asarray(self.table[name])
        if column.dtype.kind in "biu" or (column.dtype.kind == "f" and np.isin(column, (0, 1)).all()):
            return column.astype(bool)
        words = np.char.lower(as_texts(column)) if column.dtype.kind in "OUST" else np.array(["?"])
        if not np.isin(words, ("true", "false")).all():
            raise UserError(f"{self.what}: {name} in {self.where} is neither true nor false; {EXPECTED}.")
        return words == "true"

    def _is_missing(self, node: ast.expr) -> bool:
        """Whether a constant stands for a missing value: None or nan."""
        return (isinstance(node, ast.Constant) and node.value is None) or (isinstance(node, ast.Name) and node.id == "nan")


def as_texts(column: Any) -> np.ndarray:
    """Column as texts of fixed length without blanks at their ends; missing values are empty."""
    column = np.asarray(column)
    if column.dtype.kind == "O":
        column = np.array(["" if each is None or each != each else str(each) for each in column.ravel()], dtype=str)
    return np.char.strip(column.astype(str))


def as_numbers(column: Any) -> np.ndarray:
    """Column as float64; texts that are not numbers, such as N/A, become NaN."""
    column = np.asarray(column)
    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    out = np.full(column.shape, np.nan)
    for index, each in enumerate(as_texts(column).ravel()):
        try:
            out.flat[index] = number_in(each)
        except ValueError:
            pass
    return out


def require_numbers(column: Any, where: str) -> np.ndarray:
    """Column as float64, NaN where a value is missing; raises UserError for a text that is not a number (`where`: the file and column)."""
    column = np.asarray(column)
    if column.dtype.kind == "M":
        raise UserError(f"{where} has dates; expected numbers such as 1022.5, of s from the start of the recording or of the trial.")
    values = as_numbers(column)
    if column.dtype.kind in "OUST":
        for row in np.flatnonzero(np.isnan(values)):
            if (text := str(as_texts(column[row : row + 1])[0])).lower() not in MISSING_CELLS:
                raise UserError(f"{where} is {text!r} in row {row + 1}; expected numbers such as 1022.5, or nothing where one is missing.")
    return values


def _comparable(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two operands, columns or constants, both as numbers or both as texts."""
    a, b = np.asarray(a), np.asarray(b)
    numeric = [each.dtype.kind in "biuf" for each in (a, b)]
    if all(numeric):
        return _rounded_like(a, b), _rounded_like(b, a)
    if not any(numeric):
        return as_texts(a), as_texts(b)
    number, text = (a, b) if numeric[0] else (b, a)
    if number.dtype.kind == "b":  # compared with the words true and false
        pair = np.char.lower(as_texts(number)), np.char.lower(as_texts(text))
    elif text.ndim == 0 and np.isnan(as_numbers(text.reshape(1))).all():  # a word, which no number equals
        pair = number.astype(str), as_texts(text)
    else:
        pair = number.astype(np.float64), _rounded_like(as_numbers(text), number).astype(np.float64)
    return pair if numeric[0] else pair[::-1]


def _rounded_like(number: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Constant rounded to the precision of a column of float32 or float16, so that 0.8 equals a stored 0.8."""
    return number.astype(other.dtype) if other.dtype.kind == "f" and number.ndim == 0 and number.dtype.kind in "if" else number


def missing_values(column: np.ndarray) -> np.ndarray:
    """Mask of missing values: NaN, None, or empty texts."""
    if column.dtype.kind in "OUST":
        words = np.char.lower(as_texts(column.ravel())).reshape(column.shape)
        return np.isin(words, ("", "nan", "none", "null"))
    return np.isnan(column) if column.dtype.kind == "f" else np.zeros(column.shape, bool)


def describe_columns(text: str | None, table: Table, most: int = 6) -> str:
    """Contents of the columns in a filter, for a message about a filter that no row passes.

    Args:
      text: the filter, or None.
      table: the columns.
      most: most values that are listed; of more, the first and the last.
    """
    if not text:
        return ""
    described = []
    for name in column_names(text):
        column = np.asarray(table[name])
        texts = column.dtype.kind in "OUST"
        found = np.unique(as_texts(column) if texts else column)
        shown = [repr(str(each)) if texts else f"{each:g}" if found.dtype.kind in "iuf" else str(each) for each in found]
        described.append(f"{name} is {', '.join(shown)}" if len(shown) <= most else f"{name} is {shown[0]} to {shown[-1]}")
    return "; ".join(described)
