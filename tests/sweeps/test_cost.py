"""Expected times, shares and the words for them."""

import numpy as np
import pytest

from rlfb_jax.bin import launch
from rlfb_jax.sweeps import cost, table
from rlfb_jax.sweeps.cost import Estimate
from rlfb_jax.sweeps.folder import State
from tests.sweeps.tiny import BASE, jobs_of


@pytest.mark.parametrize(
  ('flags', 'measured'),
  [
    # README, two cores: 104 ms an update of SAC, 64 of DDPG, 5,454 steps/s of PPO.
    (['--method=sac', '--total_env_steps=1000'], 104.0),
    (['--method=ddpg', '--total_env_steps=1000'], 64.0),
    (['--method=ppo', '--total_env_steps=320000'], 320000 / 5454),
  ],
)
def test_the_count_is_near_what_was_measured(flags, measured):
  assert 0.6 < cost.counted_seconds(launch.parse(flags)) / measured < 1.4


def test_all_passes_of_the_reward_are_counted():
  flags = ['--total_env_steps=96000', '--feedback_pretrain_steps=32000']
  flags += ['--feedback_session_interval=32000', '--feedback_label_budget=150']

  def seconds(*more):
    return cost.counted_seconds(launch.parse([*flags, *more]))

  ppo = cost.counted_seconds(launch.parse(['--method=ppo', flags[0]]))
  rbrl = seconds('--method=rbrl', '--reward_max_passes=10')
  # Two sessions, after 32,000 steps and 64,000: 100 and then all 150 labels.
  visits = 10 * (100 + 150) * 50
  weights = 30 * 256 + 2 * 256**2
  learning = 6 * weights * 3 * visits / cost.FLOPS_PER_SECOND
  np.testing.assert_allclose(rbrl - ppo, learning)
  # 90 ms were measured for a pass over 100 pairs (benchmarks/results/updates.md).
  pairs = ['--method=pebble', '--pairs_label_budget=100', '--reward_max_passes=1']
  pairs += ['--pairs_labels_per_session=100', '--total_env_steps=100000']
  sac = cost.counted_seconds(launch.parse(['--method=sac', pairs[-1]]))
  one = cost.counted_seconds(launch.parse(pairs)) - sac
  assert 0.6 < one / 0.09 < 1.4
  surf = ['--surf_reward_update=7', '--surf_unlabelled_ratio=1', '--add=surf']
  more = cost.counted_seconds(launch.parse([*pairs, *surf])) - sac
  np.testing.assert_allclose(more, 7 * 2 * one)


def test_time_is_in_proportion_to_seeds_and_steps():
  one = cost.counted_seconds(launch.parse(['--method=sac', '--total_env_steps=1000']))
  more = ['--method=sac', '--total_env_steps=3000', '--num_seeds=4']
  np.testing.assert_allclose(cost.counted_seconds(launch.parse(more)), 12 * one)


def test_what_has_finished_corrects_the_count():
  base = (
    *BASE,
    '--feedback_pretrain_steps=0',
    '--feedback_segment_steps=5',
    '--feedback_at_episode_end=false',
    '--rating_max_return=5',
  )
  jobs = jobs_of(base=base, method='ppo,rbrl', ppo_hidden_size='4,8')
  ppo, other_ppo, rbrl = jobs[0], jobs[1], jobs[2]
  before = cost.estimate(rbrl, jobs, {})
  assert before.source == 'a count of operations'
  slower = {ppo.name: 3 * cost.counted_seconds(ppo.config)}
  found = cost.estimate(rbrl, jobs, slower)
  assert found.source == 'other jobs'
  np.testing.assert_allclose(found.seconds, 3 * before.seconds)
  assert cost.estimate(other_ppo, jobs, slower).source == 'jobs like it'


@pytest.mark.parametrize('count', [1, 2, 3, 7])
def test_shards_share_all_jobs_evenly_and_each_once(count):
  jobs = jobs_of(ppo_hidden_size='4,8,16,32,64,128,256', total_env_steps='320,640')
  shards = [cost.shard(jobs, i, count) for i in range(count)]
  names = [job.name for shard in shards for job in shard]
  assert sorted(names) == sorted(job.name for job in jobs)
  loads = [sum(cost.counted_seconds(j.config) for j in shard) for shard in shards]
  dearest = max(cost.counted_seconds(j.config) for j in jobs)
  assert max(loads) - min(loads) <= dearest + 1e-9
  # Nobody's share depends on the order in which the jobs were written.
  assert shards[0] == cost.shard(jobs[::-1], 0, count)


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (0.4, '0 s'),
    (59, '59 s'),
    (59.6, '1 min'),
    (3599, '1 h 0 min'),
    (12000, '3 h 20 min'),
    (216000, '2 d 12 h'),
  ],
)
def test_durations_in_words(seconds, text):
  assert table.duration(seconds) == text


def test_the_table_tells_jobs_and_what_is_left():
  jobs = jobs_of(ppo_learning_rate='1e-3,3e-3', ppo_hidden_size='4,8', seeds=2)
  times = [Estimate(60.0, 'jobs like it'), Estimate(120.0, 'a count of operations')]
  lines = table.show(jobs, times, [State.DONE, State.MISSING]).splitlines()
  assert lines[1].split('  ')[0] == jobs[0].name
  assert 'ppo_learning_rate=0.001,0.003' in lines[1]
  assert lines[1].endswith('done')
  assert lines[-1] == '2 jobs: 1 done, 1 missing; about 2 min left on one machine'
