"""A sweep that has grown, or is cut otherwise, goes on with what was begun."""

import random

import pytest

from rlfb_jax.bin import flags, launch
from rlfb_jax.methods.config import to_sections
from rlfb_jax.sweeps import cost, held
from rlfb_jax.sweeps.folder import JobFolder
from rlfb_jax.training import run_dir
from tests.sweeps.tiny import BASE, begun, jobs_of

RATES = '1e-3,3e-3'


def names(jobs):
  return [job.name for job in jobs]


def runs_of(jobs):
  return [run for job in jobs for run in begun(job).runs]


@pytest.mark.parametrize('finished', [False, True])
@pytest.mark.parametrize('max_rows', [0, 3, 4])
def test_more_seeds_leave_the_jobs_of_the_first(finished, max_rows):
  few = jobs_of(seeds=5, max_rows=max_rows, ppo_learning_rate=RATES)
  before = [begun(job, finished) for job in few]
  more = jobs_of(seeds=10, max_rows=max_rows, ppo_learning_rate=RATES, held=before)
  assert set(names(few)) <= set(names(more))
  assert len(set(runs_of(more))) == len(runs_of(more)) == 20
  new = [job for job in more if job.name not in names(few)]
  assert {row.seed for job in new for row in job.rows} == {5, 6, 7, 8, 9}


def test_more_values_and_fewer_seeds_run_nothing_twice():
  (old,) = jobs_of(seeds=3, ppo_learning_rate=RATES)
  before = [begun(old, finished=True)]
  more = jobs_of(seeds=3, ppo_learning_rate=f'{RATES},1e-2', held=before)
  assert names(more)[0] == old.name
  assert [len(job.rows) for job in more] == [6, 3]
  (less,) = jobs_of(seeds=2, ppo_learning_rate='3e-3', held=before)
  assert (less.name, less.rows) == (old.name, old.rows)
  assert less.config.run.num_seeds == 6


@pytest.mark.parametrize('seed', range(20))
def test_in_the_midst_of_a_sweep_the_plan_and_the_shares_are_those_of_its_start(seed):
  rng = random.Random(seed)
  grid = {'ppo_learning_rate': '1e-3,3e-3,1e-2', 'ppo_hidden_size': '4,8'}
  old = jobs_of(seeds=rng.randint(1, 6), max_rows=rng.randint(1, 7), **grid)
  before = [begun(job, rng.random() < 0.5) for job in rng.sample(old, len(old) // 2)]
  # Some overlap, as releases before may have left them.
  other = jobs_of(seeds=rng.randint(1, 6), max_rows=rng.randint(1, 7), **grid)
  before += [begun(job, rng.random() < 0.5) for job in rng.sample(other, 1)]
  before = list({folder.name: folder for folder in before}.values())
  wanted = {'seeds': rng.randint(4, 9), 'max_rows': rng.randint(1, 9), **grid}
  start = jobs_of(held=before, **wanted)
  assert set(runs_of(jobs_of(**wanted))) <= set(runs_of(start))
  for _ in range(5):
    # Jobs end that were there, and jobs of the plan have begun or ended.
    now = {folder.name: folder for folder in before}
    for job in rng.sample(start, rng.randint(1, len(start))):
      done = rng.random() < 0.5 or (job.name in now and now[job.name].finished)
      now[job.name] = begun(job, done)
    folders = list(now.values())
    rng.shuffle(folders)
    midst = jobs_of(held=folders, **wanted)
    assert names(midst) == names(start)
    assert [job.rows for job in midst] == [job.rows for job in start]
    assert names(cost.shard(midst, 1, 3)) == names(cost.shard(start, 1, 3))


def test_what_was_begun_is_left_where_it_is_too_large_or_not_wanted():
  (old,) = jobs_of(seeds=4)
  unfinished = [begun(old)]
  assert names(jobs_of(seeds=4, max_rows=4, held=unfinished)) == [old.name]
  assert old.name not in names(jobs_of(seeds=4, max_rows=3, held=unfinished))
  assert old.name not in names(jobs_of(seeds=3, held=unfinished))
  assert names(jobs_of(seeds=3, held=[begun(old, finished=True)])) == [old.name]
  other = (*BASE, '--ppo_num_epochs=3')
  assert old.name not in names(jobs_of(seeds=4, base=other, held=unfinished))


def test_folders_are_read_as_what_they_were_started_with(tmp_path):
  (job,) = jobs_of(seeds=2, ppo_learning_rate=RATES)
  config = launch.parse([*job.arguments, '--tensorboard=false', '--mesh=seed:2'])
  lines = flags.to_lines(to_sections(config), omit=launch.NOT_KEPT)
  JobFolder(tmp_path / job.name).write_order(job)
  assert held.read(tmp_path, launch.parse) == []
  run = run_dir.create(str(tmp_path / job.name), '', lines, rows=job.rows)
  assert held.read(tmp_path, launch.parse) == [begun(job)]
  run_dir.write_finished(run, 320, 1.0)
  assert held.read(tmp_path, launch.parse) == [begun(job, finished=True)]
  run.flags.write_text('--of_another_release=1\n')
  assert held.read(tmp_path, launch.parse) == []
  assert held.read(tmp_path / 'none', launch.parse) == []
