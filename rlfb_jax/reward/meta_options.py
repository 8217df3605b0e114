"""When and how the reward is trained through the critics (MRN)."""

import dataclasses

from rlfb_jax.core.config import Options, option


@dataclasses.dataclass(frozen=True)
class MetaOptions(Options):
  """Meta-Reward-Net's bi-level step (Liu et al. 2022).

  Defaults are those of the released code (`train_MRN.py`, `agent/sac.py`) for
  walker_walk, except for what cannot be meant: pairs called equal have the target
  one half, labels that do not exist yet are not read, and the outer step has an Adam
  of its own. With the one it shares there, r_hat moves half to all of the way when the
  outer gradient is set to zero: what moves it is the momentum of the supervised fit,
  whose gradients are 110 to 3,000 times as large (`experiments/outer_step.py`).
  """

  interval: int = option(
    1000,
    'Environment steps between bi-level steps, N (cheetah_run 5000, quadruped_walk '
    '3000).',
    low=1,
  )
  outer_weight: float = option(0.1, 'Factor of the outer loss.', low=0.0, sweep=True)
  optimiser: str = option(
    'own_adam',
    "What takes the outer step: the supervised fit's own Adam, moments included, as "
    'released; an Adam of its own; or plain gradient descent, as in the paper.',
    choices=('shared_adam', 'own_adam', 'sgd'),
  )
  learning_rate: float = option(
    1e-4,
    'Step size of own_adam and sgd. At 3e-4 an outer step on ten labels moves r_hat by '
    '12 to 90 % of its own spread, at 1e-4 by 10 to 24 %.',
    low=0.0,
    sweep=True,
  )
  adam_epsilon: float = option(
    1e-15,
    'Epsilon of own_adam; outer gradients are often below the usual 1e-8.',
    above=0.0,
    sweep=True,
  )
  outer_batch: str = option(
    'last',
    'Labels in the outer loss: the most recent ones (released code), or a sample of '
    'all (paper).',
    choices=('last', 'sample'),
  )
  outer_batch_size: int = option(
    0, 'Labels of each kind in the outer loss; 0 for as many as in a session.', low=0
  )
  time_limits_terminal: bool = option(
    True,
    'In a bi-level step, time limits end the return, as released; elsewhere they '
    'never do.',
  )
  stop_with_budget: bool = option(
    True, 'No bi-level step once all labels are asked for (released code).'
  )
  replaces_update: bool = option(
    False,
    'A bi-level step, which updates the agent, too, takes the place of an ordinary '
    'update (released code) or comes beside it.',
  )
  zero_gradient: bool = option(
    False,
    'Control: set the outer gradient to zero. With shared_adam the momentum of the '
    'supervised fit still moves the ensemble.',
  )
  closed_form: bool = option(
    True, 'Outer gradient in closed form, or by automatic differentiation (same).'
  )
  measure_supervised: bool = option(
    True,
    'Report the supervised gradient on the same labels beside the outer one; the '
    'dearer part of a step where critics are small.',
  )


def is_due(
  options: MetaOptions, env_steps: int, first_session: int, spent_at: int | None
) -> bool:
  """Whether a bi-level step comes before the updates at `env_steps`, on the host.

  Args:
    options: interval and whether it stops with the budget.
    env_steps: environment steps taken.
    first_session: when the first labels were asked for.
    spent_at: when the last labels of the budget are asked for; the bi-level step that
      would follow that session finds the budget spent. None if the run ends before.
  """
  begun = env_steps > first_session and env_steps % options.interval == 0
  spent = spent_at is not None and env_steps >= spent_at
  return begun and not (spent and options.stop_with_budget)
