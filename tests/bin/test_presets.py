"""Every packaged preset is a configuration that runs, and says what it claims."""

import pytest

from rlfb_jax import methods
from rlfb_jax.bin import flags, launch
from rlfb_jax.feedback.schedule import label_schedule
from rlfb_jax.feedback.teachers import TeacherOptions
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
