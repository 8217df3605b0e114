"""Hyperparameters of DDPG, on networks and batches of SAC's size."""

import dataclasses

from rlfb_jax.agents.off_policy_config import OffPolicyOptions
from rlfb_jax.core.config import option


@dataclasses.dataclass(frozen=True)
class DDPGOptions(OffPolicyOptions):
  """Deep deterministic policy gradient (Lillicrap et al. 2016).

  The actor's step size is the paper's own; the critic's is that of B-Pref's critics
  of this width and batch (the paper's 1e-3 was for 400 x 300 and batches of 64). tau
  and the uncorrelated noise are those of Fujimoto et al. 2018, section 6.1: the paper's
  Ornstein-Uhlenbeck noise did no better there.
  """

  actor_learning_rate: float = option(
    1e-4, "Adam's step size, actor", above=0.0, sweep=True
  )
  exploration_std: float = option(
    0.1, 'standard deviation of exploration, before the squash', above=0.0, sweep=True
  )
  target_update_every: int = option(1, 'gradient steps per target update', low=1)
  scale_by_value: bool = option(
    True,
    'Divide the actor loss by the mean |Q| of the batch: a regulariser then weighs the '
    'same whatever the scale of the reward; without one Adam makes it nearly moot.',
  )
