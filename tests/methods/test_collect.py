"""Noise that is held; episodes that end one after the other, and which count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax import methods
from rlfb_jax.core import distributions
from rlfb_jax.envs.probe import PROBES, ProbeEnvironment
from rlfb_jax.methods.collect import (
  Experience,
  collect,
  init_clock,
  stagger,
  track_episodes,
  true_reward,
)
from rlfb_jax.training.loop import seed_keys
from tests.methods.probe_runs import make_config

LENGTH = 20
ENV = ProbeEnvironment(PROBES[0], episode_length=LENGTH)


def paid_one_a_step(state, num_steps):
  """The experience of a world that pays 1 for each step, and the state after it."""
  done = []
  for _ in range(num_steps):
    state = ENV.step(state, jnp.zeros((state.steps.shape[0], 1)))
    done.append(state.terminated | state.truncated)
  flags = jnp.stack(done)
  nothing = jnp.zeros((*flags.shape, 1))
  ones = jnp.ones(flags.shape)
  return state, Experience(
    obs=nothing,
    action=nothing,
    pose=nothing,
    final_obs=nothing,
    terminated=jnp.zeros_like(flags),
    truncated=flags,
    env_reward=ones,
    teacher_reward=ones,
    success=None,
  )


@pytest.mark.parametrize('num_envs', [1, 4, 7])
def test_starts_are_spread_over_the_length_of_an_episode(num_envs):
  state = stagger(ENV.reset(jax.random.key(0), num_envs), LENGTH)
  taken = np.asarray(state.steps)
  assert taken[0] == 0
  assert taken.max() < LENGTH
  gaps = np.diff([*np.sort(taken), LENGTH])
  assert gaps.max() - gaps.min() <= 1


def test_episodes_that_the_limit_cut_short_are_not_reported():
  state = stagger(ENV.reset(jax.random.key(0), 4), LENGTH)
  clock = init_clock(state)
  state, experience = paid_one_a_step(state, LENGTH)
  clock, metrics = track_episodes(clock, experience)
  # Only the first environment's was whole; three more ended on the way.
  assert experience.truncated.sum() == 4
  assert metrics['episodes'] == 1
  assert metrics['episode_return'] == LENGTH
  _, experience = paid_one_a_step(state, LENGTH)
  _, metrics = track_episodes(clock, experience)
  assert metrics['episodes'] == 4
  assert metrics['episode_return'] == LENGTH


def test_success_at_any_step_counts_and_tasks_without_it_report_none():
  state = ENV.reset(jax.random.key(0), 3)
  _, experience = paid_one_a_step(state, LENGTH)
  assert 'success_rate' not in track_episodes(init_clock(state), experience)[1]
  succeeded = jnp.zeros((LENGTH, 3), bool).at[5, 1].set(True)
  clock = init_clock(state).replace(success=jnp.zeros(3, bool))
  experience = experience.replace(success=succeeded)
  clock, metrics = track_episodes(clock, experience)
  assert float(metrics['success_rate']) == pytest.approx(1 / 3)
  assert not clock.success.any()


@pytest.mark.parametrize('staggered', [False, True])
def test_environments_of_a_run_start_apart_where_asked(staggered):
  config = make_config('ppo', ppo={'stagger_episodes': staggered})
  state = jax.vmap(methods.make(config, ENV).init)(seed_keys(0, 2))
  assert state.env.steps.shape == (2, 8)
  different = {len(set(steps.tolist())) for steps in np.asarray(state.env.steps)}
  assert different == {8 if staggered else 1}


def test_noise_is_held_for_as_many_steps_as_asked_for():
  def actor(obs, key):
    # The mean follows what is seen, the noise the key alone.
    mean, log_std = 3.0 * obs, jnp.full_like(obs, jnp.log(0.5))
    pre_tanh = distributions.sample(key, mean, log_std)
    return pre_tanh, distributions.log_prob(pre_tanh, mean, log_std)

  world = ProbeEnvironment(PROBES[3])
  start = world.reset(jax.random.key(0), 500)
  for steps in (1, 4):
    _, seen = collect(world, actor, start, jax.random.key(1), 10, true_reward, steps)
    noise = np.asarray((seen.pre_tanh - 3.0 * seen.obs) / 0.5)[..., 0]
    same = np.abs(np.diff(noise, axis=0)).max(axis=1) < 1e-5
    np.testing.assert_array_equal(same, [t % steps > 0 for t in range(1, 10)])
    # Each step by itself is the policy's, which is all that PPO's ratios ask.
    assert np.all(np.abs(noise.mean(axis=1)) < 4 / np.sqrt(500))
    assert np.all(np.abs(noise.std(axis=1) - 1) < 4 / np.sqrt(1000))
    density = -0.5 * noise**2 - np.log(0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(seen.log_prob, density, rtol=1e-4, atol=1e-5)
