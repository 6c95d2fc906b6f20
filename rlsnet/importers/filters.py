"""Filters of trials and units: comparisons of columns in the words of Python, and nothing else of it.

`trial_instruction == 'left' and outcome in ['hit', 'miss'] and not early`: names are columns, constants are texts, numbers,
True, False, None and nan. A text column compared with a number is read as numbers, and what is none ("N/A") compares as NaN does:
only != holds. `== None` and `== nan` hold where a value is missing.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from rlsnet.config import UserError
from rlsnet.importers.session import Table

COMPARISONS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
PARTS = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.Compare, ast.cmpop),
    *(ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.Set),
)
RIGHT = "should be comparisons of columns, such as outcome == 'hit' and quality in ['good', 'multi'] and not early"


def known(name: str, columns: Iterable[str], what: str, where: str) -> None:
    """Raises UserError unless `name` is one of `columns`; `what` is the setting that named it and `where` the file."""
    columns = sorted(set(columns))
    if name in columns:
        return
    lower = {column.lower(): column for column in columns}
    close = difflib.get_close_matches(name.lower(), lower, 1)
    hint = f" Did you mean {lower[close[0]]}?" if close else ""
    raise UserError(f"{what}: no {name} in {where}; there is {', '.join(columns) or 'nothing'}.{hint}")


def names(text: str) -> list[str]:
    """The columns that a filter names, in order."""
    found = [node.id for node in ast.walk(_parse(text, text)) if isinstance(node, ast.Name) and node.id != "nan"]
    return list(dict.fromkeys(found))


def keep(text: str | None, table: Table, size: int, what: str, where: str) -> np.ndarray:
    """[size] bool, the rows that a filter keeps; None or an empty one keeps all.

    Args:
      text: the filter.
      table: columns of length `size`.
      size: number of rows.
      what: the setting it comes from, such as conditions.left, for messages.
      where: the file, for messages.

    Raises:
      UserError: where the text is no such filter, or a column is not there.
    """
    if text is None or not text.strip():
        return np.ones(size, bool)
    tree = _parse(text, f"{what}={text}")
    for name in names(text):
        known(name, table, f"{what}={text}", where)
    return _Filter(table, size, f"{what}={text}", where).truth(tree)


def _parse(text: str, what: str) -> ast.expr:
    """The tree of a filter; raises UserError where it has parts that no filter has."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # ValueError: a zero byte
        assigned = " (one = is an assignment; == compares)" if re.search(r"(?<![=!<>])=(?!=)", text) else ""
        raise UserError(f"{what}: cannot be read as a filter{assigned}; {RIGHT}.") from error
    for node in ast.walk(tree):
        if not isinstance(node, PARTS):
            raise _wrong(what, node)
    return tree


def _wrong(what: str, node: ast.AST) -> UserError:
    return UserError(f"{what}: {ast.unparse(node)} does not go there in a filter; {RIGHT}.")


