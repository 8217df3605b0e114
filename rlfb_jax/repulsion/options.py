"""Options of the KL repulsion, and their cross-checks."""

import dataclasses

from rlfb_jax.core.config import Options, is_traced, option
from rlfb_jax.core.padding import Count, capacity

MOMENT_MODES = ('pathwise', 'ratio', 'influence', 'logged_only')
HEAD_MODES = ('heads_unlikelihood', 'heads_gaussian')


@dataclasses.dataclass(frozen=True)
class RepulsionOptions(Options):
  """How the policy is pushed away from the classes of badly rated behaviour.

  The paper is "Human-Inspired Multi-Level Reinforcement Learning" (RbRL-KL,
  arXiv 2501.07502); it leaves open how the policy's Gaussian depends on the
  policy, which `kl_mode` decides.
  """

  kl_mode: str = option(
    'pathwise',
    'Where the gradient comes from: pathwise (actions re-sampled through the '
    'policy), ratio (importance weights), heads_unlikelihood and heads_gaussian '
    '(per-state action laws), influence (per-step reward), logged_only (none: '
    'the control arm).',
    choices=MOMENT_MODES[:2] + HEAD_MODES + MOMENT_MODES[2:],
  )
  kl_scope: str = option(
    'conditional',
    'Divergence of actions given states, or of states and actions together. '
    'influence always uses the joint one (leaving bad states is its purpose), head '
    'modes the conditional one.',
    choices=('conditional', 'joint'),
  )
  sigma_grad: bool = option(
    False,
    'Let the repulsion change the policy standard deviation. The literal '
    'gradient: it collapses the entropy.',
  )
  direction: str = option(
    'forward',
    'KL(class || policy), KL(policy || class), or 1 - Bhattacharyya coefficient.',
    choices=('forward', 'reverse', 'bhattacharyya'),
  )
  beta: float = option(
    0.1,
    'Strength of the repulsion, per nat.',
    low=0.0,
    sweep=True,
    apart=lambda v: v == 0,
  )
  bound: str = option(
    'saturating',
    'Shape of the reward for distance: kappa (1 - exp(-KL / kappa)) per class, '
    'the KL itself (paper), or the log of the weighted sum (public code). '
    'heads_unlikelihood is bounded by its own clip instead.',
    choices=('saturating', 'identity', 'logsum'),
  )
  kappa_per_dim: float = option(
    5.0, 'Cap kappa in nats per dimension of the scope.', above=0.0, sweep=True
  )
  weights: str = option(
    'geometric',
    'Class weights: geometric 2^-i (paper), uniform with the same total, pooled '
    '(one Gaussian over all included classes), reversed, hpml (public code).',
    choices=('geometric', 'uniform', 'pooled', 'reversed', 'hpml'),
    sweep=True,
    apart=lambda v: v in ('pooled', 'hpml'),
  )
  include_best: bool = option(False, 'Repel from the best class too, least of all.')
  shuffled_labels: bool = option(
    False, 'Control: permute the ratings among clips before fitting the classes.'
  )
  below_median: bool = option(
    False,
    'Repel only from classes below the median class that the reward model '
    'predicts for the current rollout.',
  )
  statistics_steps: str = option(
    'all',
    'Steps of a rated segment that enter the class Gaussian.',
    choices=('all', 'first_step'),
  )
  shrinkage: float = option(
    0.1,
    'alpha of (1 - alpha) S + alpha I in whitened space, on both sides.',
    low=0.0,
    high=1.0,
    sweep=True,
  )
  jitter: float = option(
    1e-6, 'Added to every covariance diagonal.', low=0.0, sweep=True
  )
  min_segments: int = option(
    8, 'Rated segments that a class needs before it repels.', low=1, sweep=True
  )
  kl_batch: int = option(1024, 'States in one evaluation of the term.', low=2)
  # Within 25 Adam steps at 5e-5 the gradient turns by a cosine of 0.98 to 0.99; two
  # batches of 1024 states agree to 0.83 to 0.96: noise, not age, limits it (medians on
  # the walker; what an evaluation costs is measured there, too:
  # benchmarks/repulsion_cost.py).
  refresh_every: int = option(
    25,
    'Minibatches that share one evaluated repulsion gradient (PPO: at most; the '
    'largest divisor of the minibatches of an epoch); not of influence and of '
    "ratio's shaping, which have none.",
    low=1,
  )
  gradient_budget: float = option(
    0.1,
    'Largest norm of the repulsion gradient over that of the RL loss. At 0.5 actions '
    "still drift to the edge of their range (walker_walk). Of ratio's shaping: largest "
    'deviation over that of the advantages; not of influence.',
    low=0.0,
    sweep=True,
  )
  gradient_budget_reference: str = option(
    'mean',
    'RL gradient that the budget is a share of: the running mean over an epoch (SAC '
    'and DDPG: over 1000 gradient steps) without its noise (what the policy '
    'consistently learns; a budget below 1 leaves some of it), or that of each '
    'minibatch, noise included. Only where there is a repulsion gradient.',
    choices=('mean', 'minibatch'),
  )
  saturation_limit: float = option(
    0.6,
    'The push fades linearly to nothing as the share of saturated actions '
    '(|a| > 0.97) in the rollout rises to this; 1e9 never fades. Not of influence.',
    above=0.0,
    sweep=True,
  )
  approx_kl_gate: float = option(
    0.05,
    'PPO: the term is left out of minibatches on which the approximate '
    'KL(old || new) of the policy exceeds this many nats. Inside the clip (shaping) '
    'and in the reward (influence) it needs no gate.',
    above=0.0,
    sweep=True,
  )
  ratio_form: str = option(
    'shaping',
    'ratio only: shape advantages inside the PPO clip, or add the re-weighted '
    'divergence to the loss.',
    choices=('shaping', 'objective'),
  )
  ratio_clip: float = option(
    2.0, 'ratio only: importance ratios are clipped to [1/c, c].', above=1.0, sweep=True
  )
  influence_clip: float = option(
    5.0,
    'influence only: bound of the per-step influence of a class.',
    above=0.0,
    sweep=True,
  )
  head_states: str = option(
    'class',
    'heads_gaussian only: average over states of the class or of the policy.',
    choices=('class', 'policy'),
  )


def check(options: RepulsionOptions, num_classes: Count) -> None:
  """Cross-checks that need more than one value.

  Raises:
    ValueError: in one sentence, naming the value and what would work.
  """
  if capacity(num_classes) < 2:
    raise ValueError(f'num_classes={num_classes} must be at least 2; try 2.')
  if options.kl_mode in HEAD_MODES and options.direction != 'forward':
    raise ValueError(
      f'kl_mode={options.kl_mode} knows one direction only, not '
      f'{options.direction}; try direction=forward or kl_mode=pathwise.'
    )
  inside = options.kl_mode == 'ratio' and options.ratio_form == 'shaping'
  if options.sigma_grad and (inside or options.kl_mode == 'influence'):
    raise ValueError(
      f'sigma_grad=true does nothing under kl_mode={options.kl_mode}, whose push is no'
      ' gradient of its own; try kl_mode=pathwise.'
    )
  named = not is_traced(options.weights)
  if named and options.weights == 'hpml' and options.include_best:
    raise ValueError(
      'weights=hpml brings its own class set and cannot be joined with '
      'include_best; try weights=geometric.'
    )
  if options.kl_mode == 'heads_unlikelihood' and options.bound == 'logsum':
    raise ValueError(
      'bound=logsum needs a positive divergence, which heads_unlikelihood is '
      'not; try bound=saturating.'
    )
