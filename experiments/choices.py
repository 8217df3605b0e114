"""What the scripts' command lines share: lists of names, and numbers with a bound."""

import argparse
from collections.abc import Iterable


def split(
  parser: argparse.ArgumentParser, flag: str, text: str, known: Iterable[str]
) -> list[str]:
  """The values of a comma-separated flag.

  Args:
    parser: ends the program with one sentence where a value is unknown or said twice.
    flag: its name, without dashes.
    text: what was given.
    known: values that there are; empty where any will do.
  """
  known, values = list(known), text.split(',')
  for value in values:
    if known and value not in known:
      parser.error(f'--{flag}={value} is not one of {", ".join(known)}.')
  if len(set(values)) < len(values):
    once = ','.join(dict.fromkeys(values))
    parser.error(f'--{flag}={text} names one twice; try --{flag}={once}.')
  return values


def check_at_least(
  parser: argparse.ArgumentParser, flag: str, value: int, low: int
) -> None:
  """Ends the program with one sentence where a number is too small."""
  if value < low:
    parser.error(f'--{flag}={value} must be at least {low}; try --{flag}={low}.')
