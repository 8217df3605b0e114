"""Options that are said to do nothing are indeed not looked at."""

import dataclasses
import re

import jax
import pytest

from rlfb_jax import envs, methods
from rlfb_jax.methods.sections import _CONDITIONS, is_read, sections_read
from tests.methods.probe_runs import make_config, session_of

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


def programs(config):
  """Every program of a run, as JAX writes them down: options are read there, too."""
  env = envs.make(config.run.task)
  algorithm = methods.make(config, env)
  state = jax.eval_shape(algorithm.init, jax.random.key(0))
  steps = {**algorithm.chunks, **algorithm.events}
  if algorithm.diagnose is not None:
    steps['diagnose'] = algorithm.diagnose
  times = range(0, config.total_env_steps, algorithm.steps_per_chunk)
  requests = [r for r in map(algorithm.request, times) if r is not None]
  if requests:
    # The last: the first always asks at random.
    steps['session'] = session_of(algorithm, requests[-1])
  written = {name: str(jax.make_jaxpr(f)(state)) for name, f in steps.items()}
  # Functions are written down by where they lie.
  return {name: re.sub(r' at 0x\w+', '', text) for name, text in written.items()}


@pytest.mark.parametrize('method', RECIPES)
def test_sections_that_are_not_read_are_not_looked_at(method):
  config = make_config(method)
  recipe = config.recipe
  read = {name or 'run' for name in sections_read(recipe)}
  fields = {f.name for f in dataclasses.fields(config)}
  assert read < fields
  unread = {n: Unread(n, recipe, getattr(config, n)) for n in fields - read}
  config = dataclasses.replace(config, **unread)
  assert programs(config)
  env = envs.make(config.run.task)
  assert methods.memory_needed(config, env).total >= 0


@pytest.mark.parametrize(
  ('method', 'changes'),
  [
    ('rbrl', {'run': {'updates_per_step': 0.25}, 'reward': {'pair_weight': 3.0}}),
    (
      'pebble',
      {
        'pretrain': {'num_epochs': 7},
        'reward': {
          'rating_weight': 3.0,
          'loss': 'mae',
          'class_weights': True,
          'stratified': True,
          'min_ragged': 1,
          'boundaries': 'order_stat',
          'sharpness': 7.0,
          'sharpness_mode': 'n2',
        },
      },
    ),
    ('surf', {'reward': {'max_passes': 7}}),
    ('pref_ppo', {'pairs': {'archive_episodes': 7}}),
  ],
)
def test_options_that_are_not_read_change_no_program(method, changes):
  plain, changed = make_config(method), make_config(method, **changes)
  for part, values in changes.items():
    for field in values:
      assert getattr(getattr(plain, part), field) != values[field], field
      section = '' if part == 'run' else part
      assert not is_read(plain.recipe, section, field), field
  assert programs(plain) == programs(changed)


def test_options_that_are_read_change_a_program():
  plain = programs(make_config('rbrl'))
  assert programs(make_config('rbrl')) == plain
  for reward in ({'sharpness': 7.0}, {'max_passes': 7}):
    assert programs(make_config('rbrl', reward=reward)) != plain


def test_the_options_above_are_all_that_are_read_by_some_alone():
  assert {field for _, field in _CONDITIONS} == {
    *('updates_per_step', 'pair_weight', 'num_epochs', 'rating_weight', 'loss'),
    *('class_weights', 'stratified', 'min_ragged', 'boundaries', 'sharpness'),
    *('sharpness_mode', 'max_passes', 'archive_episodes'),
    # After the one pass that SURF makes: in its program, without effect.
    'stop_accuracy',
  }
