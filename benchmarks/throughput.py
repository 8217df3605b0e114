"""How fast it is, and how fast it could be: one run, one thing at a time.

  python benchmarks/throughput.py                    # walker_walk, 1 and 10 seeds
  python benchmarks/throughput.py --tasks=all        # and rows for every other task
  python benchmarks/throughput.py --only=physics,methods --seeds=1
  python benchmarks/throughput.py --sb3_python=OTHER_VENV/bin/python

Measured are C physics alone, the environment inside jit, rollouts, the matrix
products of PPO's gradient steps alone, PPO, RbRL and RbRL-KL at their default sizes,
stable-baselines3's PPO and brax's PPO at the same sizes, and the time from a cold
start to the first metrics. Everything at one seed takes turns, round by round, the
baselines too, so that a machine that slows down slows all of them.

Raw samples go to `--out` as they come, by default to `benchmarks/results` where all is
measured at full size, else to `runs/benchmarks`; the tables beside it, as Markdown, are
made from that file alone (`python benchmarks/report.py FILE`). Nothing else should run
meanwhile.
"""

import argparse
import contextlib
import functools
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import command_line
import figures
import products
import report
import workers
import workloads
from cold_start import cold_start
from measure import Compilations, resident_mib, timed, warn_of_load

from rlfb_jax.training import manifest

BASELINES = {'SB3 PPO': 'sb3_ppo.py', 'brax PPO': 'brax_ppo.py'}
REWARD_PASSES = 5  # In one sample of the reward model's fit.


class Bench:
  """What is to be measured, and what has been.

  Attributes:
    options: the command line.
    sizes: of PPO, for all.
    results: everything for the file, JSON values.
    compilations: in this process.
  """

  def __init__(self, options: argparse.Namespace):
    self.options = options
    self.sizes = workloads.TINY_SIZES if options.tiny else workloads.SIZES
    self.compilations = Compilations()
    self.results: dict[str, Any] = {
      **manifest.make(),
      'load_average': warn_of_load(),
      'sizes': self.sizes,
      'chunk_rollouts': options.chunk_rollouts,
      'tasks': options.tasks,
      'flops_per_env_step': {},
      'runs': {},
      'baselines': {},
      'calls': [],
      'memory_mib': [],
    }

  def call(self, run: Callable[[], object], name: str, **facts: Any) -> Any:
    """Times one call and keeps it; returns what the call returned."""
    kept: list[object] = []
    compiled = self.compilations.count
    taken = timed(lambda: kept.append(run()), self.compilations)
    programs = self.compilations.count - compiled
    self.keep(name, **facts, **taken._asdict(), compiled=programs)
    return kept[0]

  def keep(self, name: str, **facts: Any) -> None:
    """Keeps a call that was timed, and says so."""
    self.results['calls'].append({'name': name, **facts})
    keys = ('task', 'seeds', 'round')
    parts = ' '.join(f'{key}={facts[key]}' for key in keys if key in facts)
    print(f'  {name:24s} {parts:34s} {facts["seconds"]:8.3f} s', file=sys.stderr)

  def sample(self, workload: workloads.Workload, **facts: Any) -> None:
    """Times one run of a workload."""
    self.call(workload.run, workload.name, env_steps=workload.env_steps, **facts)

  def save(self) -> None:
    """Writes what there is so far."""
    self.options.out.write_text(json.dumps(self.results, indent=1) + '\n')


def physics_workloads(
  bench: Bench, task: str, num_seeds: int
) -> list[workloads.Workload]:
  """Everything below learning, and the products of learning, warmed up."""
  config = workloads.make_config('ppo', task, bench.sizes, bench.options.tiny)
  env = workloads.make_env(task, config, bench.options.chunk_rollouts)
  num_envs, num_steps = config.ppo.num_envs, config.ppo.rollout_steps
  found = [
    workloads.host_physics(env, num_seeds * num_envs, num_steps),
    workloads.env_steps(env, num_seeds, num_envs, num_steps),
    workloads.rollout(env, config.ppo, num_seeds, num_steps),
  ]
  if num_seeds == 1:
    for transpose_first in (False, True):
      loop = products.make_products(
        env.observation_size,
        env.action_size,
        config.ppo,
        4 * config.ppo.minibatches_per_epoch,
        transpose_first,
      )
      per_step = products.seconds_per_env_step(1.0, config.ppo)
      name = figures.PRODUCTS[transpose_first]
      # As many environment steps as these gradient steps would be spent on.
      found.append(
        workloads.Workload(name, round(loop.gradient_steps / per_step), loop.run)
      )
      bench.results['flops_per_env_step'][task] = loop.flops * per_step
  for workload in found:
    workload.run()
  return found


