"""Names of methods, and what may be put together."""

import pytest

from rlfb_jax.methods.recipes import RECIPES, resolve


def test_published_methods_are_what_their_papers_say():
  assert RECIPES['pebble'] == ('sac', 'pairs', frozenset())
  assert RECIPES['mrn'].add == {'mrn'}
  assert RECIPES['rbrl_kl'] == ('ppo', 'ratings', frozenset({'kl'}))
  assert not RECIPES['sac'].ask


@pytest.mark.parametrize('method', sorted(RECIPES))
def test_a_method_alone_is_its_recipe(method):
  assert resolve(method, '', '', '') == RECIPES[method]


@pytest.mark.parametrize(
  ('args', 'expected'),
  [
    (('rbrl', 'sac', '', ''), ('sac', 'ratings', frozenset())),
    (('rbrl_kl', 'ddpg', '', ''), ('ddpg', 'ratings', frozenset({'kl'}))),
    (('pebble', 'ddpg', '', ''), ('ddpg', 'pairs', frozenset())),
    (('mrn', '', 'both', 'kl'), ('sac', 'both', frozenset({'mrn', 'kl'}))),
    (('mrn', '', 'ratings', ''), ('sac', 'ratings', frozenset({'mrn'}))),
    (('pebble', '', '', 'surf, rune'), ('sac', 'pairs', frozenset({'surf', 'rune'}))),
    (('pref_ppo', '', '', 'rune'), ('ppo', 'pairs', frozenset({'rune'}))),
    (('sac', 'sac', '', ''), ('sac', '', frozenset())),
  ],
)
def test_ingredients_can_be_changed(args, expected):
  assert resolve(*args) == expected


@pytest.mark.parametrize(
  ('args', 'why'),
  [
    (('ppo', 'sac', '', ''), 'true reward and nothing else'),
    (('sac', '', 'pairs', ''), 'true reward and nothing else'),
    (('sac', '', '', 'sac'), 'true reward and nothing else'),
    (('pebble', '', '', 'kl'), 'name no bad class'),
    (('rbrl', '', '', 'surf'), 'compares none'),
    (('mrn', 'ppo', '', ''), r'value of\s+states only'),
    (('pref_ppo', '', '', 'mrn'), r'--agent=sac'),
    (('pebble', '', '', 'surff'), 'not one of kl, surf, rune, mrn'),
  ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(args, why):
  with pytest.raises(ValueError, match=why) as error:
    resolve(*args)
  assert '\n' not in str(error.value)
