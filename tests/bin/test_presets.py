"""Every packaged preset is a configuration that runs, and says what it claims."""

import pytest

from rlfb_jax import methods
from rlfb_jax.bin import flags, launch
from rlfb_jax.feedback.schedule import label_schedule
from rlfb_jax.feedback.scripted_teacher import TeacherOptions
from rlfb_jax.repulsion import RepulsionOptions
from rlfb_jax.training.run import make_environment


@pytest.mark.parametrize('name', flags.presets())
def test_every_preset_passes_all_checks(name):
  config = launch.parse([f'--preset={name}'])
  methods.check(config, make_environment(config))


@pytest.mark.parametrize(
  ('name', 'kl'),
  [
    (
      'paper_literal',
      RepulsionOptions(
        kl_scope='joint',
        bound='identity',
        beta=1.0,
        shrinkage=1e-3,
        sigma_grad=True,
        gradient_budget=1e9,
        gradient_budget_reference='minibatch',
        saturation_limit=1e9,
        approx_kl_gate=1e9,
      ),
    ),
    (
      'hpml_code',
      RepulsionOptions(
        kl_mode='logged_only',
        kl_scope='joint',
        bound='logsum',
        beta=1.0,
        shrinkage=0.0,
        jitter=1e-6,
        weights='hpml',
        statistics_steps='first_step',
        min_segments=7,
      ),
    ),
  ],
)
def test_published_variants_of_the_repulsion(name, kl):
  config = launch.parse([f'--preset={name}'])
  assert config.kl == kl
  assert config.run.method == 'rbrl_kl'


@pytest.mark.parametrize('method', ['ppo', 'rbrl', 'rbrl_kl'])
def test_a_methods_preset_changes_nothing_else(method):
  assert launch.parse([f'--preset={method}']) == launch.parse([f'--method={method}'])


def test_controls_differ_from_rbrl_kl_in_the_repulsion_alone():
  standard = launch.parse(['--preset=rbrl_kl'])
  for name in ('logged_only', 'shuffled_labels', 'uniform_weights', 'reversed_weights'):
    control = launch.parse([f'--preset={name}'])
    assert control.kl != standard.kl
    assert (control.run, control.ppo, control.reward, control.feedback) == (
      standard.run,
      standard.ppo,
      standard.reward,
      standard.feedback,
    )


@pytest.mark.parametrize(
  ('name', 'task', 'size', 'later'),
  [
    ('rbrl_walker', 'walker_walk', 100, 'disagreement_raw'),
    ('rbrl_quadruped', 'quadruped_walk', 200, 'uniform'),
  ],
)
def test_published_sessions_of_ratings_fire_every_32000_steps(name, task, size, later):
  config = launch.parse([f'--preset={name}'])
  assert config.run.task == task
  assert config.total_env_steps == 4_000_000
  sessions = label_schedule(
    config.feedback,
    total_env_steps=4_000_000,
    chunk_env_steps=config.ppo.steps_per_iteration,
    episode_env_steps=config.ppo.num_envs * 1000,
  )
  assert [s.env_steps for s in sessions] == [32_000 * i for i in range(1, 11)]
  assert [s.num_labels for s in sessions] == [size] * 10
  assert [s.asked for s in sessions] == [size * i for i in range(1, 11)]
  assert [s.query for s in sessions] == ['uniform'] + [later] * 9


SAC_WALKER = {
  'sac_actor_learning_rate': '0.0005',
  'sac_critic_learning_rate': '0.0005',
  'sac_temperature_learning_rate': '0.0001',
  'sac_hidden_size': '1024',
  'sac_hidden_layers': '2',
  'sac_batch_size': '1024',
  'replay_num_envs': '1',
  'updates_per_step': '1.0',
  'eval_interval': '10000',
  'eval_episodes': '10',
}
SAC_QUADRUPED = SAC_WALKER | {
  'sac_actor_learning_rate': '0.0001',
  'sac_critic_learning_rate': '0.0001',
}
# Of the scripts of B-Pref, PEBBLE and SURF.
PEBBLE = {
  'replay_random_steps': '1000',
  'pairs_pretrain_steps': '10000',
  'pairs_segment_steps': '50',
  'pairs_query': 'disagreement',
  'pairs_large_batch': '10',
  'replay_catch_up_updates': '100',
  'reward_ensemble_size': '3',
  'reward_learning_rate': '0.0003',
  'reward_whiten': 'false',
  'reward_max_passes': '50',
  'reward_stop_accuracy': '0.97',
  'teacher_beta': '-1.0',
}


