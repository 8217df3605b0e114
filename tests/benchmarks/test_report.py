"""Ratios, whole runs and verdicts, from samples written by hand."""

import figures
import measure
import pytest
import report

TASK = 'walker_walk'


def _sample(name, rate, number, seeds=1):
  return {
    'name': name,
    'task': TASK,
    'seeds': seeds,
    'round': number,
    'env_steps': 1000 * seeds,
    'seconds': 1000 * seeds / rate,
    'compiling': 0.0,
    'compiled': 0,
  }


def _results(*calls):
  return {
    'versions': {'jax': '1', 'brax': None},
    'baselines': {'brax PPO': {'failed': 'No module named x'}},
    'sizes': {'num_envs': 32},
    'command': ['throughput.py'],
    'started': 'now',
    'processor': 'P',
    'cores': 2,
    'load_average': 0.0,
    'tasks': [TASK],
    'flops_per_env_step': {TASK: 1e6},
    'runs': {},
    'memory_mib': [],
    'calls': list(calls),
  }


def test_summaries():
  found = measure.summarize([3.0, 1.0, 2.5])
  assert found == (2.5, 1.0, 3.0)
  assert found.text(1) == '2.5 [1.0-3.0]'
  assert measure.summarize([5012.0]).text() == '5,012'
  with pytest.raises(ValueError, match='at least 1'):
    measure.summarize([])


def test_a_ratio_is_taken_round_by_round():
  # The machine halves its speed: the ratio does not.
  assert figures.ratio([8.0, 4.0], [4.0, 2.0]) == (2.0, 2.0, 2.0)
  apart = figures.ratio([8.0, 4.0], [4.0, 2.0, 3.0], same_rounds=False)
  assert apart == (2.0, 1.0, 4.0)
  assert figures.ratio([], [1.0]) is None


def test_the_bound_takes_the_faster_products():
  results = _results(
    _sample('C physics', 40_000, 0),
    _sample('products', 8_000, 0),
    _sample('products, transposed', 10_000, 0),
  )
  assert figures.bound(results, TASK) == pytest.approx(8_000)
  assert figures.bound(_results(_sample('C physics', 1, 0)), TASK) is None


def test_a_whole_run_is_the_sum_of_its_parts():
  def call(name, seconds, compiling=0.0, **facts):
    taken = {'seconds': seconds, 'compiling': compiling, 'compiled': 0}
    return {'name': name, 'task': TASK, 'seeds': 1, **taken, **facts}

  results = _results(
    call('rbrl explore', 30.0, 20.0, warmup=0),
    call('rbrl explore', 10.0, warmup=1),
    call('rbrl session', 9.0, 7.0, strategy='uniform', passes=4),
    call('rbrl session', 3.0, strategy='disagreement', passes=10),
    call('reward passes', 1.0, passes=5, warmup=1),
    *(_sample('rbrl', 500, n) for n in range(3)),  # 2 s a chunk
    # Another task's samples are not this run's.
    {**_sample('rbrl', 1, 0), 'task': 'cartpole_balance'},
  )
  results['runs']['rbrl'] = {
    'total_env_steps': 10_000,
    'chunk_steps': 1000,
    'pretrain_chunks': 2,
    'sessions': [100, 100],
    'max_passes': 10,
  }
  # 8 chunks of 2 s, 2 of 10 s, sessions of 2 and 3 s.
  assert figures.run_seconds(results, 'rbrl', False) == pytest.approx(41.0)
  # And 6 more passes over half the labels, at 0.2 s for all of them.
  assert figures.run_seconds(results, 'rbrl', True) == pytest.approx(41.6)
  assert figures.run_seconds(results, 'ppo', False) is None


def test_further_tasks_have_a_row_for_each_number_of_seeds():
  other = {'task': 'cheetah_run'}
  results = _results(
    {**_sample('C physics', 40_000, 0), **other},
    {**_sample('products', 8_000, 0), **other},
    {**_sample('products, transposed', 10_000, 0), **other},
    {**_sample('ppo', 4_000, 0), **other},
    {**_sample('rbrl', 3_000, 0), **other},
    {**_sample('ppo', 4_400, 0, seeds=10), **other},
    {**_sample('rbrl session', 1.0, 0), **other, 'strategy': 'uniform', 'passes': 3},
  )
  results['tasks'].append('cheetah_run')
  text = report.markdown(results)
  assert '| cheetah_run | 1 | 40,000 |  |  | 4,000 | 3,000 |  | 8,000 | 50% |' in text
  assert '| cheetah_run | 10 |  |  |  | 4,400 |  |  | 8,000 | 55% |' in text
  # Sessions that are told are those of the first task.
  assert 'A labelling session' not in text


def test_tables_say_what_was_reached():
  results = _results(
    *(_sample('ppo', rate, n) for n, rate in enumerate((5000, 4000, 4500))),
    *(_sample('SB3 PPO', rate, n) for n, rate in enumerate((1800, 1700, 1800))),
    *(_sample('rbrl_kl', rate, n) for n, rate in enumerate((2500, 2000, 2250))),
    _sample('ppo', 9000, 0, seeds=10),
  )
  results['memory_mib'] = [1000.0, 1004.0]
  results['calls'][0]['compiled'] = 1
  text = report.markdown(results)
  assert '| PPO | 1 | 4,500 [4,000-5,000] |' in text
  assert '| PPO / SB3 PPO | 2.50 [2.35-2.78] | at least 2.5 | yes |' in text
  assert '| RbRL-KL / PPO | 0.50 | at least 0.6 | no |' in text
  assert '| PPO, 10 seeds / 1 | 2.00 [1.80-2.25] | at least 1.2 | yes |' in text
  assert 'not measured: No module named x' in text
  assert 'timed calls: 1 (wanted: 0)' in text
  assert 'grew by 4 MiB' in text


def test_a_baseline_that_died_is_compared_where_it_lived():
  results = _results(
    *(_sample('ppo', rate, n) for n, rate in enumerate((5000, 4000, 4500))),
    _sample('brax PPO', 2500, 0),
  )
  text = report.markdown(results)
  assert '| PPO / brax PPO | 2.00 | at least 1.4 | yes |' in text
  assert '| brax PPO | 1 | ended after 1 round: No module named x |' in text
