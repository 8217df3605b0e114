"""The learned reward: ensemble, rating loss, session training, pre-training."""

from rlfb_jax.reward.fit import RatingFit, make_rating_fit
from rlfb_jax.reward.model import RewardModel, RewardModelState, make_reward_model
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.ratings import RatingLoss, rating_loss
from rlfb_jax.reward.state_entropy import (
  StateEntropyState,
  init_state_entropy,
  state_entropy_reward,
)

__all__ = [
  'RatingFit',
  'RatingLoss',
  'RewardModel',
  'RewardModelState',
  'RewardOptions',
  'StateEntropyState',
  'init_state_entropy',
  'make_rating_fit',
  'make_reward_model',
  'rating_loss',
  'state_entropy_reward',
]
