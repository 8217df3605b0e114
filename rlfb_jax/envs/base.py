"""Environments: a task on an engine, batched, with auto-reset inside `step`."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import mujoco

from rlfb_jax.core.types import Key
from rlfb_jax.physics.base import PhysicsState


class EnvState(flax.struct.PyTreeNode):
  """A batch of N environments between two control steps.

  Attributes:
    physics: what moves; `PhysicsState` for MuJoCo tasks, any pytree whose leaves
      lead with [N] for others.
    obs: observation to act on, [N, ds] float32 (after auto-reset).
    env_reward: reward of the last step, [N] float32. Hidden from the learner: it
      may reach the scripted teacher and the metrics only.
    terminated: the last step ended the episode for good (no bootstrap), [N] bool.
    truncated: the last step ended the episode by its time limit, [N] bool; also
      set where a simulation diverged (not finite) and was thrown away.
    final_obs: observation before auto-reset, [N, ds]; equals `obs` elsewhere. Where
      a simulation diverged, the last finite one.
    success: the task's success flag at the last step, [N] bool; None where the task
      has none.
    steps: control steps taken in the current episode, [N] int32.
    key: randomness for future resets, [].
  """

  physics: Any
  obs: jax.Array
  env_reward: jax.Array
  terminated: jax.Array
  truncated: jax.Array
  final_obs: jax.Array
  success: jax.Array | None
  steps: jax.Array
  key: Key


def first_state(
  key: Key, physics: Any, obs: jax.Array, has_success: bool = False
) -> EnvState:
  """Episodes about to take their first step.

  Args:
    key: randomness for later resets, [].
    physics: what moves, leaves [N, ...].
    obs: what is seen of it, [N, ds].
    has_success: whether the task tells success.
  """
  num_envs = obs.shape[0]
  return EnvState(
    physics=physics,
    obs=obs,
    env_reward=jnp.zeros(num_envs, jnp.float32),
    terminated=jnp.zeros(num_envs, bool),
    truncated=jnp.zeros(num_envs, bool),
    final_obs=obs,
    success=jnp.zeros(num_envs, bool) if has_success else None,
    steps=jnp.zeros(num_envs, jnp.int32),
    key=key,
  )


class Environment(Protocol):
  """What methods may use of an environment; all functions are pure.

  Attributes:
    name: what users call it.
    observation_size: ds.
    action_size: da.
    pose_size: np, numbers that show a state again.
    episode_length: control steps.
    max_segment_return: `G_max` of the scripted rater for 50-step segments.
  """

  name: str
  observation_size: int
  action_size: int
  pose_size: int
  episode_length: int
  max_segment_return: float

  def reset(self, key: Key, num_envs: int) -> EnvState:
    """Fresh episodes in `num_envs` environments."""
    ...

  def reset_to(self, key: Key, physics: Any) -> EnvState:
    """Episodes that start from given physics states, leaves [N, ...]."""
    ...

  def step(self, state: EnvState, action: jax.Array) -> EnvState:
    """One control step with actions [N, da] in [-1, 1] (clipped)."""
    ...

  def pose(self, state: EnvState) -> jax.Array:
    """Whatever lets the environment show the state again, [N, np] float32.

    For MuJoCo tasks qpos, qvel and act, concatenated.
    """
    ...


ResetSample = tuple[jax.Array, jax.Array, jax.Array]  # qpos, qvel, act, each [N, ...]


def accept_all(physics: PhysicsState) -> jax.Array:
  """Any sampled state may start an episode, [N] bool."""
  return jnp.ones(physics.qpos.shape[0], bool)


@dataclasses.dataclass(frozen=True)
class Task:
  """A task written once, for every engine.

  Attributes:
    name: `<domain>_<task>`, e.g. `walker_walk`.
    make_model: builds the MuJoCo model, with the sensors that the task reads.
    substeps: physics steps per control step.
    sample_reset: `(key, model, num_envs) -> (qpos, qvel, act)`, leaves [N, ...].
    observe: `(model, physics) -> [N, ds]` float32, dm_control's order.
    reward: `(model, physics, ctrl) -> [N]` in [0, 1], after the step that `ctrl`
      drove.
    accept_reset: which sampled states may start an episode, [N] bool; others are
      drawn again.
    settle_substeps: physics steps without control after a reset (cheetah: 200).
    episode_length: control steps.
    max_segment_return: `G_max` of the scripted rater for 50-step segments: the
      segment return that a rating scale's top stands for.
  """

  name: str
  make_model: Callable[[], mujoco.MjModel]
  substeps: int
  sample_reset: Callable[[Key, mujoco.MjModel, int], ResetSample]
  observe: Callable[[mujoco.MjModel, PhysicsState], jax.Array]
  reward: Callable[[mujoco.MjModel, PhysicsState, jax.Array], jax.Array]
  accept_reset: Callable[[PhysicsState], jax.Array] = accept_all
  settle_substeps: int = 0
  episode_length: int = 1000
  max_segment_return: float = 50.0
