"""A task on an engine: the batched environment that methods see."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from rlfb_jax.core.batching import select_rows, update_rows_if_any
from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import EnvState, Task, accept_all, first_state
from rlfb_jax.physics.base import Physics, PhysicsState

# Draws of a start before a pose that the task rejects is taken after all. Of the
# suite's tasks, finger rejects most: about every second pose.
_MAX_DRAWS = 1000


class MujocoEnvironment:
  """`Environment` of a `Task` whose bodies a `Physics` engine moves.

  Attributes:
    name: the task's name.
    observation_size: ds.
    action_size: da; actions in [-1, 1] are mapped affinely to each actuator's
      control range, as dm_control's `action_scale` wrapper does.
    pose_size: np, numbers that show a state again.
    episode_length: control steps.
    max_segment_return: `G_max` of the scripted rater for 50-step segments.
    control_timestep: seconds per control step.
    task: the task.
    physics: the engine.
    model: the engine's model, for rendering.
  """

  def __init__(self, task: Task, physics: Physics):
    """Binds a task to an engine of the task's model."""
    model = physics.model
    self.task = task
    self.physics = physics
    self.model = model
    self.name = task.name
    self.action_size = int(model.nu)
    self.pose_size = int(model.nq + model.nv + model.na)
    self.episode_length = task.episode_length
    self.max_segment_return = task.max_segment_return
    self.control_timestep = float(model.opt.timestep) * task.substeps
    self.observation_size = _observation_size(task, model)
    limited = model.actuator_ctrllimited.astype(bool)[:, None]
    low, high = np.where(limited, model.actuator_ctrlrange, [-1.0, 1.0]).T
    # Centre and half width, not low and width: exact where the range is [-1, 1].
    self._ctrl_centre = np.float32((low + high) / 2)
    self._ctrl_half_width = np.float32((high - low) / 2)

  def reset(self, key: Key, num_envs: int) -> EnvState:
    """Fresh episodes in `num_envs` environments."""
    key, start_key = jax.random.split(key)
    return self.reset_to(key, self._start(start_key, num_envs))

  def reset_to(self, key: Key, physics: PhysicsState) -> EnvState:
    """Episodes that start from given physics states, leaves [N, ...].

    Args:
      key: randomness for later resets.
      physics: states of the same engine, e.g. saved from another `EnvState`.
    """
    obs = self.task.observe(self.model, physics)
    return first_state(key, physics, obs)

  def step(self, state: EnvState, action: jax.Array) -> EnvState:
    """One control step, then a fresh reset of the episodes that it ended.

    These tasks end by their time limit alone (`truncated`). A simulation that
    diverges is contained: its episode is truncated with reward 0 and the last
    finite observation as `final_obs`, and the others go on.

    Args:
      state: where to start.
      action: [N, da], clipped to [-1, 1]; 0 is taken for NaN.
    """
    ctrl = self.to_ctrl(action)
    physics = self.physics.step(state.physics, ctrl, self.task.substeps)
    obs = self.task.observe(self.model, physics)
    reward = self.task.reward(self.model, physics, ctrl).astype(jnp.float32)

    diverged = ~(
      jnp.isfinite(obs).all(axis=-1)
      & jnp.isfinite(reward)
      & jnp.isfinite(self._pose(physics)).all(axis=-1)
    )
    reward = jnp.where(diverged, 0.0, reward)
    obs = select_rows(diverged, state.obs, obs)
    steps = state.steps + 1
    truncated = (steps >= self.episode_length) | diverged

    key, start_key = jax.random.split(state.key)
    num_envs = obs.shape[0]

    def restart(key: Key) -> tuple[PhysicsState, jax.Array]:
      fresh = self._start(key, num_envs)
      return fresh, self.task.observe(self.model, fresh)

    physics, next_obs = update_rows_if_any(
      restart, truncated, start_key, (physics, obs)
    )
    return dataclasses.replace(
      state,
      physics=physics,
      obs=next_obs,
      env_reward=reward,
      terminated=jnp.zeros(num_envs, bool),
      truncated=truncated,
      final_obs=obs,
      steps=jnp.where(truncated, 0, steps),
      key=key,
    )

  def pose(self, state: EnvState) -> jax.Array:
    """What shows a state again, [N, np] float32: qpos, qvel and act in a row."""
    return self._pose(state.physics)

  def physics_at(self, pose: jax.Array) -> PhysicsState:
    """The states that poses show, such as those of a clip that was rated.

    At rest in time 0, as after a reset: positions, velocities and what follows from
    them are as they were; forces and accelerations are those without actuation.

    Args:
      pose: [N, np], of `pose`.
    """
    nq, nv = self.model.nq, self.model.nv
    return self.physics.init(*jnp.split(pose, [nq, nq + nv], axis=-1))

  def to_ctrl(self, action: jax.Array) -> jax.Array:
    """Actuator controls [..., da] of actions [..., da], clipped to [-1, 1]."""
    action = jnp.clip(jnp.nan_to_num(action, nan=0.0), -1.0, 1.0)
    return self._ctrl_centre + self._ctrl_half_width * action

  def _pose(self, physics: PhysicsState) -> jax.Array:
    return jnp.concatenate([physics.qpos, physics.qvel, physics.act], axis=-1)

  def _start(self, key: Key, num_envs: int) -> PhysicsState:
    """States that start episodes: drawn, drawn again while rejected, settled."""
    physics = self._draw(key, num_envs)
    if self.task.settle_substeps:
      no_ctrl = jnp.zeros((num_envs, self.action_size), jnp.float32)
      physics = self.physics.step(physics, no_ctrl, self.task.settle_substeps)
    return physics

  def _draw(self, key: Key, num_envs: int) -> PhysicsState:
    """Sampled states, each drawn until its task accepts it."""

    def draw(key: Key) -> PhysicsState:
      return self.physics.init(*self.task.sample_reset(key, self.model, num_envs))

    if self.task.accept_reset is accept_all:
      return draw(key)

    Carry = tuple[Key, PhysicsState, jax.Array, jax.Array]

    def some_rejected(carry: Carry) -> jax.Array:
      _, _, accepted, draws = carry
      return ~accepted.all() & (draws < _MAX_DRAWS)

    def redraw(carry: Carry) -> Carry:
      key, physics, accepted, draws = carry
      key, draw_key = jax.random.split(key)
      candidate = draw(draw_key)
      physics = select_rows(accepted, physics, candidate)
      return key, physics, accepted | self.task.accept_reset(candidate), draws + 1

    # From nothing rather than from a first draw, so that the engine's `init` is
    # compiled once.
    nothing = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(draw, key)
    )
    start = key, nothing, jnp.zeros(num_envs, bool), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(some_rejected, redraw, start)[1]


def _observation_size(task: Task, model: mujoco.MjModel) -> int:
  """The length of the task's observation, without running any engine."""

  def observe(*fields: jax.Array) -> jax.Array:
    qpos, qvel, act, sensordata = fields
    contacts = jnp.zeros(1, jnp.int32)
    physics = PhysicsState(qpos, qvel, act, sensordata, contacts, engine=None)
    return task.observe(model, physics)

  sizes = (model.nq, model.nv, model.na, model.nsensordata)
  fields = [jax.ShapeDtypeStruct((1, n), jnp.float32) for n in sizes]
  return int(jax.eval_shape(observe, *fields).shape[-1])
