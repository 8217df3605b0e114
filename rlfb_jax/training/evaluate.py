"""Deterministic evaluation on the true reward, compiled and apart from training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import Environment, EnvState

Act = Callable[[Any, jax.Array], jax.Array]


def evaluate(
  env: Environment, act: Act, params: Any, key: Key, num_episodes: int
) -> jax.Array:
  """Returns of whole episodes, all run side by side; jit it, vmap it over seeds.

  Args:
    env: the task; its own true reward is summed.
    act: `(params, obs [N, ds]) -> action [N, da]`, without randomness.
    params: what `act` needs.
    key: randomness of the starts; one stream for each evaluation, apart from
      training's. Seeds given the same key are compared on the same starts.
    num_episodes: N.

  Returns:
    Undiscounted return of the first episode of each environment, [N] float32. An
    episode that terminates early counts to its end.
  """
  Carry = tuple[EnvState, jax.Array, jax.Array]

  def step(carry: Carry, _: None) -> tuple[Carry, None]:
    state, total, running = carry
    state = env.step(state, act(params, state.obs))
    total = total + jnp.where(running, state.env_reward, 0.0)
    running = running & ~(state.terminated | state.truncated)
    return (state, total, running), None

  start = (
    env.reset(key, num_episodes),
    jnp.zeros(num_episodes),
    jnp.ones(num_episodes, bool),
  )
  (_, total, _), _ = jax.lax.scan(step, start, None, length=env.episode_length)
  return total


def record(
  env: Environment, act: Act, params: Any, key: Key
) -> tuple[jax.Array, jax.Array]:
  """Poses of one episode, for a clip, and what it earned.

  Args:
    env: the task.
    act: as in `evaluate`.
    params: what `act` needs.
    key: randomness of the start.

  Returns:
    Poses [episode_length, np] from the start on, and true rewards
    [episode_length]; after an early end they show the episodes that followed.
  """

  def step(state: EnvState, _: None) -> tuple[EnvState, tuple[jax.Array, jax.Array]]:
    pose = env.pose(state)[0]
    state = env.step(state, act(params, state.obs))
    return state, (pose, state.env_reward[0])

  _, (poses, rewards) = jax.lax.scan(
    step, env.reset(key, 1), None, length=env.episode_length
  )
  return poses, rewards


def evaluate_seeds(
  env: Environment, act: Act, params: Any, key: Key, num_episodes: int
) -> jax.Array:
  """`evaluate` for policies that lead with a seed axis, all on the same starts.

  Args:
    env: the task.
    act: as in `evaluate`, for one seed.
    params: what `act` needs, leaves [S, ...].
    key: randomness of the starts.
    num_episodes: N.

  Returns:
    Returns [S, num_episodes].
  """

  def one(params: Any) -> jax.Array:
    return evaluate(env, act, params, key, num_episodes)

  return jax.vmap(one)(params)
