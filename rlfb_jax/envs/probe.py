"""Worlds that take seconds to learn, each of which tests one part of an agent.

The failing one names the broken part (after Jones, "Debugging RL, without the
agonizing pain"): values, values that depend on what is seen, discounting, policy, and
a policy whose pay comes later.
"""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import EnvState, first_state


class ProbeState(flax.struct.PyTreeNode):
  """What a probe world remembers.

  Attributes:
    cue: what there is to see; -1 or 1 when drawn, [N] float32.
  """

  cue: jax.Array


@dataclasses.dataclass(frozen=True)
class Probe:
  """A world with one number to see and rewards in [0, 1].

  Attributes:
    name: its name for `envs.make`.
    episode_length: steps.
    terminates: whether an episode's last step is its true end (no bootstrap), or
      only a time limit.
    observe: `(cue, steps) -> [N]`, with steps taken so far as float32.
    reward: `(cue, steps, action) -> [N]`, of what was seen before the action.
    move: `(cue, action, drawn) -> [N]`, the next cue; by default the one just drawn.
  """

  name: str
  episode_length: int
  terminates: bool
  observe: Callable[[jax.Array, jax.Array], jax.Array]
  reward: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
  move: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = (
    lambda cue, action, drawn: drawn
  )


PROBES = (
  # Always 1: the value of the only state must become 1.
  Probe(
    name='probe_constant',
    episode_length=1,
    terminates=True,
    observe=lambda cue, steps: jnp.zeros_like(cue),
    reward=lambda cue, steps, action: jnp.ones_like(cue),
  ),
  # 0 or 1, as announced: the value must follow the observation.
  Probe(
    name='probe_observed',
    episode_length=1,
    terminates=True,
    observe=lambda cue, steps: cue,
    reward=lambda cue, steps, action: (1 + cue) / 2,
  ),
  # 0, then 1: the first state's value must become the discount.
  Probe(
    name='probe_delayed',
    episode_length=2,
    terminates=True,
    observe=lambda cue, steps: steps,
    reward=lambda cue, steps, action: steps,
  ),
  # Best where the action equals the cue: the policy must learn, 1 a step at best,
  # 1/2 for actions that ignore the cue.
  Probe(
    name='probe_choice',
    episode_length=10,
    terminates=False,
    observe=lambda cue, steps: cue,
    reward=lambda cue, steps, action: (1 + cue * action[:, 0]) / 2,
  ),
  # A point to be brought to the middle, where it pays 1 a step: an action pays from the
  # next step on, so that who looks no further learns nothing. 8.2 at best.
  Probe(
    name='probe_reach',
    episode_length=10,
    terminates=False,
    observe=lambda cue, steps: cue,
    reward=lambda cue, steps, action: 1 - jnp.abs(cue),
    move=lambda cue, action, drawn: jnp.clip(cue + 0.4 * action[:, 0], -1, 1),
  ),
)


class ProbeEnvironment:
  """`Environment` of a probe world; see there for the methods.

  Attributes:
    name: the world's name.
    observation_size: 1.
    action_size: da; only the first number matters.
    pose_size: 1, the cue.
    episode_length: steps.
    max_segment_return: return of the best segment of 50 steps.
  """

  observation_size = 1
  pose_size = 1

  def __init__(
    self, probe: Probe, episode_length: int | None = None, action_size: int = 1
  ):
    """Makes the world.

    Args:
      probe: what is seen and rewarded.
      episode_length: steps, if not the world's own.
      action_size: da, at least 1.

    Raises:
      ValueError: if a number is not positive.
    """
    length = probe.episode_length if episode_length is None else episode_length
    for name, value in (('episode_length', length), ('action_size', action_size)):
      if value < 1:
        raise ValueError(f'{name}={value} must be at least 1; try 1.')
    self.probe = probe
    self.name = probe.name
    self.action_size = action_size
    self.episode_length = length
    self.max_segment_return = 50.0

  def reset(self, key: Key, num_envs: int) -> EnvState:
    """Fresh episodes in `num_envs` environments."""
    key, cue_key = jax.random.split(key)
    return self.reset_to(key, ProbeState(cue=_draw_cue(cue_key, num_envs)))

  def reset_to(self, key: Key, physics: ProbeState) -> EnvState:
    """Episodes that start from given cues."""
    steps = jnp.zeros(physics.cue.shape[0], jnp.int32)
    return first_state(key, physics, self._observe(physics.cue, steps))

  def step(self, state: EnvState, action: jax.Array) -> EnvState:
    """One step with actions [N, da], clipped to [-1, 1], then auto-reset."""
    key, cue_key = jax.random.split(state.key)
    num_envs = state.steps.shape[0]
    action = jnp.clip(action, -1.0, 1.0)
    cue, steps = state.physics.cue, state.steps
    reward = self.probe.reward(cue, steps.astype(jnp.float32), action)
    drawn = _draw_cue(cue_key, num_envs)
    moved = self.probe.move(cue, action, drawn)
    steps = steps + 1
    done = steps >= self.episode_length
    cue = jnp.where(done, drawn, moved)
    never = jnp.zeros(num_envs, bool)
    next_steps = jnp.where(done, 0, steps)
    return EnvState(
      physics=ProbeState(cue=cue),
      obs=self._observe(cue, next_steps),
      env_reward=reward.astype(jnp.float32),
      terminated=done if self.probe.terminates else never,
      truncated=never if self.probe.terminates else done,
      final_obs=self._observe(moved, steps),
      success=None,
      steps=next_steps,
      key=key,
    )

  def pose(self, state: EnvState) -> jax.Array:
    """The cue, [N, 1]."""
    return state.physics.cue[:, None]

  def _observe(self, cue: jax.Array, steps: jax.Array) -> jax.Array:
    return self.probe.observe(cue, steps.astype(jnp.float32))[:, None]


def _draw_cue(key: Key, num_envs: int) -> jax.Array:
  return jax.random.rademacher(key, (num_envs,), jnp.float32)
