"""Cross-checks before anything is built: sentences that name what would work."""

from rlfb_jax.core.config import is_traced
from rlfb_jax.core.suggest import check_known
from rlfb_jax.envs.base import Environment
from rlfb_jax.methods import plan
from rlfb_jax.methods.config import METHODS, Config
from rlfb_jax.methods.intervene_off_policy import check_mode
from rlfb_jax.methods.off_policy_options import updates_per_iteration
from rlfb_jax.methods.recipes import KL, MRN, RUNE, SURF
from rlfb_jax.repulsion.options import check as check_repulsion
from rlfb_jax.reward.meta_options import is_due


def check(config: Config, env: Environment) -> None:
  """Cross-checks before anything is built.

  Raises:
    ValueError: naming the value, the rule and the nearest value that works.
  """
  check_known('--method', config.run.method, METHODS)
  recipe = config.recipe
  chunk, total = plan.chunk_env_steps(config, env), config.total_env_steps
  if total % chunk:
    nearest = max(round(total / chunk) * chunk, plan.shortest_run(config, env))
    raise ValueError(
      f'--total_env_steps={total} must be a multiple of {chunk}, the environment steps'
      f' between two visits of the host; try --total_env_steps={nearest}.'
    )
  if recipe.replays:
    updates_per_iteration(config.run.updates_per_step, config.replay.num_envs)
  if not recipe.ask:
    return
  if recipe.rates:
    _check_segment('feedback', config.feedback.segment_steps, env)
    plan.segment_return_scale(config, env)
  if recipe.compares:
    _check_segment('pairs', config.pairs.segment_steps, env)
    stored = config.pairs.segment_steps + 2 * config.surf.margin
    if SURF in recipe.add and stored > env.episode_length:
      raise ValueError(
        f'--surf_margin={config.surf.margin} on both sides of clips of'
        f' {config.pairs.segment_steps} steps must not exceed the'
        f' {env.episode_length} steps of an episode of {env.name}.'
      )
  _check_first_session(config, env)
  if KL in recipe.add:
    check_repulsion(config.kl, config.rating.num_classes)
    if recipe.replays:
      check_mode(config.kl)
    _check_gate(config)
  _check_parts(config, env)


def _check_first_session(config: Config, env: Environment) -> None:
  """There must be something to show, and somebody who acts on the answers."""
  recipe = config.recipe
  first = plan.first_session(config, env)
  longest = max(options.segment_steps for options in plan.timetables(config))
  if SURF in recipe.add:
    longest = max(longest, config.pairs.segment_steps + 2 * config.surf.margin)
  steps = first // plan.num_envs(config)
  if steps < longest:
    needed = longest * plan.num_envs(config)
    kinds = zip(('feedback', 'pairs'), plan.sessions(config, env), strict=True)
    early = [
      f'--{section}_pretrain_steps={needed}'
      for section, kind in kinds
      if kind and kind[0].env_steps == first
    ]
    raise ValueError(
      f'The first labels are asked for after {first} environment steps, {steps} in each'
      f' environment, and clips need {longest}; try {" with ".join(early)} or more.'
    )
  if recipe.replays and config.replay.random_steps > first:
    raise ValueError(
      f'--replay_random_steps={config.replay.random_steps} go on after the first labels'
      f' at {first} environment steps, which nobody would act on; try'
      f' --replay_random_steps={first} or less.'
    )


def _check_gate(config: Config) -> None:
  length = config.feedback.segment_steps
  steps, remedy = config.ppo.rollout_steps, f'--ppo_rollout_steps={length}'
  if config.recipe.replays:
    num_envs = config.replay.num_envs
    steps = config.replay.chunk_steps // num_envs
    remedy = f'--replay_chunk_steps={length * num_envs}'
  if config.kl.below_median and steps < length:
    raise ValueError(
      f'--kl_below_median rates the newest {steps} steps of each environment in pieces'
      f' of {length}, of which there is none; try {remedy} or more.'
    )


