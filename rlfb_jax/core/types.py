"""Names that the whole package shares.

Axis legend, used in every docstring:
  S seeds, N environments, B batch, T rollout steps, H segment steps,
  K ensemble members, n rating classes, ds observation size, da action size.
"""

from collections.abc import Callable
from typing import Any

import jax

Key = jax.Array  # A typed key of `jax.random.key`, shape [].
Params = Any  # A pytree of arrays.
Metrics = dict[str, jax.Array]  # Scalars (or small vectors) under their names.
Activation = Callable[[jax.Array], jax.Array]
