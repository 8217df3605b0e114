"""Repulsion from badly rated behaviour (RbRL-KL), as a term for any actor."""

from rlfb_jax.repulsion.budget import fade, join_gradients, limit_gradient
from rlfb_jax.repulsion.diagnostics import abort_rule
from rlfb_jax.repulsion.options import RepulsionOptions
from rlfb_jax.repulsion.policy import Policy, PolicyBatch, saturated_share
from rlfb_jax.repulsion.records import ClassStatistics
from rlfb_jax.repulsion.term import Repulsion, make_repulsion

__all__ = [
  'ClassStatistics',
  'Policy',
  'PolicyBatch',
  'Repulsion',
  'RepulsionOptions',
  'abort_rule',
  'fade',
  'join_gradients',
  'limit_gradient',
  'make_repulsion',
  'saturated_share',
]
