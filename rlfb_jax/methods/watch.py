"""What both kinds of agent ask of the repulsion: who pushes now, and is it healthy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key, Metrics, Params
from rlfb_jax.methods.feedback import FeedbackState, predict_classes
from rlfb_jax.repulsion import ClassStatistics, PolicyBatch, Repulsion, abort_rule


def live_classes(feedback: FeedbackState) -> ClassStatistics:
  """The classes, all masked in a seed whose repulsion has been switched off."""
  classes = feedback.classes
  assert classes is not None
  return classes.replace(mask=classes.mask & feedback.repelling)


def gated_classes(
  repulsion: Repulsion,
  feedback: FeedbackState,
  r_hat: Callable[[FeedbackState, jax.Array, jax.Array], jax.Array],
  obs: jax.Array,
  action: jax.Array,
  segment_steps: int,
) -> ClassStatistics:
  """The live classes; where there is a gate, only those below the median may push.

  Args:
    repulsion: whose gate it is.
    feedback: who rated, and where classes part.
    r_hat: of steps, as in `Feedback`.
    obs: what the policy sees, [T, N, ds].
    action: what it does, [T, N, da].
    segment_steps: H, the length at which classes are predicted.
  """
  classes = live_classes(feedback)
  if repulsion.gate is None:
    return classes
  assert feedback.boundaries is not None
  values = r_hat(feedback, obs, action)
  predicted = predict_classes(feedback.boundaries, values, segment_steps)
  return repulsion.gate(classes, predicted)


def look(
  repulsion: Repulsion,
  feedback: FeedbackState,
  entropy: jax.Array,
  saturation: jax.Array,
  action_size: int,
) -> FeedbackState:
  """Switches the repulsion off for good where the policy has collapsed.

  Args:
    repulsion: what pushes.
    feedback: who counts the strikes.
    entropy: of executed actions, [] nats.
    saturation: share of action entries at their bounds, [].
    action_size: da.
  """
  assert feedback.classes is not None
  decision = abort_rule(feedback.strikes, entropy, saturation, action_size)
  return feedback.replace(
    # Before there is anything to be pushed from, nothing can be its fault.
    strikes=jnp.where(repulsion.pushes(feedback.classes), decision.strikes, 0),
    repelling=feedback.repelling & ~decision.abort,
  )


def worth(
  repulsion: Repulsion,
  feedback: FeedbackState,
  classes: ClassStatistics,
  params: Params,
  batch: PolicyBatch,
  key: Key,
) -> Metrics:
  """What the push is worth to the policy now, and whether it is on.

  Args:
    repulsion: what pushes.
    feedback: whether it may.
    classes: the live ones, gated where there is a gate.
    params: of the actor.
    batch: states that the policy visits.
    key: noise of re-sampled actions.
  """
  return {
    'kl/value': repulsion.value(params, classes, batch, key),
    'kl/repelling': feedback.repelling.astype(jnp.float32),
  }
