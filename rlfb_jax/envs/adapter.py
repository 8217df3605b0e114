"""Bring your own environment: anything with brax's functional interface."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp

from rlfb_jax.core.batching import select_rows, update_rows_if_any
from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import EnvState, first_state

Tree = TypeVar('Tree')


class FunctionalEnvironment(Protocol):
  """One simulation as pure functions, such as `brax.envs.Env`.

  A state is a pytree with at least `obs` [ds], `reward` [] and `done` []; where its
  `info` holds `truncation`, that tells a time limit from a true end, and where its
  `metrics` hold `success`, that is kept.
  """

  action_size: int

  def reset(self, rng: Key) -> Any:
    """The state at the start of an episode."""
    ...

  def step(self, state: Any, action: jax.Array) -> Any:
    """The state after an action [da] in [-1, 1]."""
    ...


class AdaptedEnvironment:
  """`Environment` of a `FunctionalEnvironment`: batched, with fresh auto-resets.

  Unlike brax's own wrappers, every reset draws a new start, and the observation
  before it is kept, so that values bootstrap at a time limit. `EnvState.physics` is
  the batch of wrapped states. `envs.register` makes it known to `--task`.

  Attributes:
    name: as given.
    observation_size: ds, found by tracing a reset.
    action_size: da of the wrapped environment.
    pose_size: np.
    episode_length: control steps.
    max_segment_return: as given.
    wrapped: the environment inside.
  """

  def __init__(
    self,
    env: FunctionalEnvironment,
    name: str,
    episode_length: int = 1000,
    max_segment_return: float = 50.0,
    pose: Callable[[Any], jax.Array] | None = None,
  ):
    """Wraps an environment that neither batches nor resets itself.

    Args:
      env: the environment, without brax's training wrappers.
      name: shown in messages and files.
      episode_length: time limit in control steps.
      max_segment_return: return of a 50-step segment that fills the rating scale.
      pose: `(wrapped states) -> [N, np]`, what shows a state again; None takes the
        observation.

    Raises:
      ValueError: if `episode_length` is not positive, or the observation is not one
        vector.
    """
    if episode_length < 1:
      raise ValueError(f'episode_length={episode_length} must be at least 1; try 1000.')
    self.wrapped = env
    self.name = name
    self.action_size = int(env.action_size)
    self.episode_length = episode_length
    self.max_segment_return = max_segment_return
    self._pose = pose or (lambda physics: physics.obs)
    start = jax.eval_shape(env.reset, jax.random.key(0))
    if not hasattr(start.obs, 'ndim') or start.obs.ndim != 1:
      raise ValueError(
        f'{name} observes {jax.tree.map(lambda x: x.shape, start.obs)} but only one'
        ' vector can be adapted; flatten the observation first.'
      )
    self.observation_size = int(start.obs.shape[0])
    batch = jax.eval_shape(lambda key: self._start(key, 1), jax.random.key(0))
    self.pose_size = int(jax.eval_shape(self._pose, batch).shape[-1])

  def reset(self, key: Key, num_envs: int) -> EnvState:
    """Fresh episodes in `num_envs` environments."""
    key, start_key = jax.random.split(key)
    return self.reset_to(key, self._start(start_key, num_envs))

  def reset_to(self, key: Key, physics: Any) -> EnvState:
    """Episodes that start from given wrapped states, leaves [N, ...]."""
    obs = _as_float(physics.obs)
    has_success = _read(physics, 'metrics', 'success') is not None
    return first_state(key, physics, obs, has_success)

  def step(self, state: EnvState, action: jax.Array) -> EnvState:
    """One control step, then a fresh reset of the episodes that it ended.

    A simulation that diverges is contained as in `MujocoEnvironment.step`.

    Args:
      state: where to start.
      action: [N, da], clipped to [-1, 1]; 0 is taken for NaN.

    Raises:
      ValueError: at trace time, if the wrapped `step` returns other fields than its
        `reset`.
    """
    action = jnp.clip(jnp.nan_to_num(action, nan=0.0), -1.0, 1.0)
    physics = jax.vmap(self.wrapped.step)(state.physics, action)
    physics = _like(physics, state.physics)
    reward, obs = _as_float(physics.reward), _as_float(physics.obs)

    diverged = ~(jnp.isfinite(obs).all(axis=-1) & jnp.isfinite(reward))
    obs = select_rows(diverged, state.obs, obs)
    done = physics.done.astype(bool)
    cut = _read(physics, 'info', 'truncation')
    cut = jnp.zeros_like(done) if cut is None else cut
    steps = state.steps + 1
    terminated = done & ~cut & ~diverged
    timed_out = (done & cut) | (steps >= self.episode_length)
    truncated = ~terminated & (timed_out | diverged)
    ended = terminated | truncated
    success = _read(physics, 'metrics', 'success')

    key, start_key = jax.random.split(state.key)
    num_envs = obs.shape[0]
    physics = update_rows_if_any(
      lambda key: self._start(key, num_envs), ended, start_key, physics
    )
    return EnvState(
      physics=physics,
      obs=select_rows(ended, _as_float(physics.obs), obs),
      env_reward=jnp.where(diverged, 0.0, reward),
      terminated=terminated,
      truncated=truncated,
      final_obs=obs,
      success=None if success is None else success & ~diverged,
      steps=jnp.where(ended, 0, steps),
      key=key,
    )

  def pose(self, state: EnvState) -> jax.Array:
    """What shows a state again, [N, np] float32."""
    return _as_float(self._pose(state.physics))

  def _start(self, key: Key, num_envs: int) -> Any:
    states = jax.vmap(self.wrapped.reset)(jax.random.split(key, num_envs))
    return _like(states, states)


def _as_float(x: jax.Array) -> jax.Array:
  return jnp.asarray(x, jnp.float32)


def _like(new: Tree, old: Tree) -> Tree:
  """`new` in `old`'s dtypes and never weakly typed, so that it can be scanned."""
  paths = [
    [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(x)]
    for x in (old, new)
  ]
  if paths[0] != paths[1]:
    raise ValueError(
      f'reset returns a state with {paths[0]} but step with {paths[1]}; make `reset`'
      ' return every field.'
    )
  return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), new, old)


def _read(states: Any, field: str, name: str) -> jax.Array | None:
  """A flag [N] bool of the states' `info` or `metrics`; None where it is absent."""
  flags = getattr(states, field, None) or {}
  return jnp.asarray(flags[name]).astype(bool) if name in flags else None
