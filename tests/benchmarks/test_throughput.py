"""The benchmark itself, at sizes whose numbers mean nothing."""

import json
import time
from types import MappingProxyType

import cold_start
import command_line
import jax
import jax.numpy as jnp
import measure
import pytest
import report
import throughput
import workers
import workloads

from rlfb_jax.bin import launch
from rlfb_jax.training.run import make_environment


def _run(tmp_path, *flags):
  out = tmp_path / 'raw.json'
  throughput.main(['--tiny', '--repeats=2', '--repeats_many=1', f'--out={out}', *flags])
  return json.loads(out.read_text()), out.with_suffix('.md').read_text()


def test_physics_and_ppo_at_one_seed_and_more(tmp_path, capsys):
  results, text = _run(
    tmp_path, '--only=physics,methods', '--methods=ppo', '--seeds=1,2'
  )
  assert capsys.readouterr().out.strip() == text.strip()
  timed = [c for c in results['calls'] if 'round' in c]
  names = ['C physics', 'environment, jit', 'rollout with policy']
  names += ['products', 'products, transposed', 'ppo']
  assert [c['name'] for c in timed if c['seeds'] == 1] == names * 2
  assert {c['env_steps'] for c in timed if c['name'] == 'ppo'} == {32, 64}
  assert sum(c['compiled'] for c in timed) == 0
  assert all(c['seconds'] > 0 for c in timed)
  assert '| **bound** | 1 |' in text
  assert 'PPO, 2 seeds / 1' in text


def test_a_method_with_sessions_reaches_its_steady_state(tmp_path):
  results, text = _run(tmp_path, '--only=methods', '--methods=rbrl_kl', '--seeds=1')
  warm = [(c['name'], c['compiled']) for c in results['calls'] if 'round' not in c]
  names = ['explore', 'session', 'session', 'learn', 'learn']
  assert [n for n, _ in warm[:5]] == [f'rbrl_kl {name}' for name in names]
  assert warm[4][1] == 0
  plan = results['runs']['rbrl_kl']
  assert plan['sessions'] == [4, 4]
  assert plan['pretrain_chunks'] * plan['chunk_steps'] == 32
  assert len(results['memory_mib']) == 2
  assert '| RbRL-KL | sessions as measured |' in text


def test_every_task_has_all_methods_at_all_numbers_of_seeds(tmp_path, monkeypatch):
  asked = []
  monkeypatch.setattr(throughput, 'measure_task', lambda *args: asked.append(args[1:]))
  flags = ['--tasks=walker_walk,cheetah_run', '--only=physics,methods']
  _run(tmp_path, *flags, '--methods=ppo,rbrl', '--repeats_tasks=4')
  methods = ['ppo', 'rbrl']
  assert asked == [
    ('walker_walk', 1, methods, 2),
    ('walker_walk', 10, methods, 1),
    ('cheetah_run', 1, methods, 4),
    ('cheetah_run', 10, methods, 1),
  ]


class _Baseline:
  """Lives for one round."""

  facts = MappingProxyType({'env_steps': 10})

  def __init__(self):
    self.turns = 0

  def iterate(self):
    self.turns += 1
    if self.turns > 1:
      raise workers.WorkerFailed('worn out')
    return 0.5

  def close(self):
    pass


def test_a_baseline_that_dies_leaves_the_others_their_rounds(tmp_path, monkeypatch):
  def start(bench, task):
    bench.results['baselines']['brax PPO'] = dict(_Baseline.facts)
    return {'brax PPO': _Baseline()}

  monkeypatch.setattr(throughput, 'start_baselines', start)
  flags = '--only=methods,baselines', '--methods=ppo', '--seeds=1'
  results, text = _run(tmp_path, *flags)
  rounds = [(c['name'], c['round']) for c in results['calls'] if 'round' in c]
  assert rounds == [('ppo', 0), ('brax PPO', 0), ('ppo', 1)]
  assert results['baselines']['brax PPO'] == {'env_steps': 10, 'failed': 'worn out'}
  assert '| PPO / brax PPO |' in text


def test_a_cold_start_is_taken_apart(tmp_path):
  flags = [f'--ppo_{n}={v}' for n, v in workloads.TINY_SIZES.items()]
  flags += ['--method=ppo', '--task=probe_observed', '--total_env_steps=3200']
  cache = tmp_path / 'cache'
  # Everything is kept: how long a compilation takes is the machine's affair.
  found = cold_start.cold_start(flags, cache, timeout=300, cached_from=0)
  stages = [found[s] for s in ('interpreter', 'imports', 'trace', 'lower', 'compile')]
  assert min(*stages, found['run']) > 0
  assert max(stages) < found['total']
  assert found['programs'] > found['cache_hits']
  again = cold_start.cold_start(flags, cache, timeout=300, cached_from=0)
  assert again['cache_hits'] > found['cache_hits']
  with pytest.raises(RuntimeError, match='did you mean'):
    cold_start.cold_start(['--method=pppo'], cache, timeout=300)


def test_what_is_measured_by_default_has_a_name_and_its_sessions():
  assert set(command_line.parse([], '').methods) == set(report.LABELS)
  tiny = [f'--ppo_{name}={value}' for name, value in workloads.TINY_SIZES.items()]
  # No length is said: the published one counts.
  flags = ['--method=rbrl', '--task=probe_choice', '--feedback_segment_steps=5', *tiny]
  config = launch.parse(
    [*flags, '--rating_max_return=5', '--feedback_pretrain_steps=80']
  )
  training = workloads.Training(make_environment(config), config, 1)
  assert training.total_env_steps == 4_000_000
  assert len(training.sessions) == 10
  assert training.pretrain_chunks > 0


def test_compilations_are_counted_once():
  compilations = measure.Compilations()
  inner = jax.jit(lambda x: jnp.sin(x) * 3.25)
  program = jax.jit(lambda x: inner(x) + inner(x + 1.5))
  x = jnp.ones(3)
  before = time.perf_counter()
  count = compilations.count
  first = measure.timed(lambda: jax.block_until_ready(program(x)), compilations)
  assert compilations.count == count + 1
  # Traces nest: their times must not be added up.
  assert 0 < first.compiling <= first.seconds
  second = measure.timed(lambda: jax.block_until_ready(program(x)), compilations)
  assert second.compiling == 0
  assert compilations.seconds(since=before) == pytest.approx(first.compiling)
  stages = [compilations.seconds(before, s) for s in ('trace', 'lower', 'compile')]
  assert sum(stages) >= first.compiling * 0.999


@pytest.mark.parametrize(
  ('flag', 'said'),
  [
    ('--tasks=walker_wlk', '--tasks=walker_wlk is not one of'),
    ('--only=phisics', '--only=phisics is not one of physics'),
    ('--seeds=10,1', 'try --seeds=1,10'),
    ('--seeds=1,0', 'try --seeds=1,10'),
    ('--repeats=0', 'must be at least 1'),
  ],
)
def test_mistakes_are_said_at_once(flag, said, capsys):
  with pytest.raises(SystemExit):
    command_line.parse([flag], '')
  assert said in capsys.readouterr().err


def test_all_tasks_start_with_the_main_one():
  tasks = command_line.parse(['--tasks=all'], '').tasks
  assert tasks[0] == 'walker_walk'
  assert len(tasks) == len(set(tasks)) == 10
