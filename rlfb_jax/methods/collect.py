"""Collection: the policy acts, the environment answers, nothing is learned."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.envs.base import Environment, EnvState

# `(obs [N, ds], key) -> (pre-squash action [N, da], log-density [N])`.
Actor = Callable[[jax.Array, Key], tuple[jax.Array, jax.Array]]


class Experience(flax.struct.PyTreeNode):
  """Steps in time order: leaves [T, N, ...].

  Attributes:
    obs: raw observation acted on, [T, N, ds].
    action: what the environment was given, [T, N, da] in [-1, 1].
    pose: what shows the step again, [T, N, np].
    final_obs: raw observation that followed, before auto-reset, [T, N, ds].
    terminated: [T, N] bool.
    truncated: [T, N] bool.
    env_reward: the true reward, [T, N]; for metrics and true-reward baselines.
    teacher_reward: what the scripted teacher judges by, [T, N].
    success: the task's success flag, [T, N] bool, or None; for metrics.
    pre_tanh: action before the squash, [T, N, da]; None where nobody reads it.
    log_prob: its log-density, [T, N]; None where nobody reads it.
  """

  obs: jax.Array
  action: jax.Array
  pose: jax.Array
  final_obs: jax.Array
  terminated: jax.Array
  truncated: jax.Array
  env_reward: jax.Array
  teacher_reward: jax.Array
  success: jax.Array | None
  pre_tanh: jax.Array | None = None
  log_prob: jax.Array | None = None


class EpisodeClock(flax.struct.PyTreeNode):
  """Returns of training episodes, for the metrics alone.

  Attributes:
    running: true return of the current episodes so far, [N].
    success: whether the current episodes have succeeded at any step, [N] bool; None
      where the task does not tell.
    learned: what the learned reward has paid for them so far, [N].
    paid: whether it has paid for every step of them, [N] bool.
    whole: whether they are of full length: False for first episodes that the time
      limit ends early, see `stagger`, [N] bool.
  """

  running: jax.Array
  success: jax.Array | None
  learned: jax.Array
  paid: jax.Array
  whole: jax.Array


def true_reward(state: EnvState) -> jax.Array:
  """What the scripted teacher judges by unless told otherwise."""
  return state.env_reward


def correlation(x: jax.Array, y: jax.Array) -> jax.Array:
  """Pearson's correlation over all entries, 0 where one of them is constant, []."""
  x, y = x - jnp.mean(x), y - jnp.mean(y)
  scale = jnp.sqrt(jnp.mean(jnp.square(x)) * jnp.mean(jnp.square(y)))
  return jnp.where(scale > 0, jnp.mean(x * y) / jnp.maximum(scale, 1e-12), 0.0)


def init_clock(state: EnvState) -> EpisodeClock:
  """Clocks of the episodes that `state` is about to go on with."""
  num_envs = state.steps.shape[0]
  return EpisodeClock(
    running=jnp.zeros(num_envs),
    success=None if state.success is None else jnp.zeros(num_envs, bool),
    learned=jnp.zeros(num_envs),
    paid=jnp.ones(num_envs, bool),
    whole=state.steps == 0,
  )


def stagger(state: EnvState, episode_length: int) -> EnvState:
  """Spreads the time limits of first episodes evenly over an episode's length.

  Environments that start together end together for ever, so that a rollout shorter
  than an episode shows either starts or none. `legged_gym` draws the first limits at
  random for the same reason (`init_at_random_ep_len` of rsl_rl's runner).

  Args:
    state: fresh episodes, leaves [N, ...].
    episode_length: control steps.
  """
  num_envs = state.steps.shape[0]
  # The first environment keeps its whole length.
  taken = jnp.arange(num_envs, dtype=jnp.int32) * episode_length // num_envs
  return state.replace(steps=taken)


