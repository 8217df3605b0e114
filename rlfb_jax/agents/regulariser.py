"""The one opening through which a method adds to an actor's loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rlfb_jax.core.types import Key, Metrics, Params


class Regulariser(NamedTuple):
  """One more term of the actor loss, evaluated on a batch of its own.

  Attributes:
    loss: `(actor_params, key) -> (loss [], metrics)`, to be minimised.
    combine: `(rl_grads, regulariser_grads, approx_kl, signal_norm=None) -> (grads,
      metrics)`; joins the two gradients of the actor's parameters. `approx_kl` [] is
      how far the policy has moved from the one that collected the data, in nats.
      `signal_norm` [] is the norm of the RL gradient without its minibatch noise
      (`gradient_signal`); without it, that of `rl_grads` has to serve.
    refresh_every: gradient steps that share one evaluation of the term; PPO takes the
      largest divisor of the minibatches of an epoch that is not above it. The
      parameters move little between two steps, the term costs several of them.
  """

  loss: Callable[[Params, Key], tuple[jax.Array, Metrics]]
  combine: Callable[..., tuple[Any, Metrics]]
  refresh_every: int
