"""Which sections of the configuration a recipe reads; those of others do nothing."""

from rlfb_jax.methods.recipes import ADDITIONS, Recipe

# Sections that only questions of a kind, or any, give a meaning.
_RATED = frozenset({'rating', 'feedback'})
_COMPARED = frozenset({'teacher', 'pairs', 'preference'})
_ASKED = frozenset({'reward', 'pretrain'})


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
  return section in sections_read(recipe)


def why_not_read(recipe: Recipe, section: str) -> str:
  """What a recipe is like that does not read a section, as a relative clause."""
  if section in _RATED | _COMPARED | _ASKED | set(ADDITIONS):
    if not recipe.ask:
      return 'which learns from the true reward'
    if section in ADDITIONS:
      return f'which does not include {section}'
    return f'which asks for {recipe.ask}'
  return f'whose agent is {recipe.agent}'
