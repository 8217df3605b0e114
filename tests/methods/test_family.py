"""Families of runs in one program against plain runs, row by row."""

import jax
import numpy as np
import pytest

from rlfb_jax import envs, methods
from rlfb_jax.core.config import flag_name
from rlfb_jax.methods import family as family_lib
from rlfb_jax.training.loop import seed_keys, train
from tests.methods.probe_runs import make_config

# Between them, the methods take every number that may differ within a family. The
# other value of each lies far enough from its default to show.
PPO = {
  'ppo': {
    'learning_rate': 3e-3,
    'adam_epsilon': 1e-3,
    'discount': 0.8,
    'gae_lambda': 0.5,
    'clip_range': 0.1,
    'value_coefficient': 0.1,
    'max_grad_norm': 0.05,
    'initial_log_std': -1.0,
    'target_kl': 0.01,
  },
}
RATING = {
  'rating': {
    'num_classes': 3,
    'max_return': 2.5,
    'mistake': 0.3,
    'return_noise': 0.2,
    'skip': 0.2,
    'gamma': 0.8,
  },
  'reward': {
    'whiten_clip': 1.0,
    'learning_rate': 3e-3,
    'max_passes': 2,
    'stop_accuracy': 0.5,
    'sharpness': 10.0,
  },
}
KL = {
  'kl': {
    'beta': 1.0,
    'kappa_per_dim': 1.0,
    'shrinkage': 0.4,
    'jitter': 0.1,
    'min_segments': 4,
    'gradient_budget': 0.5,
    'saturation_limit': 0.4,
    'weights': 'reversed',
  },
}
PAIRS = {
  'teacher': {'beta': 0.5, 'gamma': 0.7, 'mistake': 0.2, 'skip': 0.2, 'equal': 0.2},
  'preference': {'label_margin': 0.1},
}
# What lies on the plain side: defaults that switch nothing off.
BASE = {
  'ppo': {'entropy_coefficient': 0.01},
  'sac': {'target_entropy': -0.5},
  'rating': {
    'num_classes': 5,
    'mistake': 0.1,
    'return_noise': 0.05,
    'skip': 0.1,
    'gamma': 0.9,
  },
  'teacher': {'beta': 3.0, 'gamma': 0.9, 'mistake': 0.1, 'skip': 0.1, 'equal': 0.1},
}


# One phase less to compile.
NO_PRETRAINING = {'replay': {'random_steps': 160}}


def merge(*changes):
  merged = {}
  for change in changes:
    for part, values in change.items():
      merged[part] = merged.get(part, {}) | values
  return merged


CASES = {
  'rbrl_kl': merge(
    PPO,
    RATING,
    KL,
    {'ppo': {'entropy_coefficient': 0.1}},
    {'kl': {'approx_kl_gate': 0.01, 'ratio_clip': 1.2}},
  ),
  'rbrl_kl@ddpg': {
    'ddpg': {
      'actor_learning_rate': 1e-3,
      'critic_learning_rate': 1e-3,
      'adam_epsilon': 1e-3,
      'exploration_std': 0.5,
      'tau': 0.05,
    },
    'kl': {'influence_clip': 0.5, 'weights': 'uniform'},
    'rating': {'num_classes': 3},
    'reward': {'aggregation_weight': 0.1},
  },
  'mrn+surf,rune/both': merge(
    PAIRS,
    {
      'sac': {
        'actor_learning_rate': 1e-3,
        'critic_learning_rate': 1e-3,
        'temperature_learning_rate': 1e-2,
        'adam_epsilon': 1e-3,
        'initial_temperature': 0.5,
        'target_entropy': -1.0,
        'tau': 0.05,
      },
      'reward': {'rating_weight': 0.5, 'pair_weight': 2.0},
      'rating': {'num_classes': 3},
      'surf': {'threshold': 0.9, 'unlabelled_weight': 0.3, 'reward_update': 10},
      'rune': {'bonus': 0.5, 'decay': 1e-3},
      'mrn': {'outer_weight': 0.5, 'learning_rate': 1e-3, 'adam_epsilon': 1e-6},
    },
  ),
}
MODES = {
  'rbrl_kl@ddpg': {
    'kl': {'kl_mode': 'influence'},
    'reward': {'aggregation': 'mean_minus_std'},
  },
  'rbrl_kl': {
    'kl': {'kl_mode': 'ratio', 'ratio_form': 'objective'},
    'feedback': {'pretrain_steps': 0},
  },
}


