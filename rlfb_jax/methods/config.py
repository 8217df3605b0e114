"""The configuration of a run: one typed part for each room of the house."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from rlfb_jax.agents.ppo import PPOOptions
from rlfb_jax.core.config import Options, option
from rlfb_jax.feedback.raters import RaterOptions
from rlfb_jax.feedback.schedule import ScheduleOptions
from rlfb_jax.physics.config import PhysicsOptions
from rlfb_jax.repulsion import RepulsionOptions
from rlfb_jax.reward.options import RewardOptions

METHODS = ('ppo', 'rbrl', 'rbrl_kl')


@dataclasses.dataclass(frozen=True)
class RunOptions(PhysicsOptions):
  """What to run, how long, and where to leave it."""

  method: str = option(
    'rbrl_kl',
    'What learns: ppo (on the true reward), rbrl (from ratings), rbrl_kl (from '
    'ratings, and pushed away from badly rated behaviour).',
    choices=METHODS,
  )
  task: str = option('walker_walk', 'Task, e.g. walker_walk.')
  num_seeds: int = option(1, 'Seeds trained together in one program.', low=1)
  seed: int = option(0, 'First seed; the others follow it.', low=0)
  total_env_steps: int = option(
    4_000_000, 'Environment steps of each seed, over all environments.', low=1
  )
  eval_episodes: int = option(
    10, 'Episodes of the deterministic evaluation at the end; 0 for none.', low=0
  )
  run_dir: str = option('', 'Folder of the run; by default a new one in runs/.')
  tensorboard: bool = option(True, 'Write TensorBoard events beside metrics.jsonl.')


@dataclasses.dataclass(frozen=True)
class PretrainOptions(Options):
  """Unsupervised pre-training by state entropy; its length is the schedule's."""

  num_epochs: int = option(50, 'PPO epochs per rollout in pre-training.', low=1)
  neighbours: int = option(
    5, 'The novelty of a state is its distance to this nearest neighbour.', low=1
  )


@dataclasses.dataclass(frozen=True)
class Config:
  """All parts.

  Attributes:
    run: what, how long, where.
    ppo: the agent.
    rating: the scripted rater.
    feedback: when and what is asked.
    reward: the learned reward.
    pretrain: exploration before the first question.
    kl: the repulsion of `rbrl_kl`.
  """

  run: RunOptions = RunOptions()
  ppo: PPOOptions = PPOOptions()
  rating: RaterOptions = RaterOptions()
  feedback: ScheduleOptions = ScheduleOptions()
  reward: RewardOptions = RewardOptions()
  pretrain: PretrainOptions = PretrainOptions()
  kl: RepulsionOptions = RepulsionOptions()


def from_sections(sections: Mapping[str, Options]) -> Config:
  """The configuration from parts keyed as in `SECTIONS`."""
  return Config(**{name or 'run': part for name, part in sections.items()})  # type: ignore[arg-type]


def to_sections(config: Config) -> dict[str, Options]:
  """The parts keyed as in `SECTIONS`."""
  names = [field.name for field in dataclasses.fields(config)]
  return {'' if n == 'run' else n: getattr(config, n) for n in names}


# Prefix of a part's flags -> the part; `run` has none.
SECTIONS: Mapping[str, type[Options]] = MappingProxyType(
  {name: type(part) for name, part in to_sections(Config()).items()}
)
