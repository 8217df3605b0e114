"""The on-policy loop: chunks of several updates, and who is paid what before labels."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax import envs, methods
from rlfb_jax.feedback import archive as archives
from rlfb_jax.methods import plan
from rlfb_jax.methods.on_policy import make_on_policy, reduce_metrics
from rlfb_jax.methods.parts import Exploration, Intervention
from rlfb_jax.reward.model import make_reward_model
from tests.methods.probe_runs import make_config, session_of

ENV = envs.make('probe_choice')  # Episodes of 10 steps.


def test_figures_of_episodes_are_weighted_by_how_many_ended():
  nan = jnp.nan
  metrics = {
    'episodes': jnp.array([0, 1, 3]),
    'episode_return': jnp.array([nan, 10.0, 20.0]),
    'success_rate': jnp.array([nan, 1.0, 0.0]),
    'learned_return': jnp.array([nan, nan, 4.0]),
    'agent_reward': jnp.array([1.0, 2.0, 6.0]),
    'non_finite_updates': jnp.array([0.0, 2.0, 5.0]),
  }
  assert {name: float(x) for name, x in reduce_metrics(metrics).items()} == {
    'episodes': 4,
    'episode_return': 17.5,
    'success_rate': 0.25,
    'learned_return': 4.0,
    'agent_reward': 3.0,
    'non_finite_updates': 5.0,
  }
  none = {**metrics, 'episodes': jnp.zeros(3), 'episode_return': jnp.full(3, nan)}
  assert np.isnan(reduce_metrics(none)['episode_return'])


def test_a_chunk_of_two_updates_is_two_chunks_of_one(monkeypatch):
  """Where rollouts are shorter than episodes, a chunk is as long as an episode."""
  config = make_config('rbrl', ppo={'rollout_steps': 5})
  long = methods.make(config, ENV)
  monkeypatch.setattr(plan, 'iterations_per_chunk', lambda config, env: 1)
  short = methods.make(config, ENV)
  # Before anybody has been asked the first sign of life should come early.
  assert [long.steps_of(phase) for phase in ('explore', 'learn')] == [40, 80]
  assert [short.steps_of(phase) for phase in ('explore', 'learn')] == [40, 40]
  start = jax.jit(long.init)(jax.random.key(0))
  whole, metrics = jax.jit(long.chunks['learn'])(start)
  halves, rows, chunk = start, [], jax.jit(short.chunks['learn'])
  for _ in range(2):
    halves, row = chunk(halves)
    rows.append(row)
  assert int(whole.env_steps) == int(halves.env_steps) == 80
  chex.assert_trees_all_close(whole.agent.params, halves.agent.params, atol=1e-5)
  # All eight episodes end in the second half.
  assert [int(row['episodes']) for row in rows] == [0, 8]
  assert int(metrics['episodes']) == 8
  np.testing.assert_allclose(
    metrics['episode_return'], rows[1]['episode_return'], rtol=1e-5
  )
  mean = np.mean([row['agent_reward'] for row in rows])
  np.testing.assert_allclose(metrics['agent_reward'], mean, rtol=1e-4, atol=1e-5)


def test_pre_training_is_paid_for_novelty_with_epochs_of_its_own_and_without_a_push():
  options = make_config('ppo').ppo
  exploration = Exploration(
    init=lambda: jnp.zeros(()),
    reward=lambda seen, obs: (seen + 1.0, jnp.full(obs.shape[:2], 7.0)),
    env_steps=options.steps_per_iteration,
    num_epochs=options.num_epochs + 1,
  )
  push = Intervention(
    shape_rewards=lambda feedback, experience: 1.0 + experience.env_reward,
    shape_advantages=None,
    regulariser=None,
    look=lambda feedback, experience: feedback,
    diagnose=None,
  )
  algorithm = make_on_policy(
    ENV, options, 1280, 1, exploration=exploration, intervention=push
  )
  assert [algorithm.phase(t) for t in (0, 159, 160)] == ['explore', 'explore', 'learn']
  start = jax.jit(algorithm.init)(jax.random.key(0))
  explored, metrics = jax.jit(algorithm.chunks['explore'])(start)
  assert float(metrics['agent_reward']) == 7.0
  assert float(explored.exploration) == 1.0
  minibatches = options.minibatches_per_epoch
  steps = (options.num_epochs + 1) * minibatches
  assert int(explored.agent.optimizer.count) == steps
  learned, metrics = jax.jit(algorithm.chunks['learn'])(explored)
  # The push is on top of what is paid: both are the true reward here.
  expected = 1.0 + 2.0 * float(metrics['episode_return']) / ENV.episode_length
  np.testing.assert_allclose(metrics['agent_reward'], expected, rtol=1e-5)
  assert int(learned.agent.optimizer.count) == steps + options.num_epochs * minibatches


def test_curiosity_pays_for_a_rollout_by_the_steps_since_training_began():
  config = make_config('pref_ppo+rune', rune={'bonus': 0.5, 'decay': 1e-2})
  algorithm = methods.make(config, ENV)
  state = jax.jit(algorithm.init)(jax.random.key(0))
  state, _ = jax.jit(algorithm.chunks['explore'])(state)
  state, _ = jax.jit(session_of(algorithm, algorithm.request(160)))(state)
  learn = jax.jit(algorithm.chunks['learn'])
  model = make_reward_model(config.reward, ENV.observation_size, ENV.action_size)
  for env_steps in (320, 480):
    state, metrics = learn(state)
    steps = archives.latest(state.feedback.archive, config.ppo.rollout_steps)
    said = model.r_hat_members(state.feedback.reward_model, steps.obs, steps.action)
    said = np.asarray(said, np.float64)
    bonus = 0.5 * (1 - 1e-2) ** env_steps * said.std(axis=0).mean()
    assert bonus > 2e-5
    np.testing.assert_allclose(
      metrics['agent_reward'], said.mean() + bonus, rtol=0, atol=1e-6
    )