def configs_of(case, steps=480):
  """A plain configuration and one with every number of the case changed."""
  run = {'run': {'total_env_steps': steps}}
  base = merge(BASE, NO_PRETRAINING, MODES.get(case, {}), run)
  return make_config(case, **base), make_config(case, **merge(base, CASES[case]))


def outcome(algorithm, env, rows, config):
  """What was learned, and metrics of every chunk."""
  metrics = []
  trained = train(
    algorithm,
    env,
    rows=rows,
    total_env_steps=config.total_env_steps,
    listeners=(lambda steps, m: metrics.append(m),),
  )
  return trained, metrics


@pytest.mark.parametrize(
  'case',
  # Two programs each: the off-policy ones take most of a minute to compile.
  [c if c == 'rbrl_kl' else pytest.param(c, marks=pytest.mark.slow) for c in CASES],
)
def test_a_row_equals_the_plain_run_of_its_numbers(case):
  # MRN's bi-level step amplifies rounding: policies are 4e-5 apart after the first one
  # and the chunk that follows it, where the run ends.
  amplifies = case.startswith('mrn')
  base, changed = configs_of(case, 400 if amplifies else 480)
  env = envs.make('probe_choice')
  family = methods.make_family([base, changed], env)
  assert set(family.values) == flags_of_case(case)
  keys = seed_keys(3, 2)
  together, metrics = outcome(family.algorithm, env, (keys, family.values), base)
  # The family was built around the first configuration: a number that did not reach
  # its place would show in the second row.
  plain = methods.make(changed, env)
  alone, plain_metrics = outcome(plain, env, keys[1:], changed)
  atol = 1e-4 if amplifies else 2e-5
  assert_row_equals((together, metrics), 1, (alone, plain_metrics), atol)


@pytest.mark.parametrize(
  ('method', 'flag', 'field'),
  [('pebble', 'pair_weight', 'reward'), ('rbrl', 'rating_weight', 'reward')],
)
def test_weights_of_a_kind_that_is_asked_alone_may_differ(method, flag, field):
  env = envs.make('probe_choice')
  plain, other = make_config(method), make_config(method, **{field: {flag: 2.0}})
  family = methods.make_family([plain, other], env)
  assert set(family.values) == {flag_name(field, flag)}
  row = jax.tree.map(lambda x: x[0], family.values)
  jax.eval_shape(family.algorithm.init, (jax.random.key(0), row))
  nothing = make_config(method, **{field: {flag: 0.0}})
  with pytest.raises(ValueError, match=f'{flag}=0 leaves the reward nothing'):
    methods.make(nothing, env)


def test_two_kinds_of_no_weight_are_refused_in_one_sentence():
  weights = {'reward': {'rating_weight': 0.0, 'pair_weight': 0.0}}
  config = make_config('pebble/both', **weights)
  with pytest.raises(ValueError, match=r'rating_weight=0 and --reward_pair_weight=0'):
    methods.make(config, envs.make('probe_choice'))


def assert_row_equals(family, row, plain, atol=2e-5):
  """Policies and metrics of one run; what is told by class beyond its own is NaN."""
  (together, metrics), (alone, plain_metrics) = family, plain
  for ours, theirs in zip(metrics, plain_metrics, strict=True):
    for name in set(theirs) - {'phase', 'wall_seconds', 'steps_per_second'}:
      found, want = np.asarray(ours[name])[row], np.asarray(theirs[name])[0]
      if want.ndim:
        assert np.isnan(found[want.size :]).all()
        found = found[: want.size]
      # A score that lies on its threshold may fall on either side, and is counted.
      counted = name.endswith('accuracy') or name == 'pseudo_label_share'
      near = 0.05 if counted else 2e-4
      np.testing.assert_allclose(found, want, rtol=1e-3, atol=near, err_msg=name)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[row], b[0], rtol=1e-5, atol=atol),
    together.policy,
    alone.policy,
  )