def experience_of(
  env: Environment,
  before: EnvState,
  action: jax.Array,
  after: EnvState,
  teacher_reward: Callable[[EnvState], jax.Array],
) -> Experience:
  """One step, leaves [N, ...].

  Args:
    env: the world.
    before: what was acted on.
    action: what the environment was given.
    after: what it answered.
    teacher_reward: see `collect`.
  """
  return Experience(
    obs=before.obs,
    action=action,
    pose=env.pose(before),
    final_obs=after.final_obs,
    terminated=after.terminated,
    truncated=after.truncated,
    env_reward=after.env_reward,
    teacher_reward=teacher_reward(after),
    success=after.success,
  )


def collect(
  env: Environment,
  actor: Actor,
  env_state: EnvState,
  key: Key,
  num_steps: int,
  teacher_reward: Callable[[EnvState], jax.Array],
  noise_steps: int = 1,
) -> tuple[EnvState, Experience]:
  """Runs the policy for `num_steps` control steps in every environment.

  Args:
    env: the world.
    actor: draws its noise from the key alone, so that steps of one key share it.
    env_state: where to go on, leaves [N, ...].
    key: randomness, consumed.
    num_steps: T.
    teacher_reward: what the scripted teacher judges by, `EnvState -> [N]`.
    noise_steps: control steps in a row that share a key. Noise that is held pushes
      joints further than noise that averages out.

  Returns:
    The environments after the last step and what happened, leaves [T, N, ...].
  """

  def step(state: EnvState, step_key: Key) -> tuple[EnvState, Experience]:
    pre_tanh, log_prob = actor(state.obs, step_key)
    action = jnp.tanh(pre_tanh)
    after = env.step(state, action)
    seen = experience_of(env, state, action, after, teacher_reward)
    return after, seen.replace(pre_tanh=pre_tanh, log_prob=log_prob)

  draws = -(-num_steps // noise_steps)
  keys = jnp.repeat(jax.random.split(key, draws), noise_steps)[:num_steps]
  return jax.lax.scan(step, env_state, keys)


def track_episodes(
  clock: EpisodeClock, experience: Experience, learned: jax.Array | None = None
) -> tuple[EpisodeClock, Metrics]:
  """Adds up the returns of episodes.

  Args:
    clock: of the episodes under way.
    experience: what happened next.
    learned: what the learned reward paid for it, [T, N]; None where the agent was
      paid otherwise.

  Returns:
    The clock and the mean true return of the whole episodes that ended, NaN where none
    did, with how many they were, each []. Where the task tells success, also
    `success_rate`: the share of them that had it. Where the learned reward pays, also
    `learned_return`: the mean of its sums over the same episodes, without those that
    it paid only in part.
  """
  done = experience.terminated | experience.truncated
  gain = jnp.zeros_like(experience.env_reward) if learned is None else learned

  def step(
    clock: EpisodeClock, inputs: tuple[Any, ...]
  ) -> tuple[EpisodeClock, EpisodeClock]:
    reward, gain, done, success = inputs
    ended = EpisodeClock(
      running=clock.running + reward,
      success=None if success is None else clock.success | success,
      learned=clock.learned + gain,
      paid=clock.paid & (learned is not None),
      whole=clock.whole,
    )
    clock = EpisodeClock(
      running=jnp.where(done, 0.0, ended.running),
      success=None if success is None else ended.success & ~done,
      learned=jnp.where(done, 0.0, ended.learned),
      paid=ended.paid | done,
      whole=ended.whole | done,
    )
    return clock, ended

  clock, ended = jax.lax.scan(
    step, clock, (experience.env_reward, gain, done, experience.success)
  )

  def mean(values: jax.Array, chosen: jax.Array) -> jax.Array:
    count = jnp.sum(chosen)
    total = jnp.sum(jnp.where(chosen, values, 0.0))
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)

  done &= ended.whole
  metrics = {
    'episode_return': mean(ended.running, done),
    'episodes': jnp.sum(done).astype(jnp.float32),
  }
  if ended.success is not None:
    metrics['success_rate'] = mean(ended.success.astype(jnp.float32), done)
  if learned is not None:
    metrics['learned_return'] = mean(ended.learned, done & ended.paid)
  return clock, metrics