def _check_parts(config: Config, env: Environment) -> None:
  """Parts that would do nothing, or something else than their name says."""
  recipe, reward = config.recipe, config.reward
  asked = {'rating_weight': recipe.rates, 'pair_weight': recipe.compares}
  weights = {f: getattr(reward, f) for f, is_asked in asked.items() if is_asked}
  if not any(is_traced(weight) or weight for weight in weights.values()):
    none = ' and '.join(f'--reward_{flag}=0' for flag in weights)
    raise ValueError(
      f'{none} leaves the reward nothing to learn from, as nothing else is asked for;'
      f' try --reward_{next(iter(weights))}=1.'
    )
  for kind, timetable, flag in (
    (recipe.rates, config.feedback, 'feedback'),
    (recipe.compares, config.pairs, 'pairs'),
  ):
    if kind and 'disagreement' in timetable.query and reward.ensemble_size < 2:
      raise ValueError(
        f'--reward_ensemble_size={reward.ensemble_size} cannot disagree, and'
        f' --{flag}_query={timetable.query} asks where members do; try'
        f' --reward_ensemble_size=3, or --{flag}_query=uniform.'
      )
  if RUNE in recipe.add and reward.ensemble_size < 2:
    raise ValueError(
      f'--reward_ensemble_size={reward.ensemble_size} cannot disagree, and RUNE pays'
      ' for disagreement; try --reward_ensemble_size=3.'
    )
  if RUNE in recipe.add and reward.aggregation == 'mean_plus_std':
    raise ValueError(
      '--reward_aggregation=mean_plus_std and RUNE would pay for the same disagreement'
      ' twice; take --reward_aggregation=mean.'
    )
  if RUNE in recipe.add and reward.aggregation == 'mean_minus_std':
    raise ValueError(
      '--reward_aggregation=mean_minus_std would charge for the same disagreement that'
      ' RUNE pays for; take --reward_aggregation=mean.'
    )
  if SURF in recipe.add and config.surf.crop >= config.pairs.segment_steps:
    raise ValueError(
      f'--surf_crop={config.surf.crop} must be less than'
      f' --pairs_segment_steps={config.pairs.segment_steps}, or nothing may be left.'
    )
  if MRN not in recipe.add:
    return
  chunk, interval = plan.chunk_env_steps(config, env), config.mrn.interval
  if interval % chunk:
    nearest = max(1, round(interval / chunk)) * chunk
    raise ValueError(
      f'--mrn_interval={interval} must be a multiple of --replay_chunk_steps={chunk};'
      f' try {nearest}.'
    )
  updates = config.run.updates_per_step * chunk
  if config.mrn.replaces_update and updates < 2:
    raise ValueError(
      f'--mrn_replaces_update=true would leave a chunk of {chunk} steps no update; try'
      f' --replay_chunk_steps={2 * chunk}, or --mrn_replaces_update=false.'
    )
  for flag in ('outer_weight', 'learning_rate'):
    used = flag == 'outer_weight' or config.mrn.optimiser != 'shared_adam'
    value = getattr(config.mrn, flag)
    if used and not is_traced(value) and not value:
      raise ValueError(
        f'--mrn_{flag}=0 leaves nothing of the outer step; take --method=pebble, or'
        ' --preset=mrn_zero for the control.'
      )
  first = plan.first_session(config, env)
  spent_at = plan.budget_spent_at(config, env)
  times = range(0, config.total_env_steps, interval)
  if not any(is_due(config.mrn, t, first, spent_at) for t in times):
    end = spent_at or config.total_env_steps
    kinds = ['feedback'] * recipe.rates + ['pairs'] * recipe.compares
    flags = ' or '.join(f'--{kind}_labels_per_session' for kind in kinds)
    remedy = f'ask in more sessions ({flags})'
    if end - first > chunk:
      remedy = f'try --mrn_interval={chunk}'
    raise ValueError(
      f'With --mrn_interval={interval} and labels from {first} to {end} environment'
      f' steps no bi-level step would be taken; {remedy}, or set'
      ' --mrn_stop_with_budget=false.'
    )


def _check_segment(section: str, steps: int, env: Environment) -> None:
  if steps > env.episode_length:
    raise ValueError(
      f'--{section}_segment_steps={steps} must not exceed the {env.episode_length}'
      f' steps of an episode of {env.name}.'
    )
