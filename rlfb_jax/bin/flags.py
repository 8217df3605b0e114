"""The command line of a program whose configuration is a few `Options` sections.

A program names its sections, `{'': RunOptions, 'ppo': PPOOptions, ...}`, and gets
the same mapping back with values. `--preset=NAME` starts from a packaged flag file
and `--flagfile=RUN/flags.txt` from a run's own; what is written on the command line
wins over both, in whatever order it stands.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources

from absl import flags

from rlfb_jax.bin import option_flags
from rlfb_jax.core import suggest
from rlfb_jax.core.config import Options

Sections = Mapping[str, type[Options]]
Config = dict[str, Options]
Check = Callable[[Config], None]

_FILES = ('preset', 'flagfile')  # Flags that name further flags, weakest first.


def parse(
  argv: Sequence[str], sections: Sections, checks: Sequence[Check] = ()
) -> Config:
  """Reads a command line.

  Args:
    argv: the arguments, without the program's name.
    sections: prefix -> options; see `option_flags.flag_name` for the names.
    checks: functions of the whole configuration that raise ValueError where options
      do not go together, in a sentence with the nearest value that works.

  Returns:
    prefix -> options, filled in.

  Raises:
    ValueError: in one sentence, for whatever is wrong on the command line.
  """
  config, rest = parse_with_names(argv, sections)
  if rest:
    raise ValueError(f'{rest[0]} is not a flag; flags are written --name=value.')
  for check in checks:
    check(config)
  return config


def parse_with_names(
  argv: Sequence[str], sections: Sections
) -> tuple[Config, list[str]]:
  """Reads a command line that names files or folders, too, before or after flags.

  Args:
    argv: the arguments, without the program's name.
    sections: as in `parse`.

  Returns:
    prefix -> options, and what is neither a flag nor the value of one.

  Raises:
    ValueError: in one sentence.
  """
  values, rest = _read(expand(argv), sections)
  return {p: option_flags.collect(s, p, values) for p, s in sections.items()}, rest


def written(argv: Sequence[str], sections: Sections) -> list[tuple[str, str]]:
  """The flags on a command line itself, not those of its presets and flag files.

  Args:
    argv: a command line that `parse` accepts.
    sections: as in `parse`.

  Returns:
    Prefix and field of each, in the order of the sections.
  """
  values, _ = _read(_split(argv)[1], sections)
  return [
    (prefix, field.name)
    for prefix, section in sections.items()
    for field in dataclasses.fields(section)
    if values[option_flags.flag_name(prefix, field.name)].present
  ]


def expand(argv: Sequence[str]) -> list[str]:
  """Replaces presets and flag files by their lines and puts these first."""
  lines, rest = _split(argv)
  return lines + rest


def _read(
  argv: Sequence[str], sections: Sections
) -> tuple[flags.FlagValues, list[str]]:
  """The values of all flags, and what is neither a flag nor the value of one."""
  values = flags.FlagValues()
  values.set_gnu_getopt()
  for prefix, section in sections.items():
    option_flags.define(section, prefix, values)
  try:
    return values, values(['', *argv])[1:]
  except flags.UnrecognizedFlagError as error:
    raise ValueError(_unknown_flag(error.flagname, list(values))) from None
  except flags.Error as error:
    raise ValueError(str(error)) from None


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """The lines of presets and flag files, weakest first, and all other arguments."""
  found: dict[str, list[str]] = {kind: [] for kind in _FILES}
  rest: list[str] = []
  args = iter(argv)
  for arg in args:
    kind, equals, value = arg.lstrip('-').partition('=')
    if arg.startswith('-') and kind in _FILES:
      value = value if equals else next(args, '')
      if not value:
        raise ValueError(f'--{kind} needs a value, as in --{kind}=NAME.')
      lines = _preset_lines if kind == 'preset' else _file_lines
      found[kind] += lines(value)
    else:
      rest.append(arg)
  return [line for kind in _FILES for line in found[kind]], rest


def presets() -> list[str]:
  """Names of the packaged flag files."""
  folder = resources.files('rlfb_jax.presets')
  names = [entry.name for entry in folder.iterdir()]
  return sorted(n.removesuffix('.flags') for n in names if n.endswith('.flags'))


def to_lines(config: Mapping[str, Options], omit: Sequence[str] = ()) -> list[str]:
  """The flag file that gives `config` back.

  Args:
    config: prefix -> options.
    omit: flags left out, such as the run's own folder, so that a repeated run does
      not write over the first.
  """
  lines = []
  for prefix, section in config.items():
    lines.append(f'# {type(section).__name__}')
    for field in dataclasses.fields(section):
      name = option_flags.flag_name(prefix, field.name)
      if name not in omit:
        text = option_flags.to_text(getattr(section, field.name))
        lines.append(f'--{name}={text}')
  return lines


def wants_help(argv: Sequence[str]) -> bool:
  """Whether a command line asks what there is to say."""
  return any(arg in ('--help', '-help', '-h') for arg in argv)


def help_text(usage: str, sections: Sections) -> str:
  """What `--help` prints: each flag with default, bounds and meaning."""
  lines = [
    usage,
    '',
    '  --preset=NAME    start from a packaged flag file: ' + ', '.join(presets()),
    '  --flagfile=FILE  start from a flag file, such as the flags.txt of a run',
  ]
  for prefix, section in sections.items():
    lines += ['', f'{section.__name__}:']
    for field in dataclasses.fields(section):
      name = option_flags.flag_name(prefix, field.name)
      rule = option_flags.describe(field.metadata)
      default = option_flags.to_text(field.default)
      lines.append(f'  --{name}={default}' + (f'  ({rule})' if rule else ''))
      lines.append(f'      {field.metadata.get("help", "")}')
  return '\n'.join(lines)


@contextlib.contextmanager
def usage_errors(program: str) -> Iterator[None]:
  """Ends the program with one sentence and exit code 1 where a ValueError is raised.

  To be put around checks and building, not around training, where a ValueError is
  a mistake of ours and deserves its traceback.
  """
  try:
    yield
  except ValueError as error:
    print(f'{program}: {error}', file=sys.stderr)
    raise SystemExit(1) from None


def _preset_lines(name: str) -> list[str]:
  suggest.check_known('--preset', name, presets())
  text = resources.files('rlfb_jax.presets').joinpath(f'{name}.flags').read_text()
  return _flag_lines(text)


def _file_lines(path: str) -> list[str]:
  try:
    with open(path) as file:
      return _flag_lines(file.read())
  except OSError as error:
    raise ValueError(
      f'--flagfile={path} cannot be read ({error.strerror}); '
      'a run leaves its own as RUN/flags.txt.'
    ) from None


def _flag_lines(text: str) -> list[str]:
  lines = [line.strip() for line in text.splitlines()]
  return expand([line for line in lines if line and not line.startswith('#')])


def _unknown_flag(name: str, known: Sequence[str]) -> str:
  near = suggest.suggest(name, [*known, *_FILES])
  hint = f'did you mean --{near}?' if near else '--help lists all flags.'
  return f'--{name} is unknown; {hint}'
