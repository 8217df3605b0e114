"""What follows from a configuration before anything is built."""

from typing import ClassVar

import pytest

from rlfb_jax import envs
from rlfb_jax.bin import launch
from rlfb_jax.methods import plan


def test_free_memory_is_what_the_system_or_the_device_says(monkeypatch):
  with open('/proc/meminfo') as file:
    facts = dict(line.split(':') for line in file)
  total = 1024 * int(facts['MemTotal'].split()[0])
  assert 0 < plan.memory_available() < total

  class Device:
    platform = 'gpu'
    stats: ClassVar = {'bytes_limit': 100, 'bytes_in_use': 30}

    def memory_stats(self):
      return self.stats

  monkeypatch.setattr(plan.jax, 'local_devices', lambda: [Device()])
  assert plan.memory_available() == 70
  Device.stats = None  # It will not tell.
  assert plan.memory_available() is None


@pytest.mark.parametrize('task', envs.task_names())
def test_the_raters_scale_is_the_tasks_and_follows_the_length_of_a_clip(task):
  scale = {'cheetah_run': 25, 'quadruped_walk': 20, 'quadruped_run': 20}.get(task, 50)
  env = envs.make(task, engine='native', num_threads=1)

  def found(*argv):
    config = launch.parse(['--method=rbrl', f'--task={task}', *argv])
    return plan.segment_return_scale(config, env)

  assert found() == scale
  assert found('--feedback_segment_steps=25') == scale / 2
  # What is given is of the clip itself, however long.
  assert found('--rating_max_return=7', '--feedback_segment_steps=25') == 7


@pytest.mark.parametrize(
  ('argv', 'archive', 'replay'),
  [
    # B-Pref keeps 100 episodes.
    (['--preset=pebble_walker'], (100_000, 1000, 1), 1_000_000),
    (['--preset=pebble_walker', '--replay_num_envs=8'], (13_000, 125, 8), 1_000_000),
    # Whole episodes until the last session.
    (['--preset=rbrl_walker'], (10_000, 500, 32), None),
  ],
)
def test_archive_and_replay_are_as_long_as_they_must_be(argv, archive, replay):
  config = launch.parse(argv)
  env = envs.make('walker_walk', engine='native', num_threads=1)
  assert tuple(plan.archive_shape(config, env)) == archive
  if replay is not None:
    assert plan.replay_capacity(config) == replay


@pytest.mark.parametrize(
  ('argv', 'largest', 'flag'),
  [
    (['--method=sac'], 'replay', '--replay_capacity'),
    (['--method=rbrl'], 'archive', '--feedback_session_interval'),
    (['--method=pref_ppo'], 'archive', '--pairs_session_interval'),
    (['--method=mrn'], 'archive', '--pairs_archive_episodes'),
    (['--method=rbrl'], 'answers', '--feedback_label_budget'),
    (['--method=pebble'], 'answers', '--pairs_label_budget'),
    (['--method=surf'], 'answers', '--surf_unlabelled_per_label'),
  ],
)
def test_a_run_too_large_is_told_what_would_make_it_smaller(argv, largest, flag):
  config = launch.parse(argv)
  needed = plan.Memory(replay=1, archive=1, answers=1)._replace(**{largest: 2**34})
  with pytest.raises(ValueError, match=f'lower --num_seeds or {flag}') as error:
    plan.refuse_beyond(needed, 2**30, config)
  assert '16.0 GiB' in str(error.value)
  plan.refuse_beyond(needed, 2**35, config)
  plan.refuse_beyond(needed, None, config)
