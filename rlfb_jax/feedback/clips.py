"""What a teacher is shown: short pieces of behaviour."""

from typing import TypeVar

import flax.struct
import jax

Tree = TypeVar('Tree')


class Clip(flax.struct.PyTreeNode):
  """B segments of H consecutive steps of one episode each.

  Attributes:
    obs: raw observations, [B, H, ds] float32. Raw, because a normaliser moves on
      while labels stay.
    action: actions as executed, [B, H, da] in [-1, 1].
    pose: whatever lets the environment show the states again, [B, H, np]; for MuJoCo
      tasks qpos, qvel and act, concatenated.
  """

  obs: jax.Array
  action: jax.Array
  pose: jax.Array

  @property
  def size(self) -> int:
    """Number of segments B."""
    return int(self.obs.shape[0])


class Segments(flax.struct.PyTreeNode):
  """What r_hat reads of B segments, and no pose, since nobody will see them.

  Attributes:
    obs: raw observations, [B, H, ds].
    action: actions as executed, [B, H, da].
  """

  obs: jax.Array
  action: jax.Array


def middle(segments: Tree, steps: int) -> Tree:
  """The middle of longer segments, leaves [B, H + 2 margin, ...] -> [B, H, ...].

  SURF (Park et al. 2022) stores a margin on each side, from which it crops, while
  the teacher judges the middle.

  Args:
    segments: a clip, rewards, or any tree with steps on the second axis.
    steps: H.

  Raises:
    ValueError: at trace time, if no middle leaves equal margins.
  """

  def cut(x: jax.Array) -> jax.Array:
    margins = x.shape[1] - steps
    if steps < 1 or margins < 0 or margins % 2:
      raise ValueError(
        f'steps={steps} is not the middle of segments of {x.shape[1]} steps: it must '
        f'be between 1 and {x.shape[1]} and leave margins of equal length.'
      )
    return x[:, margins // 2 : margins // 2 + steps]

  return jax.tree.map(cut, segments)
