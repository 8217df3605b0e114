"""The configuration of a run: one typed part for each room of the house."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from rlfb_jax.agents.ddpg import DDPGOptions
from rlfb_jax.agents.ppo import PPOOptions
from rlfb_jax.agents.sac import SACOptions
from rlfb_jax.core.config import Options, option
from rlfb_jax.feedback.schedule import PairOptions, ScheduleOptions
from rlfb_jax.feedback.scripted_rater import RaterOptions
from rlfb_jax.feedback.scripted_teacher import TeacherOptions
from rlfb_jax.methods.device_options import DeviceOptions
from rlfb_jax.methods.off_policy_options import ReplayOptions
from rlfb_jax.methods.recipes import AGENTS, METHODS, QUESTIONS, Recipe, resolve
from rlfb_jax.physics.config import PhysicsOptions
from rlfb_jax.repulsion import RepulsionOptions
from rlfb_jax.reward.meta_options import MetaOptions
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.preferences import PreferenceLossOptions
from rlfb_jax.reward.semi_supervised import SurfOptions

# Lengths of the published runs.
_PUBLISHED_STEPS = MappingProxyType(
  {'ppo': 4_000_000, 'sac': 1_000_000, 'ddpg': 1_000_000}
)


# Flags that say where and how a run is kept, and change no bit of it.
HOUSEKEEPING = (
  'run_dir',
  'resume',
  'checkpoint_minutes',
  'checkpoint_interval',
  'checkpoints_kept',
  'stop_seconds',
  'tensorboard',
  'num_threads',
)


@dataclasses.dataclass(frozen=True)
class RunOptions(DeviceOptions, PhysicsOptions):
  """What to run, how long, and where to leave it."""

  method: str = option(
    'rbrl_kl',
    'What learns. On the true reward: ppo, sac, ddpg. From ratings: rbrl, rbrl_kl '
    '(pushed away from badly rated behaviour). From pairs: pref_ppo, pebble, surf '
    '(pseudo-labels), rune (curiosity), mrn (bi-level).',
    choices=METHODS,
  )
  agent: str = option('', "Agent in place of the method's own.", choices=('', *AGENTS))
  ask: str = option(
    '', "What people are asked in place of the method's own.", choices=('', *QUESTIONS)
  )
  add: str = option(
    '', "Added to the method's own, joined by commas: kl, surf, rune, mrn."
  )
  task: str = option('walker_walk', 'Task, e.g. walker_walk.')
  num_seeds: int = option(1, 'Seeds trained together in one program.', low=1)
  seed: int = option(0, 'First seed; the others follow it.', low=0)
  total_env_steps: int = option(
    0,
    'Environment steps of each seed, over all environments; 0 for the published '
    '4,000,000 of PPO or 1,000,000 of SAC and DDPG.',
    low=0,
  )
  updates_per_step: float = option(
    1.0,
    'Gradient steps of SAC or DDPG per environment step, summed over environments.',
    above=0.0,
  )
  eval_episodes: int = option(
    10,
    'Episodes of each deterministic evaluation, at the end and on the way; 0 for none.',
    low=0,
  )
  eval_interval: int = option(
    0,
    'Environment steps between evaluations on the way (B-Pref: 10000); rounded up to '
    'whole chunks, 0 for none.',
    low=0,
  )
  run_dir: str = option('', 'Folder of the run; by default a new one in runs/.')
  resume: bool = option(
    False, 'Go on with the run in run_dir, to the same bits; start it if there is none.'
  )
  checkpoint_minutes: float | None = option(
    5.0,
    'A checkpoint once so many minutes have passed; 0: after every session, event, '
    'chunk and diagnosis, none: not by time.',
    low=0.0,
  )
  checkpoint_interval: int = option(
    0,
    'Environment steps of each seed between checkpoints beside those; 0 for none.',
    low=0,
  )
  checkpoints_kept: int = option(
    2, 'Newest checkpoints that are kept, beside the best one.', low=1
  )
  stop_seconds: float = option(
    20.0,
    'After SIGTERM or Ctrl-C, seconds for the running program to end; the run leaves '
    'one that takes longer, and saves after each of those.',
    low=0.0,
  )
  tensorboard: bool = option(True, 'Write TensorBoard events beside metrics.jsonl.')


@dataclasses.dataclass(frozen=True)
class PretrainOptions(Options):
  """Unsupervised pre-training by state entropy; its length is the schedule's."""

  num_epochs: int = option(50, 'PPO epochs per rollout in pre-training.', low=1)
  neighbours: int = option(
    5, 'The novelty of a state is its distance to this nearest neighbour.', low=1
  )


@dataclasses.dataclass(frozen=True)
class RuneOptions(Options):
  """The curiosity bonus of RUNE (Liang et al. 2022, `sac_explore.py`).

  The agent is paid the ensemble's mean and `bonus (1 - decay)^t` times its standard
  deviation, t counting environment steps from the start of the run.
  """

  bonus: float = option(
    0.05,
    'Factor of the std at the first step; with PrefPPO 0.01, and decay=0.',
    low=0.0,
    sweep=True,
  )
  decay: float = option(
    1e-5,
    'Share of the factor that is lost at each step.',
    low=0.0,
    below=1.0,
    sweep=True,
  )


@dataclasses.dataclass(frozen=True)
class Config:
  """All parts.

  Attributes:
    run: what, how long, where.
    ppo: the on-policy agent.
    sac: an off-policy agent.
    ddpg: another.
    replay: how off-policy agents collect.
    rating: the scripted rater.
    feedback: when ratings are asked for, and for what.
    teacher: the scripted teacher of pairs.
    pairs: when pairs are asked about, and which.
    reward: the learned reward.
    preference: how an answer about a pair becomes a target.
    surf: pseudo-labels.
    rune: curiosity.
    mrn: the bi-level step.
    pretrain: exploration before the first question.
    kl: the repulsion.
  """

  run: RunOptions = RunOptions()
  ppo: PPOOptions = PPOOptions()
  sac: SACOptions = SACOptions()
  ddpg: DDPGOptions = DDPGOptions()
  replay: ReplayOptions = ReplayOptions()
  rating: RaterOptions = RaterOptions()
  feedback: ScheduleOptions = ScheduleOptions()
  teacher: TeacherOptions = TeacherOptions()
  pairs: PairOptions = PairOptions()
  reward: RewardOptions = RewardOptions()
  preference: PreferenceLossOptions = PreferenceLossOptions()
  surf: SurfOptions = SurfOptions()
  rune: RuneOptions = RuneOptions()
  mrn: MetaOptions = MetaOptions()
  pretrain: PretrainOptions = PretrainOptions()
  kl: RepulsionOptions = RepulsionOptions()

  @property
  def recipe(self) -> Recipe:
    """What the method is made of.

    Raises:
      ValueError: where its ingredients do not go together.
    """
    run = self.run
    return resolve(run.method, run.agent, run.ask, run.add)

  @property
  def total_env_steps(self) -> int:
    """Length of the run."""
    return self.run.total_env_steps or _PUBLISHED_STEPS[self.recipe.agent]


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
