"""Each method by name: an agent, a kind of question, and what is added to them.

A name stands for a published composition; `--agent`, `--ask` and `--add` change one
ingredient at a time, and what makes no sense is refused here.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

AGENTS = ('ppo', 'sac', 'ddpg')
# What people are asked for.
RATINGS, PAIRS, BOTH = 'ratings', 'pairs', 'both'
QUESTIONS = (RATINGS, PAIRS, BOTH)
# What may be added; `resolve` says to what.
KL, SURF, RUNE, MRN = 'kl', 'surf', 'rune', 'mrn'
ADDITIONS = (KL, SURF, RUNE, MRN)


class Recipe(NamedTuple):
  """What a method is made of.

  Attributes:
    agent: one of `AGENTS`.
    ask: one of `QUESTIONS`, or '' where the true reward pays.
    add: of `ADDITIONS`.
  """

  agent: str
  ask: str = ''
  add: frozenset[str] = frozenset()

  @property
  def rates(self) -> bool:
    """Whether clips are rated."""
    return self.ask in (RATINGS, BOTH)

  @property
  def compares(self) -> bool:
    """Whether pairs are compared."""
    return self.ask in (PAIRS, BOTH)

  @property
  def replays(self) -> bool:
    """Whether the agent learns from a replay buffer."""
    return self.agent != 'ppo'


RECIPES: Mapping[str, Recipe] = MappingProxyType(
  {
    'ppo': Recipe('ppo'),
    'sac': Recipe('sac'),
    'ddpg': Recipe('ddpg'),
    'rbrl': Recipe('ppo', RATINGS),
    'rbrl_kl': Recipe('ppo', RATINGS, frozenset({KL})),
    'pref_ppo': Recipe('ppo', PAIRS),
    'pebble': Recipe('sac', PAIRS),
    'surf': Recipe('sac', PAIRS, frozenset({SURF})),
    'rune': Recipe('sac', PAIRS, frozenset({RUNE})),
    'mrn': Recipe('sac', PAIRS, frozenset({MRN})),
  }
)
METHODS = tuple(RECIPES)


def additions(text: str) -> frozenset[str]:
  """Reads `--add`.

  Raises:
    ValueError: for a name that is not known.
  """
  names = [name.strip() for name in text.split(',') if name.strip()]
  for name in names:
    if name not in ADDITIONS:
      raise ValueError(
        f'--add={text} names {name}, which is not one of {", ".join(ADDITIONS)};'
        ' several are joined by commas.'
      )
  return frozenset(names)


def resolve(method: str, agent: str, ask: str, add: str) -> Recipe:
  """The recipe of a method with its ingredients changed.

  Args:
    method: a name in `RECIPES`.
    agent: one of `AGENTS`, or '' for the method's own.
    ask: one of `QUESTIONS`, or '' for the method's own.
    add: names of `ADDITIONS` joined by commas, beside the method's own.

  Raises:
    ValueError: where a combination makes no sense, in one sentence that says why.
  """
  base = RECIPES[method]
  if not base.ask:
    for flag, value in (('agent', agent), ('ask', ask), ('add', add)):
      if value and (flag, value) != ('agent', base.agent):
        raise ValueError(
          f'--{flag}={value} does not go with --method={method}, which is'
          f' {base.agent} on the true reward and nothing else; take a method that asks'
          ' people, such as rbrl or pebble.'
        )
    return base
  recipe = Recipe(agent or base.agent, ask or base.ask, base.add | additions(add))
  if KL in recipe.add and not recipe.rates:
    raise ValueError(
      f'The KL repulsion pushes away from badly rated clips, and --method={method} asks'
      ' for pairs only, which name no bad class; add --ask=both or --ask=ratings.'
    )
  if SURF in recipe.add and not recipe.compares:
    raise ValueError(
      f'SURF gives pseudo-labels to pairs, and --method={method} with'
      f' --ask={recipe.ask} compares none; add --ask=both or --ask=pairs.'
    )
  if MRN in recipe.add and not recipe.replays:
    raise ValueError(
      'MRN trains the reward through an update of Q(s, a), and PPO learns a value of'
      ' states only; add --agent=sac or --agent=ddpg.'
    )
  return recipe
