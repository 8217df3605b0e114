"""Which options of the configuration a recipe reads; others do nothing."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from rlfb_jax.methods.recipes import ADDITIONS, SURF, Recipe

# Sections that only questions of a kind, or any, give a meaning.
_RATED = frozenset({'rating', 'feedback'})
_COMPARED = frozenset({'teacher', 'pairs', 'preference'})
_ASKED = frozenset({'reward', 'pretrain'})
# Of the reward, what only its loss on ratings has.
_OF_RATINGS = (
  'rating_weight',
  'min_ragged',
  'stratified',
  'loss',
  'class_weights',
  'boundaries',
  'sharpness',
  'sharpness_mode',
)


class _Condition(NamedTuple):
  """Which of the recipes that read a section read an option of it.

  Attributes:
    read_by: whether a recipe does.
    otherwise: what it is like if not, as a relative clause.
  """

  read_by: Callable[[Recipe], bool]
  otherwise: Callable[[Recipe], str]


def _by_agent(recipe: Recipe) -> str:
  return f'whose agent is {recipe.agent}'


def _by_question(recipe: Recipe) -> str:
  return f'which asks for {recipe.ask}'


_IN_PASSES = _Condition(
  lambda recipe: SURF not in recipe.add,
  lambda _: 'whose reward takes the steps of --surf_reward_update',
)
_CONDITIONS: Mapping[tuple[str, str], _Condition] = MappingProxyType(
  {
    ('reward', field): _Condition(lambda recipe: recipe.rates, _by_question)
    for field in _OF_RATINGS
  }
  | {
    ('', 'updates_per_step'): _Condition(lambda recipe: recipe.replays, _by_agent),
    # Where people rate, too: see `is_read`.
    ('pairs', 'archive_episodes'): _Condition(lambda recipe: recipe.replays, _by_agent),
    ('pretrain', 'num_epochs'): _Condition(
      lambda recipe: not recipe.replays, _by_agent
    ),
    ('reward', 'pair_weight'): _Condition(lambda recipe: recipe.compares, _by_question),
    ('reward', 'max_passes'): _IN_PASSES,
    ('reward', 'stop_accuracy'): _IN_PASSES,
  }
)


def sections_read(recipe: Recipe) -> frozenset[str]:
  """The keys of `SECTIONS` whose options matter to a recipe."""
  read = {'', recipe.agent} | recipe.add
  if recipe.replays:
    read |= {'replay'}
  if recipe.ask:
    read |= _ASKED
  if recipe.rates:
    read |= _RATED
  if recipe.compares:
    read |= _COMPARED
  return frozenset(read)


def is_read(recipe: Recipe, section: str, field: str) -> bool:
  """Whether one option matters, in its section or apart from it."""
  if (section, field) == ('pairs', 'archive_episodes'):
    return bool(recipe.ask) and recipe.replays  # Of ratings, too.
  condition = _CONDITIONS.get((section, field))
  read = condition is None or condition.read_by(recipe)
  return read and section in sections_read(recipe)


def why_not_read(recipe: Recipe, section: str, field: str) -> str:
  """What a recipe is like that does not read an option, as a relative clause."""
  if section in sections_read(recipe):
    return _CONDITIONS[section, field].otherwise(recipe)
  if section in _RATED | _COMPARED | _ASKED | set(ADDITIONS):
    if not recipe.ask:
      return 'which learns from the true reward'
    if section in ADDITIONS:
      return f'which does not include {section}'
    return _by_question(recipe)
  return _by_agent(recipe)
