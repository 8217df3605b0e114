"""Typed options: each hyperparameter is written once, with bounds and help.

A part of the program declares a frozen dataclass whose fields are made by
`option`. The dataclass checks itself when it is built (`Options.__post_init__`),
and the command line derives its flags from the same fields, so that help text,
bounds and choices cannot drift apart.
"""

import dataclasses
import math
from typing import Any


def option(
  default: Any,
  help: str,
  *,
  low: float | None = None,
  high: float | None = None,
  above: float | None = None,
  below: float | None = None,
  choices: tuple[str, ...] | None = None,
) -> Any:
  """Declares one field of an `Options` dataclass.

  Args:
    default: value where the user says nothing; its type is the field's type.
    help: one line with unit and source, shown by `--help`.
    low: smallest value allowed, itself included.
    high: largest value allowed, itself included.
    above: bound that the value must exceed.
    below: bound that the value must stay under.
    choices: the strings allowed.
  """
  rule = {
    'help': help,
    'low': low,
    'high': high,
    'above': above,
    'below': below,
    'choices': choices,
  }
  return dataclasses.field(default=default, metadata=rule)


def check_value(name: str, value: Any, rule: Any) -> None:
  """Raises ValueError in one sentence if `value` breaks the field's rule."""
  choices = rule.get('choices')
  if choices is not None and value not in choices:
    raise ValueError(f'{name}={value} is not one of {", ".join(choices)}.')
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return
  if not math.isfinite(value):
    raise ValueError(f'{name}={value} must be a finite number.')
  low, high, above, below = (rule.get(k) for k in ('low', 'high', 'above', 'below'))
  if low is not None and value < low:
    raise ValueError(f'{name}={value} must be at least {low}; try {low}.')
  if high is not None and value > high:
    raise ValueError(f'{name}={value} must be at most {high}; try {high}.')
  if above is not None and value <= above:
    raise ValueError(f'{name}={value} must be greater than {above}.')
  if below is not None and value >= below:
    raise ValueError(f'{name}={value} must be less than {below}.')


@dataclasses.dataclass(frozen=True)
class Options:
  """Base of every configuration part: immutable and checked when built."""

  def __post_init__(self) -> None:
    for f in dataclasses.fields(self):
      check_value(f.name, getattr(self, f.name), f.metadata)
