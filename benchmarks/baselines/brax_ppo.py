"""brax's PPO, its own trainer, on our walker in MJX with the fast solver settings.

The physics is easier than the benchmark's: `solver='fast'` stops the constraint
solver after few iterations. brax's trainer is used as it is, with one stand-in:
brax 0.14.2 calls `jax.device_put_replicated`, which jax 0.10 no longer has.

A gradient step sees 128 transitions, as ours, in 32 pieces of 4 steps: brax computes
advantages anew in every gradient step, along such pieces.

  python benchmarks/baselines/brax_ppo.py --task=walker_walk
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import turns
from brax import envs as brax_envs
from brax.envs.wrappers import training
from brax.training.agents.ppo import networks
from brax.training.agents.ppo import train as ppo

from rlfb_jax import envs

_UNROLL = 4  # Steps of a piece of trajectory.
_ENDLESS = 10**6  # Iterations; the benchmark ends the process before.


class SuiteEnvironment(brax_envs.Env):
  """A batch of simulations of a task of ours on MJX, as brax wants it."""

  def __init__(self, task: str):
    """Builds the task with the fast solver settings."""
    self._env: Any = envs.make(task, engine='mjx', solver='fast')

  def reset(self, rng: jax.Array) -> brax_envs.State:
    """Starts of episodes, one for each key [N, 2]."""
    start = self._env.reset(rng[0], rng.shape[0])
    zeros = jnp.zeros(rng.shape[0])
    return brax_envs.State(start.physics, start.obs, zeros, zeros)

  def step(self, state: brax_envs.State, action: jax.Array) -> brax_envs.State:
    """One control step with actions [N, da]; brax's wrappers end the episode."""
    env = self._env
    ctrl = env.to_ctrl(action)
    physics = env.physics.step(state.pipeline_state, ctrl, env.task.substeps)
    return state.replace(
      pipeline_state=physics,
      obs=env.task.observe(env.model, physics),
      reward=env.task.reward(env.model, physics, ctrl),
    )

  @property
  def observation_size(self) -> int:
    """As ours."""
    return self._env.observation_size

  @property
  def action_size(self) -> int:
    """As ours."""
    return self._env.action_size

  @property
  def backend(self) -> str:
    """What brax calls MJX."""
    return 'mjx'


def wrap(
  env: brax_envs.Env, episode_length: int, action_repeat: int, **_: Any
) -> brax_envs.Env:
  """brax's usual wrappers, but for the one that makes batches: ours are ones."""
  episodes = training.EpisodeWrapper(env, episode_length, action_repeat)
  return training.AutoResetWrapper(episodes)


def main() -> None:
  options = turns.parse("One iteration of brax's PPO for each line read.")
  stood_in = not hasattr(jax, 'device_put_replicated')
  if stood_in:
    jax.device_put_replicated = lambda tree, devices: jax.tree.map(
      lambda x: jnp.stack([x] * len(devices)), tree
    )
  iteration = options.num_envs * options.rollout_steps
  facts = {
    'env_steps': iteration,
    'versions': turns.versions('brax', 'jax', 'jaxlib', 'mujoco-mjx'),
    'device_put_replicated': 'stood in for' if stood_in else 'present',
  }
  # Two at least: the first compiles, and the second may see other layouts.
  turn = turns.Turns(max(options.warmups, 2), facts)
  layers = (options.hidden_size,) * options.hidden_layers
  ppo.train(
    SuiteEnvironment(options.task),
    num_timesteps=_ENDLESS * iteration,
    num_evals=_ENDLESS + 1,
    run_evals=False,
    wrap_env_fn=wrap,
    num_eval_envs=1,
    progress_fn=lambda steps, metrics: turn.end_iteration(),
    num_envs=options.num_envs,
    episode_length=1000,
    unroll_length=_UNROLL,
    batch_size=options.minibatch_size // _UNROLL,
    num_minibatches=iteration // options.minibatch_size,
    num_updates_per_batch=options.num_epochs,
    learning_rate=turns.LEARNING_RATE,
    discounting=turns.DISCOUNT,
    gae_lambda=turns.GAE_LAMBDA,
    clipping_epsilon=turns.CLIP_RANGE,
    max_grad_norm=turns.MAX_GRAD_NORM,
    vf_loss_coefficient=turns.VALUE_COEFFICIENT,
    entropy_cost=0.0,
    normalize_observations=True,
    network_factory=functools.partial(
      networks.make_ppo_networks,
      policy_hidden_layer_sizes=layers,
      value_hidden_layer_sizes=layers,
      activation=jnp.tanh,
    ),
  )


if __name__ == '__main__':
  main()
