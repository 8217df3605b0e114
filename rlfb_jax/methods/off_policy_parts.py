"""What the off-policy skeleton carries, and the parts that only it takes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax

from rlfb_jax.agents.off_policy import Transitions
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.core.replay import Replay
from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.envs.base import Environment, EnvState
from rlfb_jax.methods.collect import EpisodeClock
from rlfb_jax.reward.novelty import Novelty


class OuterStep(NamedTuple):
  """Another way of training the reward, between chunks of ordinary learning (MRN).

  Attributes:
    step: `(feedback, agent, batch, continuation [B], key) -> (feedback, metrics)`; the
      batch comes from the replay buffer, and `continuation` is all that the targets of
      its critics hold beside the learned reward.
    stop_at_time_limit: whether these targets treat time limits as ends.
    due: `env_steps -> bool`, on the host.
    replaces_update: whether the next ordinary update is left out.
  """

  step: Callable[..., tuple[Any, Metrics]]
  stop_at_time_limit: bool
  due: Callable[[int], bool]
  replaces_update: bool = False


class OffPolicyIntervention(NamedTuple):
  """What a method does to the policy beside paying it; each part may be None.

  Attributes:
    shape_rewards: `(feedback, batch, recent) -> [B]`, added to the rewards; `recent`
      are transitions of the last episodes, leaves [M, ...].
    regulariser: `(feedback, recent) -> Regulariser`.
    recent_rows: M.
    newest: how many of the newest transitions they are drawn from.
    gate: `feedback -> feedback`, after each session, which makes new classes: those
      that may not push are closed at once.
    diagnose: `(feedback, agent, obs [M, ds], key) -> (feedback, metrics)`, after each
      chunk; gates too.
  """

  shape_rewards: Callable[[Any, Transitions, Transitions], jax.Array] | None
  regulariser: Callable[..., Regulariser] | None
  recent_rows: int
  newest: int
  gate: Callable[[Any], Any] | None
  diagnose: Callable[..., tuple[Any, Metrics]]


class OffPolicyState(flax.struct.PyTreeNode):
  """A whole run of one seed.

  Attributes:
    agent: networks, optimisers and all else that the agent carries.
    replay: everything that it did.
    env: the environments, [N, ...].
    clock: true returns of training episodes, for metrics.
    feedback: archive, labels, reward model; None on the true reward.
    novelty: scale of the pre-training's reward, or None.
    key: randomness, [].
    env_steps: control steps taken, summed over environments, [] int32.
    updates: gradient steps taken, [] int32.
  """

  agent: Any
  replay: Replay
  env: EnvState
  clock: EpisodeClock
  feedback: Any
  novelty: Novelty | None
  key: Key
  env_steps: jax.Array
  updates: jax.Array


def replay_widths(env: Environment) -> tuple[int, ...]:
  """Widths of observation, action, next observation and the two kinds of end."""
  return env.observation_size, env.action_size, env.observation_size, 1, 1


def transitions_of(fields: list[jax.Array]) -> Transitions:
  """Unpacked rows of the replay buffer as transitions."""
  obs, action, next_obs, terminated, truncated = fields
  return Transitions(
    obs=obs,
    action=action,
    next_obs=next_obs,
    terminated=terminated[..., 0] > 0,
    truncated=truncated[..., 0] > 0,
  )