def labels(budget, per_session, interval):
  return {
    'pairs_label_budget': str(budget),
    'pairs_labels_per_session': str(per_session),
    'pairs_session_interval': str(interval),
  }


FEW = SAC_WALKER | PEBBLE | labels(100, 10, 20_000)
MANY = SAC_QUADRUPED | PEBBLE | labels(1000, 100, 30_000)
SURF = {
  'method': 'surf',
  'surf_threshold': '0.99',
  'surf_unlabelled_weight': '1.0',
  'surf_unlabelled_ratio': '4',
  'surf_unlabelled_per_label': '100',
  'surf_reward_update': '1000',
  'surf_margin': '5',
  'surf_crop': '5',
}
RUNE = {'method': 'rune', 'rune_bonus': '0.05', 'rune_decay': '1e-05'}
MRN = {'method': 'mrn', 'mrn_outer_weight': '0.1', 'mrn_zero_gradient': 'false'}
METAWORLD = PEBBLE | {
  'method': 'pebble',
  'sac_hidden_size': '256',
  'sac_hidden_layers': '3',
  'sac_batch_size': '512',
  'sac_actor_learning_rate': '0.0003',
  'sac_critic_learning_rate': '0.0003',
  'sac_temperature_learning_rate': '0.0001',
  'reward_max_passes': '10',
  'pairs_session_interval': '5000',
}
MRN_CODE = {
  'mrn_replaces_update': 'true',
  'reward_whiten': 'false',
  'reward_max_passes': '50',
  'mrn_optimiser': 'shared_adam',
  'mrn_outer_batch': 'last',
  'mrn_outer_batch_size': '0',
  'mrn_time_limits_terminal': 'true',
  'mrn_stop_with_budget': 'true',
  'teacher_square_thresholds': 'true',
  'preference_equal_as_first': 'true',
}
RBRL = {
  'method': 'rbrl',
  'ppo_rollout_steps': '500',
  'ppo_learning_rate': '5e-05',
  'ppo_learning_rate_decay': 'false',
  'ppo_num_epochs': '20',
  'ppo_clip_range': '0.4',
  'ppo_clip_decay': 'true',
  'ppo_discount': '0.99',
  'ppo_value_coefficient': '0.5',
  'ppo_entropy_coefficient': '0.0',
  'ppo_max_grad_norm': '0.5',
  'ppo_hidden_size': '256',
  'ppo_hidden_layers': '3',
  'ppo_noise_steps': '4',
  'ppo_time_limits_terminal': 'false',
  'rating_num_classes': '4',
  'reward_ensemble_size': '3',
  'reward_sharpness': '30.0',
  'reward_learning_rate': '0.0003',
  'reward_stop_accuracy': '0.97',
  'reward_boundaries': 'order_stat',
  'feedback_segment_steps': '50',
  'feedback_pretrain_steps': '32000',
}
PREF_PPO = {
  'method': 'pref_ppo',
  'ppo_rollout_steps': '500',
  'ppo_learning_rate': '5e-05',
  'ppo_num_epochs': '20',
  'ppo_clip_range': '0.4',
  'ppo_clip_decay': 'true',
  'ppo_noise_steps': '4',
  'ppo_time_limits_terminal': 'false',
  'ppo_hidden_size': '256',
  'ppo_hidden_layers': '3',
  'pairs_pretrain_steps': '32000',
  'pretrain_num_epochs': '50',
  'reward_whiten': 'true',
  'reward_max_passes': '100',
  'reward_stop_accuracy': '0.97',
}


