"""Options that are said to do nothing are indeed not looked at."""

import dataclasses

import pytest

from rlfb_jax import envs, methods
from rlfb_jax.methods.sections import is_read, sections_read
from tests.methods.probe_runs import make_config

RECIPES = (
  *('ppo', 'sac', 'ddpg', 'rbrl', 'rbrl_kl', 'pref_ppo', 'pebble', 'surf', 'rune'),
  *('mrn', 'rbrl@sac', 'rbrl_kl@ddpg', 'mrn+kl/both', 'mrn/ratings', 'pebble/both'),
)

# Looked at, and of no effect: fallbacks and sizes of what is not there.
WITHOUT_EFFECT = {
  ('feedback', 'label_budget'),
  ('feedback', 'labels_per_session'),
  ('pairs', 'label_budget'),
  ('pairs', 'labels_per_session'),
  ('ppo', 'rollout_steps'),
  ('pretrain', 'neighbours'),
  ('rating', 'num_classes'),
  ('surf', 'margin'),
}


class Unread:
  """In place of a section: tells what was looked at."""

  def __init__(self, section, recipe, options):
    self._facts = section, recipe, options

  def __getattr__(self, name):
    section, recipe, options = self._facts
    if (section, name) not in WITHOUT_EFFECT:
      assert is_read(recipe, section, name), f'{section}.{name} is read'
    return getattr(options, name)


@pytest.mark.parametrize('method', RECIPES)
def test_what_is_not_read_is_not_looked_at(method):
  config = make_config(method)
  recipe = config.recipe
  read = {name or 'run' for name in sections_read(recipe)}
  fields = {f.name for f in dataclasses.fields(config)}
  assert read < fields
  unread = {n: Unread(n, recipe, getattr(config, n)) for n in fields - read}
  config = dataclasses.replace(config, **unread)
  env = envs.make(config.run.task)
  methods.make(config, env)
  assert methods.memory_needed(config, env).total >= 0