@pytest.mark.parametrize(
  ('method', 'kind'),
  [
    ('rbrl', 'neighbour'),
    # Three programs each.
    pytest.param('rbrl_kl', 'uniform', marks=pytest.mark.slow),
  ],
)
def test_rows_with_other_numbers_of_classes_equal_plain_runs(method, kind):
  classes = (3, 6)
  changes = {
    'rating': {'mistake': 0.2, 'mistake_kind': kind},
    'reward': {'stratified': True, 'class_weights': True, 'sharpness_mode': 'n2'},
    'kl': {'below_median': True, 'min_segments': 2},
    'feedback': {'pretrain_steps': 0},
    'run': {'total_env_steps': 640},
  }
  configs = [
    make_config(method, **merge(changes, {'rating': {'num_classes': n}}))
    for n in classes
  ]
  env = envs.make('probe_choice')
  family = methods.make_family(configs, env)
  keys = seed_keys(3, len(classes))
  together = outcome(family.algorithm, env, (keys, family.values), configs[0])
  _, metrics = together
  counts = [m['class_counts'] for m in metrics if 'class_counts' in m]
  assert np.shape(counts[-1]) == (2, 6)
  for i, config in enumerate(configs):
    alone = outcome(methods.make(config, env), env, keys[i : i + 1], config)
    assert_row_equals(together, i, alone)


def test_weights_of_classes_are_as_long_as_those_of_the_most_classes():
  configs = [make_config('rbrl_kl', rating={'num_classes': n}) for n in (3, 4)]
  env = envs.make('probe_choice')
  values = methods.make_family(configs, env).values
  np.testing.assert_array_equal(values['rating_num_classes'], [3, 4])
  np.testing.assert_array_equal(
    values['kl_weights'], [[1, 0.5, 0, 0, 0], [1, 0.5, 0.25, 0, 0]]
  )
  alike = [make_config('rbrl_kl', rating={'num_classes': 4})] * 2
  assert methods.make_family(alike, env).values == {}
  plain = [make_config('rbrl', rating={'num_classes': n}) for n in (3, 4)]
  assert set(methods.make_family(plain, env).values) == {'rating_num_classes'}


@pytest.mark.parametrize(
  'kl',
  [
    {'weights': 'pooled'},
    {'weights': 'hpml'},
    {'kl_mode': 'heads_unlikelihood'},
    {'kl_mode': 'heads_gaussian'},
  ],
)
def test_where_padding_is_inexact_each_number_of_classes_has_a_program(kl):
  def configs(method):
    return [make_config(method, rating={'num_classes': n}, kl=kl) for n in (3, 4)]

  first, second = map(family_lib.program_of, configs('rbrl_kl'))
  assert first != second
  env = envs.make('probe_choice')
  with pytest.raises(ValueError, match='--rating_num_classes=4 cannot differ'):
    methods.make_family(configs('rbrl_kl'), env)
  # Who is not pushed has no pooled law and no heads.
  first, second = map(family_lib.program_of, configs('rbrl'))
  assert first == second


def flags_of_case(case):
  return {flag_name(part, name) for part, v in CASES[case].items() for name in v}


def test_the_cases_cover_every_number_that_is_declared():
  assert set.union(*map(flags_of_case, CASES)) == set(family_lib.sweepable())


def test_what_switches_a_part_off_has_a_program_of_its_own():
  plain, other = (make_config('rbrl_kl', kl={'beta': b}) for b in (0.1, 0.3))
  off = make_config('rbrl_kl', kl={'beta': 0.0})
  assert family_lib.program_of(plain) == family_lib.program_of(other)
  assert family_lib.program_of(plain) != family_lib.program_of(off)
  env = envs.make('probe_choice')
  with pytest.raises(ValueError, match=r'--kl_beta=0\.0 cannot differ'):
    methods.make_family([plain, off], env)
  wide = make_config('rbrl_kl', reward={'hidden_size': 8})
  with pytest.raises(ValueError, match='--reward_hidden_size=8 cannot differ'):
    methods.make_family([plain, wide], env)


def test_seeds_and_folders_are_no_difference():
  config = make_config('ppo')
  moved = make_config('ppo', run={'seed': 7, 'num_seeds': 3, 'run_dir': 'elsewhere'})
  assert family_lib.program_of(config) == family_lib.program_of(moved)
  assert methods.make_family([config, moved], envs.make('probe_choice')).values == {}
