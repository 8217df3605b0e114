"""One command-line flag for one field of an `Options` dataclass.

Type, default, bounds, choices and help come from the field, so that the command
line cannot drift from the code.
"""

import dataclasses
import re
import types
import typing
from typing import Any

from absl import flags

from rlfb_jax.core import config as config_lib
from rlfb_jax.core import suggest

Options = config_lib.Options
flag_name = config_lib.flag_name
_NONE = 'none'  # How None is written on the command line.


class _Parser(flags.ArgumentParser):
  """Reads one option's value and refuses it in one sentence."""

  def __init__(self, name: str, kind: Any, rule: Any):
    self._name = name
    self._rule = rule
    members = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    self._optional = type(None) in members
    (self._kind,) = (m for m in members if m is not type(None))
    self.syntactic_help = describe(rule)

  def parse(self, argument: Any) -> Any:
    if isinstance(argument, str):
      argument = self._convert(argument)
    try:
      if isinstance(argument, str) and self._rule.get('choices'):
        suggest.check_known(f'--{self._name}', argument, self._rule['choices'])
      config_lib.check_value(f'--{self._name}', argument, self._rule)
    except ValueError as error:
      # Unlike a ValueError, absl passes this on as it is.
      raise flags.IllegalFlagValueError(str(error)) from None
    return argument

  def flag_type(self) -> str:
    return getattr(self._kind, '__name__', str(self._kind))

  def _convert(self, text: str) -> Any:
    if self._optional and text.lower() == _NONE:
      return None
    if typing.get_origin(self._kind) is tuple:
      member = typing.get_args(self._kind)[0]
      return tuple(self._convert_one(t.strip(), member) for t in text.split(',') if t)
    return self._convert_one(text, self._kind)

  def _convert_one(self, text: str, kind: type) -> Any:
    wanted = {bool: 'true or false', int: 'a whole number', float: 'a number'}
    try:
      if kind is bool:
        return {'true': True, 'false': False, '1': True, '0': False}[text.lower()]
      if kind is int:
        return _whole_number(text)
      return kind(text)
    except (ValueError, KeyError, OverflowError):
      raise flags.IllegalFlagValueError(
        f'--{self._name}={text} must be {wanted.get(kind, kind.__name__)}.'
      ) from None


class _Serializer(flags.ArgumentSerializer):
  """Writes a value as the command line reads it; numbers keep all their digits."""

  def serialize(self, value: Any) -> str:
    return to_text(value)


def to_text(value: Any) -> str:
  """The text that gives `value` back when a flag reads it."""
  if value is None:
    return _NONE
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, tuple):
    return ','.join(to_text(v) for v in value)
  return str(value)


def describe(rule: Any) -> str:
  """Bounds or choices in words, empty where there are none."""
  if rule.get('choices'):
    return 'one of ' + ', '.join(rule['choices'])
  signs = {'low': '>=', 'above': '>', 'high': '<=', 'below': '<'}
  bounds = [f'{s} {rule[k]}' for k, s in signs.items() if rule.get(k) is not None]
  return ' and '.join(bounds)


def define(
  section: type[Options], prefix: str = '', flag_values: flags.FlagValues = flags.FLAGS
) -> None:
  """Defines a flag for every field of `section`.

  Args:
    section: the options; a field's type may be bool, int, float, str, a tuple of
      those, or any of them or None.
    prefix: what the flags' names start with.
    flag_values: where the flags live.
  """
  kinds = typing.get_type_hints(section)
  for field in dataclasses.fields(section):
    name = flag_name(prefix, field.name)
    flag: flags.Flag = flags.Flag(
      _Parser(name, kinds[field.name], field.metadata),
      _Serializer(),
      name,
      field.default,
      field.metadata.get('help', ''),
      boolean=kinds[field.name] is bool,
    )
    flags.DEFINE_flag(flag, flag_values, module_name=section.__module__)


def collect(
  section: type[Options], prefix: str = '', flag_values: flags.FlagValues = flags.FLAGS
) -> Options:
  """Builds `section` from the values of its parsed flags.

  Raises:
    ValueError: if the fields break a rule of the section together.
  """
  names = {f.name: flag_name(prefix, f.name) for f in dataclasses.fields(section)}
  try:
    return section(**{n: flag_values[flag].value for n, flag in names.items()})
  except ValueError as error:
    # The section speaks of its fields; here they are flags.
    said = re.sub(r'\b\w+(?==)', lambda m: _as_flag(m[0], names), str(error))
    raise ValueError(said) from None


def _as_flag(word: str, names: dict[str, str]) -> str:
  return f'--{names[word]}' if word in names else word


def _whole_number(text: str) -> int:
  """Reads 3, 1_000_000 and 2e6 alike; steps are long to write out."""
  try:
    return int(text)
  except ValueError:
    number = float(text)
    if number != int(number):
      raise
    return int(number)