def make_training(
  bench: Bench, method: str, task: str, num_seeds: int
) -> workloads.Training:
  """A method in its steady state: pre-trained, taught, two chunks into learning."""
  config = workloads.make_config(method, task, bench.sizes, bench.options.tiny)
  env = workloads.make_env(task, config, bench.options.chunk_rollouts)
  training = workloads.Training(env, config, num_seeds)
  facts = {'task': task, 'seeds': num_seeds}

  def learn(number: int) -> None:
    bench.call(training.chunk, f'{method} learn', warmup=number, **facts)

  sessions = training.sessions
  if num_seeds == 1:
    for number in range(training.pretrain_chunks):
      bench.call(
        lambda: training.chunk('explore'), f'{method} explore', warmup=number, **facts
      )
  else:
    # A session needs behaviour to choose from; learning gives it sooner.
    learn(0)
    sessions = sessions[:1]
  for request in sessions:
    passes = bench.call(
      functools.partial(training.session, request),
      f'{method} session',
      strategy=request.strategies.ratings,
      **facts,
    )
    bench.results['calls'][-1]['passes'] = passes
  for number in range(num_seeds > 1, 2):
    learn(number)
  if num_seeds == 1 and task == bench.options.tasks[0]:
    bench.results['runs'][method] = {
      'total_env_steps': training.total_env_steps,
      'chunk_steps': training.chunk_steps,
      'pretrain_chunks': training.pretrain_chunks,
      'sessions': [r.wanted.ratings + r.wanted.pairs for r in training.sessions],
      'max_passes': config.reward.max_passes,
    }
  return training


def start_baselines(bench: Bench, task: str) -> dict[str, workers.Worker]:
  """The baselines, warm; one that cannot start is said so and left out."""
  options = bench.options
  pythons = {'SB3 PPO': options.sb3_python, 'brax PPO': sys.executable}
  found = {}
  for name, script in BASELINES.items():
    print(f'  starting {name}', file=sys.stderr)
    try:
      worker = workers.Worker(
        workers.command(pythons[name], script, task, bench.sizes, warmups=1)
      )
    except workers.WorkerFailed as error:
      bench.results['baselines'][name] = {'failed': str(error)}
      continue
    found[name] = worker
    bench.results['baselines'][name] = worker.facts
  return found


def measure_task(
  bench: Bench, task: str, num_seeds: int, methods: Sequence[str], repeats: int
) -> None:
  """Rounds in which everything takes its turn once."""
  parts = bench.options.only
  facts = {'task': task, 'seeds': num_seeds}
  below = physics_workloads(bench, task, num_seeds) if 'physics' in parts else []
  learning = []
  if 'methods' in parts:
    learning = [make_training(bench, m, task, num_seeds).learn() for m in methods]
  main_task = num_seeds == 1 and task == bench.options.tasks[0]
  if main_task and any(m != 'ppo' for m in methods) and learning:
    config = workloads.make_config('rbrl', task, bench.sizes, bench.options.tiny)
    env = workloads.make_env(task, config, bench.options.chunk_rollouts)
    passes = workloads.reward_passes(env, config, REWARD_PASSES)
    for number in range(2):
      bench.call(passes.run, passes.name, warmup=number, passes=REWARD_PASSES, **facts)
  bench.save()
  with contextlib.ExitStack() as stack:
    baselines = {}
    if main_task and 'baselines' in parts:
      baselines = start_baselines(bench, task)
      for worker in baselines.values():
        stack.callback(worker.close)
    for number in range(repeats):
      for workload in [*below, *learning]:
        bench.sample(workload, round=number, **facts)
      if main_task and learning:
        bench.results['memory_mib'].append(round(resident_mib(), 1))
      for name, worker in list(baselines.items()):
        if not iterate_baseline(bench, name, worker, round=number, **facts):
          del baselines[name]
      bench.save()


def iterate_baseline(
  bench: Bench, name: str, worker: workers.Worker, **facts: Any
) -> bool:
  """One iteration; False if the baseline ended instead, and the others go on."""
  try:
    seconds = worker.iterate()
  except workers.WorkerFailed as error:
    print(f'  {name} ended: {error}', file=sys.stderr)
    bench.results['baselines'][name] = {**worker.facts, 'failed': str(error)}
    return False
  bench.keep(name, **facts, env_steps=worker.facts['env_steps'], seconds=seconds)
  return True


def measure_cold_starts(bench: Bench) -> None:
  """Each method with an empty cache, then with what that left there."""
  task = bench.options.tasks[0]
  flags = []
  if bench.options.tiny:
    flags = [f'--ppo_{name}={value}' for name, value in bench.sizes.items()]
    # A chunk is a whole episode here, 1000 steps in each environment.
    flags += [*workloads.TINY_FLAGS, '--total_env_steps=12000']
  for method in ('ppo', 'rbrl_kl'):
    with tempfile.TemporaryDirectory() as cache:
      for cached in (False, True):
        start = [f'--method={method}', f'--task={task}', *flags]
        found = cold_start(start, pathlib.Path(cache), timeout=600)
        name = f'cold start {method}'
        bench.keep(name, cached=cached, seconds=found['total'], stages=found)
        bench.save()


def main(argv: Sequence[str]) -> None:
  """Measures, saves, reports."""
  options = command_line.parse(argv, __doc__ or '')
  bench = Bench(options)
  started = time.monotonic()
  main_task, *others = options.tasks
  measure_task(bench, main_task, 1, options.methods, options.repeats)
  for num_seeds in options.seeds[1:]:
    measure_task(bench, main_task, num_seeds, options.methods, options.repeats_many)
  if 'cold_start' in options.only:
    measure_cold_starts(bench)
  for task in others:
    for num_seeds in options.seeds:
      repeats = options.repeats_many if num_seeds > 1 else options.repeats_tasks
      measure_task(bench, task, num_seeds, options.methods, repeats)
  bench.results['minutes'] = round((time.monotonic() - started) / 60, 1)
  bench.save()
  text = report.markdown(bench.results)
  options.out.with_suffix('.md').write_text(text)
  print(text)


if __name__ == '__main__':
  main(sys.argv[1:])
