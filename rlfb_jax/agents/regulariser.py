"""The one opening through which a method adds to an actor's loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rlfb_jax.core.types import Key, Metrics, Params


class Regulariser(NamedTuple):
  """One more term of the actor loss, evaluated on a batch of its own.

  Attributes:
    loss: `(actor_params, key) -> (loss [], metrics)`, to be minimised.
    combine: `(rl_grads, regulariser_grads, approx_kl) -> (grads, metrics)`; joins
      the two gradients of the actor's parameters. `approx_kl` [] is how far the
      policy has moved from the one that collected the data, in nats.
    refresh_every: gradient steps that share one evaluation of the term. The
      parameters move little between two steps, the term costs several of them.
  """

  loss: Callable[[Params, Key], tuple[jax.Array, Metrics]]
  combine: Callable[[Any, Any, jax.Array], tuple[Any, Metrics]]
  refresh_every: int
