"""What the scripts' command lines share: lists of names, and numbers with a bound."""

import argparse
import pathlib
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


def check_empty(
  parser: argparse.ArgumentParser, flag: str, folder: pathlib.Path
) -> None:
  """Ends the program with one sentence where a folder holds anything."""
  if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
    parser.error(
      f'--{flag}={folder} must be an empty folder or a new one, for what is there would'
      f' be taken for this run; try --{flag}={folder}-2.'
    )
