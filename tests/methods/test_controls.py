"""The control arms of RbRL-KL do what their names say."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from rlfb_jax.bin import launch
from tests.methods.probe_runs import SMALL, make_config, run


def _agent(config):
  state, rows = run(config, num_seeds=1)
  return jax.device_get((state.agent.params, state.feedback.reward_model)), rows


def _config(method, **kl):
  """Without pre-training: one program less to compile in each arm."""
  return make_config(
    method, kl=kl, run={'total_env_steps': 960}, feedback={'pretrain_steps': 0}
  )


@pytest.fixture(scope='module')
def rbrl():
  return _agent(_config('rbrl'))


def _public_code():
  """The only public RbRL-KL code, whose divergence has no gradient."""
  published = launch.parse(['--preset=hpml_code']).kl
  return dataclasses.asdict(published) | SMALL['kl']


@pytest.mark.parametrize(
  'kl', [_public_code(), {'beta': 0.0}], ids=['hpml_code', 'beta=0']
)
def test_a_repulsion_without_gradient_trains_to_the_same_bits_as_rbrl(rbrl, kl):
  logged, rows = _agent(_config('rbrl_kl', **kl))
  chex.assert_trees_all_equal(rbrl[0], logged)
  assert (rows[-1]['kl/segments'].sum(-1) > 0).all()


@pytest.mark.parametrize(
  'kl',
  [
    {},
    {'kl_mode': 'ratio'},
    {'kl_mode': 'heads_unlikelihood', 'shuffled_labels': True},
    {'kl_mode': 'influence'},
    {'below_median': True},
  ],
  ids=lambda kl: '-'.join(map(str, kl.values())) or 'pathwise',
)
def test_every_real_repulsion_moves_the_policy_and_stays_finite(rbrl, kl):
  pushed, rows = _agent(_config('rbrl_kl', **kl))
  chex.assert_tree_all_finite(pushed)
  before = rbrl[0][0].actor.mlp[0].kernel
  # Two programs differ by rounding, a push by more.
  assert np.abs(pushed[0].actor.mlp[0].kernel - before).max() > 1e-4
  # What is labelled may differ later on, but the first reward fit comes before any
  # repulsion and must be the same.
  chex.assert_trees_all_equal(rbrl[1][1]['reward_loss'], rows[1]['reward_loss'])
