"""What all losses on labels tell of a minibatch."""

from typing import NamedTuple

import jax


class MinibatchLoss(NamedTuple):
  """What one member of the ensemble makes of one minibatch, each [].

  Attributes:
    loss: in nats where it is a cross-entropy; 0 where the minibatch cannot teach,
      float32.
    usable: whether it can teach anything, bool.
    correct: predictions that agree with their label, float32.
    counted: predictions that were compared with one, float32.
  """

  loss: jax.Array
  usable: jax.Array
  correct: jax.Array
  counted: jax.Array
