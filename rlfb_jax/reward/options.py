"""Options of the learned reward: network, rating loss and training."""

import dataclasses

from rlfb_jax.core.config import Options, option


@dataclasses.dataclass(frozen=True)
class RewardOptions(Options):
  """What `r_hat` is and how labels train it.

  Network, ensemble, step size, passes and sharpness are those of rating-based
  RL (White et al. 2024, public code `reward_model.py`), the first three also those of
  PEBBLE and PrefPPO (B-Pref), whose `reward_model.py` has the three heads. Whitening,
  midpoints and the least last minibatch are ours.
  """

  ensemble_size: int = option(3, 'Members of the reward ensemble.', low=1)
  hidden_size: int = option(256, 'Width of the hidden layers.', low=1)
  hidden_layers: int = option(3, 'Number of hidden layers.', low=1)
  head: str = option(
    'tanh',
    'Function on the last layer: rewards in (-1, 1), in (0, 1) with sigmoid, not '
    'negative with relu, whose member is stuck once it is 0 everywhere.',
    choices=('tanh', 'sigmoid', 'relu'),
  )
  whiten: bool = option(
    True,
    'Whiten observations by the mean and std of all labelled clips, frozen '
    'between labelling sessions; off feeds raw observations, as PEBBLE does.',
  )
  whiten_clip: float = option(
    10.0, 'Bound on whitened observations.', above=0.0, sweep=True
  )
  aggregation: str = option(
    'mean',
    'What the agent is paid, from the outputs of the members.',
    choices=('mean', 'min', 'mean_minus_std', 'mean_plus_std'),
  )
  aggregation_weight: float = option(
    1.0, 'Factor of the std in mean_minus_std and mean_plus_std.', low=0.0, sweep=True
  )
  standardise: bool | None = option(
    None,
    'Shift and scale each member to mean 0 and std 1 over the labelled steps: the '
    'rating loss fixes a member only up to a positive affine map. None: where ratings '
    'alone pay SAC or DDPG, whose temperature and step sizes count on a scale.',
  )
  learning_rate: float = option(3e-4, 'Adam step size.', above=0.0, sweep=True)
  rating_weight: float = option(
    1.0,
    'Factor of the loss on ratings; with pairs too, what they weigh beside them.',
    low=0.0,
    sweep=True,
  )
  pair_weight: float = option(
    1.0,
    'Factor of the loss on pairs; with ratings too, what they weigh beside them.',
    low=0.0,
    sweep=True,
  )
  max_passes: int = option(
    100, 'Most passes over all labels in one labelling session.', low=1, sweep=True
  )
  minibatch_size: int = option(128, 'Labels of each kind in one gradient step.', low=2)
  stop_accuracy: float = option(
    0.97,
    'A session ends after a pass whose training accuracy, mean over members, '
    'exceeds this.',
    above=0.0,
    high=1.0,
    sweep=True,
  )
  min_ragged: int = option(
    32,
    'Once there is a full minibatch of labels, a last minibatch with fewer '
    'segments than this is dropped: class boundaries are order statistics.',
    low=0,
  )
  stratified: bool = option(
    False, 'Spread every class evenly over the minibatches of a pass (ERL-VLM).'
  )
  loss: str = option(
    'cross_entropy',
    "Loss of the class probabilities; mae is ERL-VLM's, robust to wrong labels.",
    choices=('cross_entropy', 'mae'),
  )
  class_weights: bool = option(
    False, 'Weigh rare classes up, once no class is empty (ERL-VLM).'
  )
  boundaries: str = option(
    'midpoint',
    'Class boundary between two predictions, or on the lower one as in the '
    'public code.',
    choices=('midpoint', 'order_stat'),
  )
  sharpness: float = option(
    30.0, 'k of the class probabilities.', above=0.0, sweep=True
  )
  sharpness_mode: str = option(
    'const',
    'n2 multiplies the sharpness by (n/2)^2, which keeps inner classes as '
    'sharp at n=6 as at n=2.',
    choices=('const', 'n2'),
  )
  seed_batching: str = option(
    'auto',
    'How a session trains several seeds: one after the other (fast on CPU, no '
    'work for seeds that stopped early), in parallel (fast on GPU and TPU), or '
    'auto.',
    choices=('auto', 'sequential', 'parallel'),
  )
