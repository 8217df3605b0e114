"""Typed options: each hyperparameter is written once, with bounds and help.

A part of the program declares a frozen dataclass whose fields are made by
`option`. The dataclass checks itself when it is built (`Options.__post_init__`),
and the command line derives its flags from the same fields, so that help text,
bounds and choices cannot drift apart.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def option(
  default: Any,
  help: str,
  *,
  low: float | None = None,
  high: float | None = None,
  above: float | None = None,
  below: float | None = None,
  choices: tuple[str, ...] | None = None,
  sweep: bool = False,
  apart: Callable[[Any], bool] | None = None,
  padded: bool = False,
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
    sweep: whether runs that differ in this number alone may share one program, in
      which it is traced: it sets no shape, no loop and no branch.
    apart: which values nevertheless need a program of their own, because they switch
      a part off, as 0 does for a bonus; the traced ones are then those that do not.
    padded: whether arrays are as long as this number, an exception to what `sweep`
      says: in a program that several runs share it is a `core.padding.Padded`.
  """
  rule = {
    'help': help,
    'low': low,
    'high': high,
    'above': above,
    'below': below,
    'choices': choices,
    'sweep': sweep,
    'apart': apart,
    'padded': padded,
  }
  return dataclasses.field(default=default, metadata=rule)


def flag_name(prefix: str, field: str) -> str:
  """`ppo` and `clip` make `ppo_clip`; `kl` and `kl_mode` stay `kl_mode`."""
  if not prefix or field == prefix or field.startswith(f'{prefix}_'):
    return field
  return f'{prefix}_{field}'


def is_traced(value: Any) -> bool:
  """Whether a number is one of many in a program that several runs share.

  Such a value cannot be looked at, and it is none of those that `option(apart=...)`
  keeps out: `if is_traced(x) or x > 0` asks whether the part is switched on.
  """
  return isinstance(value, jax.core.Tracer)


def log(value: Any) -> jax.Array:
  """Natural logarithm of an option, [] float32; in double precision where it can be."""
  return jnp.log(value) if is_traced(value) else jnp.float32(math.log(value))


def check_value(name: str, value: Any, rule: Any) -> None:
  """Raises ValueError in one sentence if `value` breaks the field's rule."""
  choices = rule.get('choices')
  if choices is not None and not is_traced(value) and value not in choices:
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
