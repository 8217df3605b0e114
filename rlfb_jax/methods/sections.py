"""Which options of the configuration a recipe reads; others do nothing."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

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
# Options that not all recipes read which read their section.
_READ_WHERE: Mapping[tuple[str, str], Callable[[Recipe], bool]] = MappingProxyType(
  {('reward', field): lambda recipe: recipe.rates for field in _OF_RATINGS}
  | {
    ('', 'updates_per_step'): lambda recipe: recipe.replays,
    ('pretrain', 'num_epochs'): lambda recipe: not recipe.replays,
    ('reward', 'pair_weight'): lambda recipe: recipe.compares,
    # SURF counts in steps.
    ('reward', 'max_passes'): lambda recipe: SURF not in recipe.add,
    ('reward', 'stop_accuracy'): lambda recipe: SURF not in recipe.add,
  }
)
# Where it is the agent that does not read one.
_OF_AGENTS = frozenset({('', 'updates_per_step'), ('pretrain', 'num_epochs')})


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
  where = _READ_WHERE.get((section, field), lambda _: True)
  return section in sections_read(recipe) and where(recipe)


def why_not_read(recipe: Recipe, section: str, field: str) -> str:
  """What a recipe is like that does not read an option, as a relative clause."""
  if recipe.ask and (section, field) in _OF_AGENTS:
    return f'whose agent is {recipe.agent}'
  if SURF in recipe.add and field in ('max_passes', 'stop_accuracy'):
    return 'whose reward takes the steps of --surf_reward_update'
  if section in _RATED | _COMPARED | _ASKED | set(ADDITIONS):
    if not recipe.ask:
      return 'which learns from the true reward'
    if section in ADDITIONS:
      return f'which does not include {section}'
    return f'which asks for {recipe.ask}'
  return f'whose agent is {recipe.agent}'
