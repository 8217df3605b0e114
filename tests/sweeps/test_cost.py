"""Expected times, shares and the words for them."""

import json
import pathlib
import re

import numpy as np
import pytest

from rlfb_jax.bin import launch
from rlfb_jax.sweeps import cost, table
from rlfb_jax.sweeps.cost import Estimate
from rlfb_jax.sweeps.folder import State
from tests.sweeps.tiny import BASE, jobs_of

RESULTS = pathlib.Path(__file__).resolve().parents[2] / 'benchmarks' / 'results'


def measured(name):
  return json.loads((RESULTS / f'{name}.json').read_text())


def counted(*argv):
  """Seconds of an environment step."""
  config = launch.parse(argv)
  return cost.counted_seconds(config) / config.total_env_steps


@pytest.mark.parametrize('agent', ['sac', 'ddpg'])
@pytest.mark.parametrize('size', ['walker', 'metaworld', 'small'])
def test_updates_lie_between_those_of_the_machines_that_were_measured(agent, size):
  fast, slow = (
    np.median(group['seconds'][agent])
    for results in (measured('updates'), measured('updates_avx2'))
    for group in results['groups']
    if (group['label'], group['size']) == ('updates', size)
  )
  networks, batch = measured('updates')['sizes'][size].split(', batch ')
  width, layers = networks.split('x')
  found = counted(
    *(f'--method={agent}', '--total_env_steps=1000', f'--{agent}_batch_size={batch}'),
    *(f'--{agent}_hidden_size={width}', f'--{agent}_hidden_layers={layers}'),
  )
  assert fast < found < slow < 2.6 * fast
  # The machines are that far apart that no number is nearer to both.
  assert max(found / fast, slow / found) < 1.7


def test_steps_on_policy_lie_between_those_of_the_machines_that_were_measured():
  fast = [
    call['stages']['run'] / call['stages']['env_steps']
    for call in measured('cold_start')['calls']
    if call['name'] == 'cold start ppo'
  ]
  calls = measured('throughput')['calls']

  def slow(method):
    return np.median(
      [
        call['seconds'] / call['env_steps']
        for call in calls
        if (call['name'], call.get('seeds')) == (method, 1)
      ]
    )

  ppo = counted('--method=ppo', '--task=walker_walk')
  assert max(fast) < ppo < slow('ppo')
  assert max(ppo / min(fast), slow('ppo') / ppo) < 1.5
  # But for the passes of the reward, of which those who were timed had none.
  passes = ['--reward_max_passes=1', '--task=walker_walk']
  pushed = counted('--method=rbrl_kl', *passes) - counted('--method=rbrl', *passes)
  np.testing.assert_allclose(pushed / ppo, slow('rbrl_kl') / slow('ppo') - 1, atol=0.06)
  assert slow('rbrl_kl') / (ppo + pushed) < 1.5


def test_exploration_has_epochs_of_its_own():
  flags = ['--method=rbrl', '--total_env_steps=64000', '--reward_max_passes=1']
  flags += ['--feedback_pretrain_steps=32000', '--feedback_session_interval=32000']

  def seconds(epochs):
    return cost.counted_seconds(
      launch.parse([*flags, f'--pretrain_num_epochs={epochs}'])
    )

  # Twice as many in one half are as many in both as half as many again.
  ppo = ['--method=ppo', '--total_env_steps=64000']
  more, less = (
    cost.counted_seconds(launch.parse([*ppo, f'--ppo_num_epochs={epochs}']))
    for epochs in (30, 20)
  )
  np.testing.assert_allclose(seconds(40) - seconds(20), more - less)


def test_all_passes_of_the_reward_are_counted():
  flags = ['--total_env_steps=96000', '--feedback_pretrain_steps=32000']
  flags += ['--feedback_session_interval=32000', '--feedback_label_budget=150']
  flags += ['--pretrain_num_epochs=20']

  def seconds(*more):
    return cost.counted_seconds(launch.parse([*flags, *more]))

  ppo = cost.counted_seconds(launch.parse(['--method=ppo', flags[0]]))
  rbrl = seconds('--method=rbrl', '--reward_max_passes=10')
  # Two sessions, after 32,000 steps and 64,000: 100 and then all 150 labels.
  visits = 10 * (100 + 150) * 50
  weights = 30 * 256 + 2 * 256**2
  rate = cost._rate(128 * 50, 256)
  np.testing.assert_allclose(rbrl - ppo, 6 * weights * 3 * visits / rate)
  fast, slow = (
    np.median(group['seconds']['pass over 100 labels'])
    for results in (measured('updates'), measured('updates_avx2'))
    for group in results['groups']
    if group['label'] == 'reward fits'
  )
  pairs = ['--method=pebble', '--pairs_label_budget=100', '--reward_max_passes=1']
  pairs += ['--pairs_labels_per_session=100', '--total_env_steps=100000']
  sac = cost.counted_seconds(launch.parse(['--method=sac', pairs[-1]]))
  one = cost.counted_seconds(launch.parse(pairs)) - sac
  assert fast < one < slow
  assert max(one / fast, slow / one) < 1.5
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
  assert before.source == 'a count for two CPU cores'
  slower = {ppo.name: 3 * cost.counted_seconds(ppo.config)}
  found = cost.estimate(rbrl, jobs, slower)
  assert found.source == 'other jobs'
  np.testing.assert_allclose(found.seconds, 3 * before.seconds)
  assert cost.estimate(other_ppo, jobs, slower).source == 'jobs like it'


def test_what_mjx_takes_is_known_from_jobs_on_mjx_alone():
  native, mjx, other = jobs_of(
    base=(*BASE, '--ppo_hidden_size=4'),
    arms={
      'native': {'engine': 'native'},
      'mjx': {'engine': 'mjx'},
      'wide': {'engine': 'mjx', 'ppo_hidden_layers': '4'},
    },
  )
  jobs = [native, mjx, other]
  took = {native.name: 7.0}
  assert cost.estimate(native, jobs, {}).seconds is not None
  assert cost.estimate(mjx, jobs, took) == Estimate(None, 'not known for mjx')
  took[other.name] = 3 * cost.counted_seconds(other.config)
  found = cost.estimate(mjx, jobs, took)
  assert found.source == 'jobs like it'
  np.testing.assert_allclose(found.seconds, 3 * cost.counted_seconds(mjx.config))


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
  times = [Estimate(60.0, 'jobs like it'), Estimate(120.0, 'a count for two CPU cores')]
  lines = table.show(jobs, times, [State.DONE, State.MISSING]).splitlines()
  assert lines[1].split('  ')[0] == jobs[0].name
  assert 'ppo_learning_rate=0.001,0.003' in lines[1]
  assert lines[1].endswith('done')
  assert lines[-1] == '2 jobs: 1 done, 1 missing; about 2 min left on one machine'
  unknown = Estimate(None, 'not known for mjx')
  told = table.show(jobs, [times[1], unknown], [State.MISSING] * 2).splitlines()
  assert re.search(r'MiB +\? +not known for mjx +missing$', told[2])
  left = 'about 2 min and 1 of unknown time left on one machine'
  assert told[-1] == f'2 jobs: 2 missing; {left}'
  assert table.together([unknown]) == '1 of unknown time'
