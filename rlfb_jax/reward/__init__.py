"""The learned reward: ensemble, losses, session training, bi-level step, novelty."""

from rlfb_jax.reward.fit import Fit, RatingFit, make_fit, make_rating_fit
from rlfb_jax.reward.minibatch_loss import MinibatchLoss
from rlfb_jax.reward.model import (
  RewardModel,
  RewardModelState,
  aggregate,
  make_reward_model,
  mean_and_std,
)
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.preferences import PreferenceLossOptions, preference_loss
from rlfb_jax.reward.ratings import rating_loss
from rlfb_jax.reward.semi_supervised import SurfOptions
from rlfb_jax.reward.state_entropy import (
  StateEntropyState,
  init_state_entropy,
  state_entropy_reward,
)

__all__ = [
  'Fit',
  'MinibatchLoss',
  'PreferenceLossOptions',
  'RatingFit',
  'RewardModel',
  'RewardModelState',
  'RewardOptions',
  'StateEntropyState',
  'SurfOptions',
  'aggregate',
  'init_state_entropy',
  'make_fit',
  'make_rating_fit',
  'make_reward_model',
  'mean_and_std',
  'preference_loss',
  'rating_loss',
  'state_entropy_reward',
]
