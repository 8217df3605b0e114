"""Gradient steps that agents share: guarded, averaged, occasional, regularised."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.custom_batching import custom_vmap

from rlfb_jax.agents.gradient_signal import (
  GradientSignal,
  init_signal,
  signal_norm,
  update_signal,
)
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.core.types import Key, Metrics, Params

Tree = TypeVar('Tree')

# Gradients that the estimate of what the policy consistently learns reaches back: an
# episode's worth of steps at the published ratio.
SIGNAL_HORIZON = 1000


class Adam(NamedTuple):
  """Adam without its step size.

  Attributes:
    beta1: decay of the mean, a number or [].
    beta2: decay of the square, a number or [].
    epsilon: added to the root of the square, a number or [].
  """

  beta1: float | jax.Array = 0.9
  beta2: float | jax.Array = 0.999
  epsilon: float | jax.Array = 1e-8

  @property
  def moments(self) -> optax.GradientTransformation:
    """Optax's own, which counts steps and keeps the moments."""
    return optax.scale_by_adam(b1=self.beta1, b2=self.beta2, eps=self.epsilon)

  def init(self, params: Any) -> optax.OptState:
    """Moments from the start."""
    return self.moments.init(params)


def guarded_step(
  adam: Adam,
  learning_rate: float | jax.Array,
  params: Tree,
  optimizer: optax.OptState,
  grads: Tree,
  finite: jax.Array | None = None,
) -> tuple[Tree, optax.OptState, jax.Array]:
  """One step of Adam, or none at all if the gradient or its square is not finite.

  Args:
    adam: its constants.
    learning_rate: step size.
    params: to move.
    optimizer: Adam's moments.
    grads: like `params`.
    finite: whether to step, [] bool, where the caller has looked already.

  Returns:
    Parameters and moments, untouched where skipped, and whether it was, [] bool.
  """
  if finite is None:
    # Squared, as Adam's second moments are: the compiler makes |x| of the root of
    # x * x.
    finite = jnp.isfinite(optax.tree.norm(grads, squared=True))
  _, moved = adam.moments.update(grads, optimizer)
  moved = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, optimizer)
  # The step is taken from the moments as they are now. Left to itself the compiler
  # computes it from the old ones, which it must then copy before it overwrites them: a
  # twentieth of SAC's update at 256 x 2 on two cores, a hundredth at 1024 x 2.
  moved = jax.lax.optimization_barrier(moved)
  mean = optax.tree.bias_correction(moved.mu, adam.beta1, moved.count)
  square = optax.tree.bias_correction(moved.nu, adam.beta2, moved.count)

  def step(p: jax.Array, m: jax.Array, s: jax.Array) -> jax.Array:
    update = m / (jnp.sqrt(s) + adam.epsilon)
    return jnp.where(finite, p - learning_rate * update, p)

  return jax.tree.map(step, params, mean, square), moved, ~finite


def soft_update(
  target: Tree, online: Tree, tau: float, step: jax.Array, interval: int
) -> Tree:
  """Polyak averaging where `interval` divides `step`; else the target to the bit.

  Args:
    target: slow parameters.
    online: those that learn.
    tau: share of the way that one update goes.
    step: [] int32.
    interval: steps between two updates.
  """
  rate = jnp.where(step % interval == 0, jnp.float32(tau), jnp.float32(0.0))
  return jax.tree.map(lambda t, p: t + rate * (p - t), target, online)


def occasionally(
  step: jax.Array,
  interval: int,
  function: Callable[[], tuple[Tree, Metrics]],
  unchanged: Tree,
) -> tuple[Tree, Metrics]:
  """`function()` where `interval` divides `step`, `unchanged` elsewhere.

  Under `jax.vmap` it stays a branch: the function runs for all members where one is
  due, and members share their clock.

  Args:
    step: [] int32.
    interval: steps between two calls.
    function: returns something like `unchanged`, and metrics.
    unchanged: what to return in between.

  Returns:
    The result, and metrics that count `interval`-fold where the function ran and are
    zero elsewhere: their mean over steps is the mean over calls.
  """
  if interval == 1:
    return function()

  def now() -> tuple[Tree, Metrics]:
    result, metrics = function()
    return result, {name: interval * value for name, value in metrics.items()}

  def later() -> tuple[Tree, Metrics]:
    metrics = jax.eval_shape(now)[1]
    return unchanged, {k: jnp.zeros(v.shape, v.dtype) for k, v in metrics.items()}

  return jax.lax.cond(_any_member(step % interval == 0), now, later)


class TermMemory(flax.struct.PyTreeNode):
  """What a regulariser leaves from step to step.

  Attributes:
    gradient: of its loss, as last evaluated, like the actor's parameters.
    signal: of the RL gradients, which a budget is counted in.
  """

  gradient: Params
  signal: GradientSignal


def init_term(params: Params) -> TermMemory:
  """No gradient seen yet.

  Args:
    params: of the actor.
  """
  return TermMemory(jax.tree.map(jnp.zeros_like, params), init_signal(params))


def regularised(
  regulariser: Regulariser | None,
  params: Params,
  rl_grads: Params,
  memory: TermMemory | None,
  key: Key,
  step: jax.Array,
) -> tuple[Params, TermMemory | None, Metrics]:
  """Joins the gradient of an actor's loss with that of one more term.

  Args:
    regulariser: the term, or None.
    params: of the actor.
    rl_grads: of the actor's own loss.
    memory: of the steps before; None where there is no term.
    key: randomness, consumed where the term is evaluated.
    step: [] int32; the term is evaluated where `refresh_every` divides it.

  Returns:
    The gradient to apply, what to keep, and metrics.

  Raises:
    ValueError: at trace time, for a term without memory.
  """
  if regulariser is None:
    return rl_grads, memory, {}
  if memory is None:
    raise ValueError(
      'A regulariser needs an agent that remembers its term; make the agent with'
      ' regularised=True.'
    )

  def evaluate() -> tuple[Params, Metrics]:
    grads, metrics = jax.grad(regulariser.loss, has_aux=True)(params, key)
    return grads, metrics

  gradient, metrics = occasionally(
    step, regulariser.refresh_every, evaluate, memory.gradient
  )
  signal = update_signal(memory.signal, rl_grads, SIGNAL_HORIZON)
  # Replay has no single policy that collected it, so that there is no distance to it.
  no_distance = jnp.zeros((), jnp.float32)
  grads, combined = regulariser.combine(
    rl_grads, gradient, no_distance, signal_norm(signal)
  )
  return grads, TermMemory(gradient, signal), metrics | combined


@custom_vmap
def _any_member(flag: jax.Array) -> jax.Array:
  """The flag; under vmap whether any member's is set, one value for all."""
  return flag


@_any_member.def_vmap
def _any_member_batched(
  axis_size: int, in_batched: list[Any], flag: jax.Array
) -> tuple[jax.Array, bool]:
  del axis_size
  return _any_member(jnp.any(flag, axis=0) if in_batched[0] else flag), False
