"""Units: conversion of quantities such as "100 us" to numbers in the unit of the schema. pint is imported for the first one."""

from __future__ import annotations

import functools
import re
from typing import Any

from rlsnet.errors import UserError

QUANTITY = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\d.])\s*(\D.*)?")
DIGITS = 12  # significant ones that a conversion keeps: 100 us are 0.1 ms, and not the number next to it


@functools.cache
def _registry() -> Any:
    """All units of pint and `threshold`, the unit of voltages and currents."""
    import pint

    registry: Any = pint.UnitRegistry()
    registry.define("threshold = [threshold]")
    return registry


def _unit(text: str) -> Any:
    """A unit out of a text such as ms, 1/s, /s or threshold/sqrt(ms)."""
    text = re.sub(r"sqrt\(([^()]*)\)", r"(\1)**0.5", text)
    if re.search(r"\d\s*(\*\*|\^)", text):
        raise ValueError("a power of a number is no unit")
    return _registry().parse_units(f"1{text}" if text.startswith("/") else text)


def quantity(key: str, text: str, unit: str) -> float:
    """The number of a quantity in the unit of a setting.

    Args:
      key: name of the setting, for messages.
      text: a number, or a number with a unit.
      unit: of the setting, "" for none.

    Raises:
      UserError: a text that cannot be read, or a unit of another kind.
    """
    wanted = f"expected a number in {unit}, or with its unit, such as {key}='1 {unit}'" if unit else "expected a number without a unit"
    text = " ".join(text.split())
    match = QUANTITY.fullmatch(text)
    if match is not None and match[2] is None:
        return float(match[1])
    if match is None or not unit:
        raise UserError(f"{key}={text}: {wanted}.")
    import pint

    number, given = match.groups()
    try:
        return float(f"{_registry().Quantity(float(number), _unit(given)).m_as(_unit(unit)):.{DIGITS}g}")
    except pint.UndefinedUnitError as error:
        unknown = error.unit_names if isinstance(error.unit_names, str) else ", ".join(error.unit_names)
        raise UserError(f"{key}={text}: no such unit as {unknown}; {wanted}.") from error
    except pint.DimensionalityError as error:
        volts = " (voltages and currents are counted in thresholds here, not in volts)" if "threshold" in unit else ""
        raise UserError(f"{key}={text}: {given} is not a unit of this setting; {wanted}{volts}.") from error
    except Exception as error:  # pint raises many kinds for a text that it cannot read
        raise UserError(f"{key}={text}: cannot be read; {wanted}.") from error
