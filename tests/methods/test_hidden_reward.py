"""The reward is hidden: what learns cannot tell the true reward from noise."""

import chex
import jax
import pytest

from tests.methods.probe_runs import (
  ScrambledReward,
  make_config,
  run_shown_and_scrambled,
)


def _learned(state):
  parts = state.agent, state.feedback.reward_model, state.feedback.classes
  return jax.device_get(parts)


@pytest.mark.parametrize(
  ('method', 'kl'),
  [('rbrl_kl', {}), ('rbrl_kl', {'kl_mode': 'influence'})],
)
def test_scrambling_the_reward_for_everyone_but_the_teacher_changes_nothing(method, kl):
  config = make_config(method, kl=kl)
  shown, scrambled = run_shown_and_scrambled(
    config, teacher_reward=ScrambledReward.truth
  )
  chex.assert_trees_all_equal(_learned(shown[0]), _learned(scrambled[0]))
  # The metrics may see it, and so the scramble is known to have worked.
  assert (shown[1][-1]['episode_return'] != scrambled[1][-1]['episode_return']).any()


def test_the_true_reward_baseline_does_read_the_reward():
  shown, scrambled = (
    jax.device_get(state.agent.params)
    for state, _ in run_shown_and_scrambled(make_config('ppo'))
  )
  with pytest.raises(AssertionError):
    chex.assert_trees_all_equal(shown, scrambled)
