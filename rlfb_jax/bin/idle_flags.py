"""Flags that somebody wrote and that do nothing with the method they are given to."""

import dataclasses
from collections.abc import Sequence

from rlfb_jax import methods
from rlfb_jax.bin import flags
from rlfb_jax.core.config import flag_name
from rlfb_jax.methods.recipes import ADDITIONS
from rlfb_jax.methods.sections import is_read, sections_read, why_not_read

# Where the same word means the same of another agent or another kind of question.
_COUNTERPARTS = {
  'ppo': ('sac', 'ddpg', 'replay'),
  'sac': ('ddpg', 'ppo'),
  'ddpg': ('sac', 'ppo'),
  'replay': ('ppo',),
  'feedback': ('pairs',),
  'pairs': ('feedback',),
}


def idle_flags(argv: Sequence[str], config: methods.Config) -> list[str]:
  """A sentence for each flag on the command line itself that does nothing.

  Those of presets and flag files are left out: one file serves several methods.

  Args:
    argv: a command line that was read.
    config: what it means.
  """
  recipe = config.recipe
  return [
    _sentence(section, field, config)
    for section, field in flags.written(argv, methods.SECTIONS)
    if not is_read(recipe, section, field)
  ]


def _sentence(section: str, field: str, config: methods.Config) -> str:
  run, recipe = config.run, config.recipe
  chosen = ('method', run.method), ('agent', run.agent), ('ask', run.ask)
  method = ' '.join(f'--{flag}={value}' for flag, value in chosen if value)
  says = f'--{flag_name(section, field)} does nothing with {method},'
  says += f' {why_not_read(recipe, section, field)}'
  meant = _meant(section, field, config)
  return f'{says}; did you mean --{meant}?' if meant else f'{says}.'


def _meant(section: str, field: str, config: methods.Config) -> str | None:
  """The flag that does with this method what another does elsewhere."""
  recipe = config.recipe
  if section in ADDITIONS and recipe.ask:
    return f'add={section}'
  for other in _COUNTERPARTS.get(section, ()):
    names = {f.name for f in dataclasses.fields(methods.SECTIONS[other])}
    if other in sections_read(recipe) and field in names:
      return flag_name(other, field)
  return None
