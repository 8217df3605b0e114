"""One labelling session's training of the ensemble, whatever the labels are.

Passes over everything labelled so far, in minibatches that each member shuffles for
itself, one Adam step on the sum of the sources' losses at a time. Capacity, not the
number of labels, sets the shapes, so every session runs the same program; loops stop
at what is filled.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlfb_jax.core.networks import MLP
from rlfb_jax.core.types import Key
from rlfb_jax.reward.minibatch_loss import MinibatchLoss
from rlfb_jax.reward.model import RewardModelState, make_optimiser, map_members
from rlfb_jax.reward.options import RewardOptions


class Source(NamedTuple):
  """Labels of one kind, as a session walks over them. C is their capacity.

  Attributes:
    usable: rows that may be visited, [C] bool.
    num_batches: minibatches in one pass, [] int32.
    size: B, rows in a minibatch.
    weight: factor of its loss; where it is 0 the source has no say in anything.
    graded: whether its accuracy decides when the session stops.
    shuffle: `key -> order [C] int32`, usable rows first.
    loss: `(params, index [B], mask [B], key) -> MinibatchLoss` of one member.
  """

  usable: jax.Array
  num_batches: jax.Array
  size: int
  weight: float
  graded: bool
  shuffle: Callable[[Key], jax.Array]
  loss: Callable[[MLP, jax.Array, jax.Array, Key], MinibatchLoss]


class Tally(NamedTuple):
  """Sums over the steps of one pass; [S] for S sources, with members [K, S].

  Attributes:
    loss: of minibatches that taught something, float32.
    correct: float32.
    counted: float32.
    batches: how many minibatches taught something, int32.
    skipped: minibatches that could not teach, int32.
    steps: gradient steps taken, [] int32 ([K]).
    non_finite: steps refused because a number was not finite, [] int32 ([K]).
  """

  loss: jax.Array
  correct: jax.Array
  counted: jax.Array
  batches: jax.Array
  skipped: jax.Array
  steps: jax.Array
  non_finite: jax.Array


class FitState(NamedTuple):
  """A session under way.

  Attributes:
    params: leaves [K, ...].
    opt_state: leaves [K, ...].
    tally: of the last pass, leaves [K, ...].
    skipped: minibatches in all passes, [K, S] int32.
    steps: likewise, [K] int32.
    non_finite: likewise, [K] int32.
    passes: [] int32.
    accuracy: of each source in the last pass, mean over members that could be told
      right or wrong, 0 if none could, [S].
    running: whether another pass is worth it, [] bool.
  """

  params: MLP
  opt_state: Any
  tally: Tally
  skipped: jax.Array
  steps: jax.Array
  non_finite: jax.Array
  passes: jax.Array
  accuracy: jax.Array
  running: jax.Array


def _zero_tally(lead: tuple[int, ...], sources: int) -> Tally:
  return Tally(
    *(jnp.zeros((*lead, sources), jnp.float32) for _ in range(3)),
    *(jnp.zeros((*lead, sources), jnp.int32) for _ in range(2)),
    *(jnp.zeros(lead, jnp.int32) for _ in range(2)),
  )


def mean_where(
  values: jax.Array, mask: jax.Array, axis: int | None = None
) -> jax.Array:
  """Mean of the values that are meant; 0, not NaN, where none is."""
  total = jnp.sum(jnp.where(mask, values, 0.0), axis=axis)
  return total / jnp.maximum(jnp.sum(mask, axis=axis), 1)


def where(condition: jax.Array, new: Any, old: Any) -> Any:
  """`new` where the scalar condition holds, else `old`, leaf by leaf."""
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def is_finite(tree: Any) -> jax.Array:
  """Whether every number of the tree is finite and its norm too, [] bool."""
  return jnp.isfinite(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


def _member_pass(
  options: RewardOptions,
  sources: Sequence[Source],
  num_steps: jax.Array,
  params: MLP,
  opt_state: Any,
  key: Key,
) -> tuple[MLP, Any, Tally]:
  """One pass of one member: `num_steps` steps, each on a minibatch of every source.

  A source that is through before the pass is over is shuffled anew.
  """
  optimiser = make_optimiser(options)
  weights = jnp.array([source.weight for source in sources])
  counts = [jnp.sum(source.usable) for source in sources]
  # A source alone is through when the pass is, and has no use for other noise.
  alone = len(sources) == 1
  keys = [key] if alone else list(jax.random.split(key, len(sources)))

  def shuffled(s: int, lap: jax.Array | int) -> jax.Array:
    k = keys[s] if alone else jax.random.fold_in(keys[s], 2 * lap)
    order = sources[s].shuffle(k)
    return jnp.pad(order, (0, -order.shape[0] % sources[s].size))

  def minibatch(
    s: int, j: jax.Array, order: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    size, laps = sources[s].size, jnp.maximum(sources[s].num_batches, 1)
    if not alone:
      order = jax.lax.cond(
        (j > 0) & (j % laps == 0), lambda: shuffled(s, j // laps), lambda: order
      )
    first = (j % laps) * size
    index = jax.lax.dynamic_slice(order, (first,), (size,))
    mask = first + jnp.arange(size) < counts[s]
    # Padding repeats a real label, so that what it holds is finite.
    return order, jnp.where(mask, index, order[0]), mask

  def step(j: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
    params, opt_state, orders, tally = carry
    drawn = [minibatch(s, j, order) for s, order in enumerate(orders)]
    orders = tuple(order for order, _, _ in drawn)
    noise = [jax.random.fold_in(k, 2 * j + 1) for k in keys]

    def objective(p: MLP) -> tuple[jax.Array, MinibatchLoss]:
      outcomes = [
        source.loss(p, index, mask, k)
        for source, (_, index, mask), k in zip(sources, drawn, noise, strict=True)
      ]
      outcome = jax.tree.map(lambda *x: jnp.stack(x), *outcomes)
      return jnp.sum(weights * outcome.loss), outcome

    (loss, outcome), grads = jax.value_and_grad(objective, has_aux=True)(params)
    finite = jnp.isfinite(loss) & is_finite(grads)
    take = jnp.any(outcome.usable & (weights > 0)) & finite
    updates, new_opt_state = optimiser.update(grads, opt_state, params)
    new_params = optax.apply_updates(params, updates)
    params, opt_state = where(take, (new_params, new_opt_state), (params, opt_state))
    taught = outcome.usable & finite
    present = jnp.stack([source.num_batches > 0 for source in sources])
    tally = Tally(
      loss=tally.loss + jnp.where(taught, outcome.loss, 0.0),
      correct=tally.correct + jnp.where(taught, outcome.correct, 0.0),
      counted=tally.counted + jnp.where(taught, outcome.counted, 0.0),
      batches=tally.batches + taught,
      skipped=tally.skipped + (present & finite & ~outcome.usable),
      steps=tally.steps + take,
      non_finite=tally.non_finite + ~finite,
    )
    return params, opt_state, orders, tally

  orders = tuple(shuffled(s, 0) for s in range(len(sources)))
  start = params, opt_state, orders, _zero_tally((), len(sources))
  params, opt_state, _, tally = jax.lax.fori_loop(0, num_steps, step, start)
  return params, opt_state, tally


def train(
  options: RewardOptions,
  sources: Sequence[Source],
  key: Key,
  state: RewardModelState,
  *,
  num_steps: jax.Array | None = None,
) -> FitState:
  """Passes until one is accurate enough, or can teach nothing, or all are done.

  A pass walks over the longest graded source; a shorter one wraps round. It is
  accurate enough when every graded source that taught anything is predicted, by the
  members on average, better than `options.stop_accuracy`.

  Args:
    options: step size, number of passes, when to stop.
    sources: at least one.
    key: randomness, consumed.
    state: ensemble to start from.
    num_steps: instead of such passes, this many steps and no early stop, [] int32.
  """
  num_members = options.ensemble_size
  graded = jnp.array([source.graded for source in sources])
  graded &= jnp.array([source.weight for source in sources]) > 0
  batches = jnp.stack(
    [jnp.where(s.weight > 0, s.num_batches, 0) for s in sources if s.graded]
  )
  length = jnp.max(batches) if num_steps is None else num_steps
  max_passes = options.max_passes if num_steps is None else 1

  def one_pass(s: FitState) -> FitState:
    keys = jax.random.split(jax.random.fold_in(key, s.passes), num_members)

    def member(params: MLP, opt_state: Any, k: Key) -> tuple[MLP, Any, Tally]:
      return _member_pass(options, sources, length, params, opt_state, k)

    params, opt_state, tally = map_members(member, s.params, s.opt_state, keys)
    taught = tally.batches > 0
    each = tally.correct / jnp.maximum(tally.counted, 1.0)
    accuracy = mean_where(each, tally.counted > 0, axis=0)
    open_ = graded & jnp.any(taught, axis=0) & (accuracy <= options.stop_accuracy)
    return FitState(
      params=params,
      opt_state=opt_state,
      tally=tally,
      skipped=s.skipped + tally.skipped,
      steps=s.steps + tally.steps,
      non_finite=s.non_finite + tally.non_finite,
      passes=s.passes + 1,
      accuracy=accuracy,
      running=jnp.any(open_),
    )

  tally = _zero_tally((num_members,), len(sources))
  start = FitState(
    params=state.params,
    opt_state=state.opt_state,
    tally=tally,
    skipped=tally.skipped,
    steps=tally.steps,
    non_finite=tally.non_finite,
    passes=jnp.zeros((), jnp.int32),
    accuracy=jnp.zeros(len(sources), jnp.float32),
    running=length > 0,
  )
  return jax.lax.while_loop(
    lambda s: s.running & (s.passes < max_passes), one_pass, start
  )