@pytest.mark.parametrize(
  ('name', 'task', 'wanted'),
  [
    ('sac', '', SAC_WALKER | {'method': 'sac', 'replay_random_steps': '5000'}),
    ('sac_quadruped', 'quadruped_walk', SAC_QUADRUPED | {'method': 'sac'}),
    ('ddpg', '', {'method': 'ddpg', 'replay_random_steps': '5000'}),
    ('pebble', '', PEBBLE | {'method': 'pebble'}),
    ('pebble_walker', 'walker_walk', FEW | {'method': 'pebble'}),
    ('pebble_cheetah', 'cheetah_run', FEW | {'method': 'pebble'}),
    ('pebble_quadruped', 'quadruped_walk', MANY | {'method': 'pebble'}),
    ('metaworld', '', METAWORLD),
    ('surf_walker', 'walker_walk', FEW | SURF | {'total_env_steps': '500000'}),
    ('surf_cheetah', 'cheetah_run', FEW | SURF | {'surf_threshold': '0.999'}),
    ('surf_quadruped', 'quadruped_walk', MANY | SURF),
    ('rune_walker', 'walker_walk', FEW | RUNE),
    ('rune_cheetah', 'cheetah_run', FEW | RUNE),
    ('rune_quadruped', 'quadruped_walk', MANY | RUNE),
    ('mrn_walker', 'walker_walk', FEW | MRN | {'mrn_interval': '1000'}),
    ('mrn_cheetah', 'cheetah_run', FEW | MRN | {'mrn_interval': '5000'}),
    (
      'mrn_quadruped',
      'quadruped_walk',
      MANY | MRN | labels(700, 70, 30_000) | {'mrn_interval': '3000'},
    ),
    ('mrn_walker+mrn_code', 'walker_walk', FEW | MRN | MRN_CODE),
    ('mrn_walker+mrn_zero', 'walker_walk', FEW | MRN | {'mrn_zero_gradient': 'true'}),
    (
      'mrn_cheetah+mrn_zero',
      'cheetah_run',
      FEW | MRN | {'mrn_interval': '5000', 'mrn_zero_gradient': 'true'},
    ),
    (
      'rbrl_walker',
      'walker_walk',
      RBRL
      | {
        'ppo_num_envs': '32',
        'ppo_minibatch_size': '64',
        'ppo_gae_lambda': '0.92',
        'feedback_label_budget': '1000',
        'feedback_query': 'disagreement_raw',
        'rating_max_return': '0.0',
      },
    ),
    (
      'rbrl_quadruped',
      'quadruped_walk',
      RBRL
      | {
        'ppo_num_envs': '16',
        'ppo_gae_lambda': '0.9',
        'feedback_label_budget': '2000',
        'feedback_query': 'uniform',
      },
    ),
    (
      'erl_vlm',
      '',
      {
        'method': 'rbrl',
        'rating_num_classes': '3',
        'reward_loss': 'mae',
        'reward_class_weights': 'true',
        'reward_stratified': 'true',
      },
    ),
    ('kl_ratio', '', {'method': 'rbrl_kl', 'kl_mode': 'ratio'}),
    ('kl_heads', '', {'method': 'rbrl_kl', 'kl_mode': 'heads_unlikelihood'}),
    ('kl_influence', '', {'method': 'rbrl_kl', 'kl_mode': 'influence'}),
    ('logged_only', '', {'kl_mode': 'logged_only'}),
    ('shuffled_labels', '', {'kl_shuffled_labels': 'true'}),
    ('uniform_weights', '', {'kl_weights': 'uniform'}),
    ('pooled_weights', '', {'kl_weights': 'pooled'}),
    ('reversed_weights', '', {'kl_weights': 'reversed'}),
    (
      'pref_ppo_walker',
      'walker_walk',
      PREF_PPO
      | labels(500, 50, 16_000)
      | {
        'ppo_num_envs': '32',
        'ppo_minibatch_size': '64',
        'ppo_gae_lambda': '0.92',
      },
    ),
    (
      'pref_ppo_quadruped',
      'quadruped_walk',
      PREF_PPO
      | labels(1000, 100, 16_000)
      | {
        'ppo_num_envs': '16',
        'ppo_minibatch_size': '125',
        'ppo_gae_lambda': '0.9',
      },
    ),
  ],
)
def test_presets_hold_what_was_published(name, task, wanted):
  presets = [f'--preset={part}' for part in name.split('+')]
  found = launch.flag_values(launch.parse(presets))
  assert {flag: found[flag] for flag in wanted} == wanted
  if task:
    assert found['task'] == task


@pytest.mark.parametrize(
  ('name', 'beta', 'gamma', 'mistake', 'skip', 'equal'),
  [
    ('pebble_walker', -1, 1, 0, 0, 0),
    ('teacher_mistake', -1, 1, 0.1, 0, 0),
    ('teacher_noisy', 1, 1, 0, 0, 0),
    ('teacher_skip', -1, 1, 0, 0.1, 0),
    ('teacher_myopic', -1, 0.9, 0, 0, 0),
    ('teacher_equal', -1, 1, 0, 0, 0.1),
  ],
)
def test_teachers_are_b_prefs(name, beta, gamma, mistake, skip, equal):
  with_method = launch.parse(['--preset=pebble_walker', f'--preset={name}'])
  assert with_method.run.method == 'pebble'
  assert with_method.teacher == TeacherOptions(
    beta=beta, gamma=gamma, mistake=mistake, skip=skip, equal=equal
  )
