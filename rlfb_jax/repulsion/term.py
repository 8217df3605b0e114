"""The repulsion as one record that any actor can take.

`J = J_RL + beta sum_i w_i Phi(KL_i)` is maximised: distance from badly rated
behaviour is a good thing. (The printed update of RbRL-KL carries a minus sign that,
taken as an ascent direction, would attract the policy to its worst failures.)
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.config import is_traced
from rlfb_jax.core.padding import Count, fill
from rlfb_jax.core.types import Key, Metrics, Params
from rlfb_jax.repulsion import (
  bounds,
  class_statistics,
  diagnostics,
  heads,
  influence,
  pathwise,
  ratio,
  records,
)
from rlfb_jax.repulsion.options import HEAD_MODES, RepulsionOptions, check
from rlfb_jax.repulsion.policy import Policy, PolicyBatch
from rlfb_jax.repulsion.records import ClassStatistics
from rlfb_jax.repulsion.weights import (
  active_rows,
  below_median_gate,
  class_weights,
  included_classes,
)

Term = Callable[[Params, ClassStatistics, PolicyBatch, Key], tuple[jax.Array, Metrics]]
Shaper = Callable[..., jax.Array]


class Repulsion(NamedTuple):
  """Pure functions; None where the mode has nothing to do.

  Attributes:
    init: `() -> ClassStatistics`, masks closed: every term below is then 0.
    fit: `(key, obs [C, H, ds], action [C, H, da], rating [C], usable [C]) ->
      ClassStatistics`; same shapes as `init`.
    term: `(actor_params, stats, batch, key) -> (loss, metrics)`, a loss to
      add to the minimised actor loss. None if nothing reaches the actor this way,
      so that the compiled program is that of plain RbRL.
    shape_advantages: `(stats, obs [..., ds], action [..., da]) -> [...]`, advantages
      of the whole rollout for a surrogate of their own.
    shape_rewards: same arguments, and `behaviour` where the steps are not the current
      behaviour (see `influence`), to add to the learned reward of each step.
    gate: `(stats, predicted_class [B]) -> stats`, once an iteration.
    diagnose: `(actor_params, stats, batch, key) -> metrics`.
    value: `(actor_params, stats, batch, key) -> []`, the term beta sum w Phi as it
      stands, for logs; its gradient is zero.
    pushes: `stats -> []` bool, whether there is a class to be pushed from, gated or
      not.
  """

  init: Callable[[], ClassStatistics]
  fit: Callable[[Key, jax.Array, jax.Array, jax.Array, jax.Array], ClassStatistics]
  term: Term | None
  shape_advantages: Shaper | None
  shape_rewards: Shaper | None
  gate: Callable[[ClassStatistics, jax.Array], ClassStatistics] | None
  diagnose: Callable[[Params, ClassStatistics, PolicyBatch, Key], Metrics]
  value: Callable[[Params, ClassStatistics, PolicyBatch, Key], jax.Array]
  pushes: Callable[[ClassStatistics], jax.Array]


_DISTANCES = {
  'pathwise': pathwise.class_distances,
  'ratio': ratio.class_distances,
  'influence': pathwise.class_distances,
  'logged_only': pathwise.class_distances,
  'heads_unlikelihood': heads.unlikelihood,
  'heads_gaussian': heads.conditional_kl,
}


def _pushing(
  options: RepulsionOptions, num_classes: Count
) -> tuple[jax.Array, jax.Array]:
  """Rows of the classes that push, and their weights."""
  rows = active_rows(options, num_classes)
  return jnp.asarray(rows), jnp.asarray(class_weights(options, num_classes)[rows])


def make_term(
  options: RepulsionOptions,
  policy: Policy,
  num_classes: Count,
  observation_size: int,
  action_size: int,
) -> Term:
  """The loss `-beta sum_i w_i Phi(u_i)` of the given mode.

  Classes that are masked, gated or not finite give neither value nor gradient.
  """
  rows, omega = _pushing(options, num_classes)
  joint = options.kl_scope == 'joint'
  kappa = options.kappa_per_dim * (action_size + observation_size * joint)
  distances = _DISTANCES[options.kl_mode]

  def term(
    params: Params, stats: ClassStatistics, batch: PolicyBatch, key: Key
  ) -> tuple[jax.Array, Metrics]:
    u = distances(options, policy, rows, params, stats, batch, key)
    live = _open_rows(options, num_classes, stats) & stats.gate[rows] & jnp.isfinite(u)
    u, weights = jnp.where(live, u, 0), jnp.where(live, omega, 0)
    if options.kl_mode == 'heads_unlikelihood':
      value = jnp.sum(weights * u)  # Bounded by its own clip; may be negative.
    else:
      value = bounds.total(u, weights, options.bound, kappa)
    loss = -options.beta * value
    return loss, {
      'kl/term': value,
      'kl/loss': loss,
      'kl/live_classes': jnp.sum(live, dtype=jnp.float32),
    }

  return term


def _open_rows(
  options: RepulsionOptions, num_classes: Count, stats: ClassStatistics
) -> jax.Array:
  """Which of the rows that push may be pushed from, gates aside, [A] bool."""
  rows, _ = _pushing(options, num_classes)
  _, usable = records.usable_rows(stats, rows)
  # A row that others of the program repel from may be the best class of this run.
  return fill(included_classes(options, num_classes), usable, False)


def make_shaper(
  options: RepulsionOptions, num_classes: Count, clip: float | None
) -> Shaper:
  """The bonus `beta sum_i w_i Phi'(u_i) psi_i` of each step."""
  rows, omega = _pushing(options, num_classes)

  def shaper(
    stats: ClassStatistics,
    obs: jax.Array,
    action: jax.Array,
    behaviour: tuple[jax.Array, jax.Array] | None = None,
  ) -> jax.Array:
    lead = obs.shape[:-1]
    flat = influence.bonus(
      options,
      options.kl_scope,
      rows,
      omega,
      stats,
      obs.reshape(-1, obs.shape[-1]),
      action.reshape(-1, action.shape[-1]),
      clip,
      behaviour,
    )
    return flat.reshape(lead)

  return shaper


def make_repulsion(
  options: RepulsionOptions,
  policy: Policy,
  num_classes: Count,
  observation_size: int,
  action_size: int,
) -> Repulsion:
  """Composes the options into what an agent takes.

  Args:
    options: see `RepulsionOptions`; `beta=0` acts as `logged_only`.
    policy: `(params, raw obs) -> (mean, log_std)` before tanh.
    num_classes: n.
    observation_size: ds.
    action_size: da.

  Raises:
    ValueError: if the options contradict each other.
  """
  check(options, num_classes)
  options = dataclasses.replace(options, kl_scope=_scope(options))
  term = make_term(options, policy, num_classes, observation_size, action_size)
  repels = is_traced(options.beta) or options.beta > 0
  mode = options.kl_mode if repels else 'logged_only'

  def gate(stats: ClassStatistics, predicted_class: jax.Array) -> ClassStatistics:
    return dataclasses.replace(
      stats, gate=below_median_gate(predicted_class, num_classes)
    )

  def value(
    params: Params, stats: ClassStatistics, batch: PolicyBatch, key: Key
  ) -> jax.Array:
    loss, _ = term(jax.lax.stop_gradient(params), stats, batch, key)
    return jax.lax.stop_gradient(-loss)

  uses_loss = mode in ('pathwise', 'heads_unlikelihood', 'heads_gaussian')
  uses_loss |= mode == 'ratio' and options.ratio_form == 'objective'
  uses_advantages = mode == 'ratio' and options.ratio_form == 'shaping'
  clip = options.influence_clip
  return Repulsion(
    init=lambda: records.empty(options, num_classes, observation_size, action_size),
    fit=lambda key, obs, action, rating, usable: class_statistics.fit(
      options, num_classes, key, obs, action, rating, usable
    ),
    term=term if uses_loss else None,
    shape_advantages=(
      make_shaper(options, num_classes, None) if uses_advantages else None
    ),
    shape_rewards=(
      make_shaper(options, num_classes, clip) if mode == 'influence' else None
    ),
    gate=gate if options.below_median else None,
    diagnose=lambda params, stats, batch, key: diagnostics.diagnose(
      options, policy, num_classes, params, stats, batch, key
    ),
    value=value,
    pushes=lambda stats: jnp.any(_open_rows(options, num_classes, stats)),
  )


def _scope(options: RepulsionOptions) -> str:
  """The scope that the mode has, whatever was asked for."""
  if options.kl_mode == 'influence':
    return 'joint'
  return 'conditional' if options.kl_mode in HEAD_MODES else options.kl_scope