class _Filter:
    """Evaluates the nodes of a parsed filter over the columns of a table."""

    def __init__(self, table: Table, size: int, what: str, where: str):
        self.table, self.size, self.what, self.where = table, size, what, where

    def truth(self, node: ast.expr) -> np.ndarray:
        """[size] bool, where a condition holds."""
        if isinstance(node, ast.BoolOp):
            both = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return both.reduce([self.truth(value) for value in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.truth(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = [self.compare(*each) for each in zip(sides[:-1], node.ops, sides[1:], strict=True)]
            return np.logical_and.reduce(parts)
        if isinstance(node, ast.Name) and node.id != "nan":
            return self.as_truth(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            return np.full(self.size, node.value)
        raise _wrong(self.what, node)

    def compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> np.ndarray:
        """One comparison, also with a list."""
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.List | ast.Tuple | ast.Set):
                raise _wrong(self.what, right)
            found = [self.compare(left, ast.Eq(), each) for each in right.elts]
            within = np.logical_or.reduce(found) if found else np.zeros(self.size, bool)
            return ~within if isinstance(op, ast.NotIn) else within
        if isinstance(op, ast.Is | ast.IsNot):
            op = ast.Eq() if isinstance(op, ast.Is) else ast.NotEq()
        for side, other in ((left, right), (right, left)):
            if self.is_missing(side):
                if not isinstance(op, ast.Eq | ast.NotEq):
                    raise _wrong(self.what, side)
                absent = _missing(np.asarray(self.value(other)))
                return np.broadcast_to(absent if isinstance(op, ast.Eq) else ~absent, self.size)
        given = np.asarray(self.value(left)), np.asarray(self.value(right))
        a, b = _alike(*given)
        ordered = not isinstance(op, ast.Eq | ast.NotEq)
        if ordered and a.dtype.kind == "U" and any(each.dtype.kind in "biuf" for each in given):
            raise UserError(f"{self.what}: in {self.where}, {ast.unparse(left)} and {ast.unparse(right)} are a number and a text; {RIGHT}.")
        return np.broadcast_to(np.asarray(COMPARISONS[type(op)](a, b), bool), self.size)

    def value(self, node: ast.expr) -> Any:
        """A column or a constant."""
        if isinstance(node, ast.Name):
            return self.table[node.id]
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd) and isinstance(node.operand, ast.Constant):
            if isinstance(node.operand.value, int | float):
                return -node.operand.value if isinstance(node.op, ast.USub) else node.operand.value
        raise _wrong(self.what, node)

    def as_truth(self, name: str) -> np.ndarray:
        """A column that stands alone: of booleans, or of their words."""
        column = np.asarray(self.table[name])
        if column.dtype.kind in "biu" or (column.dtype.kind == "f" and np.isin(column, (0, 1)).all()):
            return column.astype(bool)
        words = np.char.lower(_texts(column)) if column.dtype.kind in "OUST" else np.array(["?"])
        if not np.isin(words, ("true", "false")).all():
            raise UserError(f"{self.what}: {name} in {self.where} is not true or false; {RIGHT}.")
        return words == "true"

    def is_missing(self, node: ast.expr) -> bool:
        return (isinstance(node, ast.Constant) and node.value is None) or (isinstance(node, ast.Name) and node.id == "nan")


def _texts(column: Any) -> np.ndarray:
    """A column of texts as fixed-length texts, blanks at its ends left out; what is missing is empty."""
    column = np.asarray(column)
    if column.dtype.kind == "O":
        column = np.array(["" if each is None or each != each else str(each) for each in column.ravel()], dtype=str)
    return np.char.strip(column.astype(str))


def numbers(column: Any) -> np.ndarray:
    """A column as float64; texts that are no number, such as N/A, are NaN."""
    column = np.asarray(column)
    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    out = np.full(column.shape, np.nan)
    for index, each in enumerate(_texts(column).ravel()):
        try:
            out.flat[index] = float(each)
        except ValueError:
            pass
    return out


def _alike(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two values, columns or constants, as numbers or as texts, so that they compare."""
    a, b = np.asarray(a), np.asarray(b)
    plain = [each.dtype.kind in "biuf" for each in (a, b)]
    if all(plain):
        return _rounded(a, b), _rounded(b, a)
    if not any(plain):
        return _texts(a), _texts(b)
    number, text = (a, b) if plain[0] else (b, a)
    if number.dtype.kind == "b":  # true and false in words
        pair = np.char.lower(_texts(number)), np.char.lower(_texts(text))
    elif text.ndim == 0 and np.isnan(numbers(text.reshape(1))).all():  # a column of numbers compared with a word: equal nowhere
        pair = number.astype(str), _texts(text)
    else:
        pair = number.astype(np.float64), _rounded(numbers(text), number).astype(np.float64)
    return pair if plain[0] else pair[::-1]


def _rounded(number: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A number as a column of float32 (or 16) holds it, so that 0.8 is found there."""
    return number.astype(other.dtype) if other.dtype.kind == "f" and number.ndim == 0 and number.dtype.kind in "if" else number


def _missing(column: np.ndarray) -> np.ndarray:
    """Where a column has nothing: NaN, None, or an empty text."""
    if column.dtype.kind in "OUST":
        words = np.char.lower(_texts(column.ravel())).reshape(column.shape)
        return np.isin(words, ("", "nan", "none", "null"))
    return np.isnan(column) if column.dtype.kind == "f" else np.zeros(column.shape, bool)


def values(text: str | None, table: Table, most: int = 6) -> str:
    """What the columns that a filter names hold, in words, for a filter that keeps nothing."""
    if not text:
        return ""
    told = []
    for name in names(text):
        column = np.asarray(table[name])
        texts = column.dtype.kind in "OUST"
        found = np.unique(_texts(column) if texts else column)
        shown = [repr(str(each)) if texts else f"{each:g}" if found.dtype.kind in "iuf" else str(each) for each in found]
        told.append(f"{name} is {', '.join(shown)}" if len(shown) <= most else f"{name} is {shown[0]} to {shown[-1]}")
    return "; ".join(told)
