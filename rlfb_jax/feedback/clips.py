"""What a teacher is shown: short pieces of behaviour."""

import flax.struct
import jax


class Clip(flax.struct.PyTreeNode):
  """B segments of H consecutive steps of one episode each.

  Attributes:
    obs: raw observations, [B, H, ds] float32. Raw, because a normaliser moves on
      while labels stay.
    action: actions as executed, [B, H, da] in [-1, 1].
    pose: qpos, qvel and act in a row, [B, H, np], which show the clip again.
  """

  obs: jax.Array
  action: jax.Array
  pose: jax.Array

  @property
  def size(self) -> int:
    """Number of segments B."""
    return int(self.obs.shape[0])
