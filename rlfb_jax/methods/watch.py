"""The repulsion watched after each chunk, whatever agent it pushes."""

import jax.numpy as jnp

from rlfb_jax.core.types import Key, Metrics, Params
from rlfb_jax.methods.feedback import FeedbackState
from rlfb_jax.repulsion import ClassStatistics, PolicyBatch, Repulsion, abort_rule


def live_classes(feedback: FeedbackState) -> ClassStatistics:
  """The classes, all masked in a seed whose repulsion has been switched off."""
  classes = feedback.classes
  assert classes is not None
  return classes.replace(mask=classes.mask & feedback.repelling)


def watch(
  repulsion: Repulsion,
  feedback: FeedbackState,
  params: Params,
  batch: PolicyBatch,
  key: Key,
  action_size: int,
) -> tuple[FeedbackState, Metrics]:
  """Measures the repulsion, and switches it off for good where the policy collapsed.

  Args:
    repulsion: what pushes.
    feedback: whose classes push, and who counts the strikes.
    params: of the actor.
    batch: states that the policy visits.
    key: noise of re-sampled actions.
    action_size: da.
  """
  classes = feedback.classes
  assert classes is not None
  metrics = repulsion.diagnose(params, classes, batch, key)
  decision = abort_rule(
    feedback.strikes,
    metrics['policy/entropy'],
    metrics['policy/saturation'],
    action_size,
  )
  feedback = feedback.replace(
    # Before there is anything to be pushed from, nothing can be its fault.
    strikes=jnp.where(jnp.any(classes.mask), decision.strikes, 0),
    repelling=feedback.repelling & ~decision.abort,
  )
  return feedback, metrics | {
    'kl/value': repulsion.value(params, classes, batch, key),
    'kl/repelling': feedback.repelling.astype(jnp.float32),
  }
