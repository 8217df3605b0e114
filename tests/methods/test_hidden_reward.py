"""The reward is hidden: what learns cannot tell the true reward from noise."""

import chex
import jax
import pytest

from rlfb_jax import envs
from tests.methods.probe_runs import ScrambledReward, make_config, run


def _learned(state):
  parts = state.agent, state.feedback.reward_model, state.feedback.classes
  return jax.device_get(parts)


@pytest.mark.parametrize(
  ('method', 'kl'),
  [('rbrl', {}), ('rbrl_kl', {}), ('rbrl_kl', {'kl_mode': 'influence'})],
)
def test_scrambling_the_reward_for_everyone_but_the_teacher_changes_nothing(method, kl):
  config = make_config(method, kl=kl)
  results = []
  for scramble in (False, True):
    env = ScrambledReward(envs.make('probe_choice'), scramble)
    state, rows = run(config, env, teacher_reward=env.truth)
    results.append((_learned(state), rows[-1]['episode_return']))
  chex.assert_trees_all_equal(results[0][0], results[1][0])
  # The metrics may see it, and so the scramble is known to have worked.
  assert (results[0][1] != results[1][1]).any()


def test_the_true_reward_baseline_does_read_the_reward():
  config = make_config('ppo')
  states = []
  for scramble in (False, True):
    env = ScrambledReward(envs.make('probe_choice'), scramble)
    states.append(jax.device_get(run(config, env)[0].agent.params))
  with pytest.raises(AssertionError):
    chex.assert_trees_all_equal(*states)
