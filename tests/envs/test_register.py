"""Environments of others by name."""

import pytest

from rlfb_jax import envs
from rlfb_jax.envs.probe import PROBES, ProbeEnvironment


def world(name):
  env = ProbeEnvironment(PROBES[0])
  env.name = name
  return env


def test_what_is_registered_is_made_anew_each_time():
  envs.register('mine', lambda: world('mine'))
  first, second = envs.make('mine'), envs.make('mine')
  assert first.name == second.name == 'mine'
  assert first is not second
  with pytest.raises(ValueError, match='cannot be given to mine'):
    envs.make('mine', episode_length=5)
  with pytest.raises(ValueError, match='task=mina is unknown; did you mean mine'):
    envs.make('mina')


@pytest.mark.parametrize('name', ['walker_walk', 'probe_choice'])
def test_names_of_the_package_are_taken(name):
  with pytest.raises(ValueError, match=f'{name} is a task of rlfb_jax'):
    envs.register(name, lambda: world(name))


def test_an_environment_of_another_name_is_refused():
  envs.register('ours', lambda: world('yours'))
  with pytest.raises(ValueError, match='registered as ours has name=yours'):
    envs.make('ours')
