"""Deterministic evaluation on the true reward, compiled and apart from training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import Environment, EnvState

Act = Callable[[Any, jax.Array], jax.Array]

# `(state before the step, action, state after it) -> what is kept of the step`.
Look = Callable[[EnvState, jax.Array, EnvState], Any]


class Episodes(NamedTuple):
  """What whole episodes came to; those of seeds lead with [S].

  Attributes:
    returns: undiscounted sums of the true reward, [N] float32.
    success: whether the task was solved at any step, [N] bool; None where the task
      does not tell.
  """

  returns: Any
  success: Any = None


def play(
  env: Environment, act: Act, params: Any, key: Key, num_episodes: int, look: Look
) -> tuple[Episodes, Any]:
  """Whole episodes, all run side by side; jit it, vmap it over seeds.

  Args:
    env: the task; its own true reward is summed.
    act: `(params, obs [N, ds]) -> action [N, da]`, without randomness.
    params: what `act` needs.
    key: randomness of the starts; one stream for each evaluation, apart from
      training's. Seeds given the same key are compared on the same starts.
    num_episodes: N.
    look: what else is wanted of each step.

  Returns:
    The first episode of each environment; one that terminates early counts to its
    end. What `look` kept, leaves [episode_length, ...]; after an early end it is of
    the episodes that followed.
  """
  Carry = tuple[EnvState, Episodes, jax.Array]

  def step(carry: Carry, _: None) -> tuple[Carry, Any]:
    before, (total, succeeded), running = carry
    action = act(params, before.obs)
    after = env.step(before, action)
    total = total + jnp.where(running, after.env_reward, 0.0)
    if after.success is not None:
      succeeded = succeeded | (after.success & running)
    running = running & ~(after.terminated | after.truncated)
    return (after, Episodes(total, succeeded), running), look(before, action, after)

  state = env.reset(key, num_episodes)
  nothing = Episodes(
    returns=jnp.zeros(num_episodes),
    success=None if state.success is None else jnp.zeros(num_episodes, bool),
  )
  start = state, nothing, jnp.ones(num_episodes, bool)
  (_, episodes, _), seen = jax.lax.scan(step, start, None, length=env.episode_length)
  return episodes, seen


def evaluate(
  env: Environment, act: Act, params: Any, key: Key, num_episodes: int
) -> Episodes:
  """The episodes of `play`, of which nothing else is wanted."""

  def nothing(before: EnvState, action: jax.Array, after: EnvState) -> None:
    del before, action, after

  return play(env, act, params, key, num_episodes, nothing)[0]


def record(
  env: Environment, act: Act, params: Any, key: Key
) -> tuple[jax.Array, jax.Array]:
  """Poses of one episode, for a clip, and what it earned.

  Args:
    env: the task.
    act: as in `play`.
    params: what `act` needs.
    key: randomness of the start.

  Returns:
    Poses [episode_length, np] from the start on, and true rewards
    [episode_length]; after an early end they show the episodes that followed.
  """

  def look(
    before: EnvState, action: jax.Array, after: EnvState
  ) -> tuple[jax.Array, jax.Array]:
    del action
    return env.pose(before)[0], after.env_reward[0]

  seen: tuple[jax.Array, jax.Array] = play(env, act, params, key, 1, look)[1]
  return seen


def evaluate_seeds(
  env: Environment, act: Act, params: Any, key: Key, num_episodes: int
) -> Episodes:
  """`evaluate` for policies that lead with a seed axis, all on the same starts.

  Args:
    env: the task.
    act: as in `play`, for one seed.
    params: what `act` needs, leaves [S, ...].
    key: randomness of the starts.
    num_episodes: N.

  Returns:
    Leaves [S, num_episodes].
  """

  def one(params: Any) -> Episodes:
    return evaluate(env, act, params, key, num_episodes)

  episodes: Episodes = jax.vmap(one)(params)
  return episodes
