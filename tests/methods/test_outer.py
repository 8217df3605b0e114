"""MRN's outer step and what else is told by the reward that it changes."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax import envs
from rlfb_jax.methods.make import _feedback, _repulsion, make_agent
from rlfb_jax.methods.outer import make_outer_step
from rlfb_jax.reward.meta_options import MetaOptions
from tests.methods.probe_runs import make_config


def test_a_new_reward_moves_the_boundaries_that_are_told_by_it():
  config, env = make_config('mrn+kl/both'), envs.make('probe_choice')
  policy = make_agent(config, env).policy
  feedback = _feedback(config, env, _repulsion(config, env, policy))
  state = feedback.init(jax.random.key(0))
  ratings = state.answers.ratings
  capacity, steps = ratings.clip.obs.shape[:2]
  level = jnp.linspace(-1.0, 1.0, capacity)[:, None, None] * jnp.ones((1, steps, 1))
  ratings = ratings.replace(
    clip=ratings.clip.replace(obs=level, action=level),
    rating=jnp.arange(capacity) * 3 // capacity,
    count=jnp.int32(capacity),
  )
  state = state.replace(answers=state.answers._replace(ratings=ratings))
  scaled = state.reward_model.replace(scale=0.5 * state.reward_model.scale)
  before = feedback.with_reward_model(state, state.reward_model)
  assert float(jnp.ptp(before.boundaries)) > 0
  meta = SimpleNamespace(step=lambda *_: ('outer', scaled, {}))
  agent = SimpleNamespace(critic_params=lambda _: None)
  outer = make_outer_step(MetaOptions(), meta, agent, feedback, None)
  batch = SimpleNamespace(obs=None, action=None)
  after, _ = outer.step(before, None, batch, None, jax.random.key(1))
  assert after.outer == 'outer'
  # Twice the reward, and classes part at twice of it.
  np.testing.assert_allclose(after.boundaries, 2 * before.boundaries, rtol=1e-3)
