"""Hyperparameters that agents who learn from a replay buffer share."""

import dataclasses

from rlfb_jax.core.config import Options, option


@dataclasses.dataclass(frozen=True)
class OffPolicyOptions(Options):
  """What SAC and DDPG have in common.

  Defaults: rll-research/BPref, `config/agent/sac.yaml`, with the step size of its
  walker-walk script.
  """

  batch_size: int = option(1024, 'transitions per gradient step', low=1)
  critic_learning_rate: float = option(
    5e-4, "Adam's step size, critics", above=0.0, sweep=True
  )
  adam_beta1: float = option(0.9, "Adam's decay of the mean", low=0.0, below=1.0)
  adam_beta2: float = option(0.999, "Adam's decay of the square", low=0.0, below=1.0)
  adam_epsilon: float = option(1e-8, "Adam's epsilon", above=0.0, sweep=True)
  discount: float = option(0.99, 'gamma', low=0.0, below=1.0)
  tau: float = option(
    0.005, 'Polyak rate of the target networks', above=0.0, high=1.0, sweep=True
  )
  hidden_size: int = option(1024, 'width of actor and critics', low=1)
  hidden_layers: int = option(2, 'hidden layers of actor and critics', low=1)
