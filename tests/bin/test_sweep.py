"""rlfb-sweep: its command line, its table, and jobs against plain runs."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import outcomes
import pytest
import yaml

from rlfb_jax.bin import sweep, sweep_job, train
from rlfb_jax.methods.config import RunOptions
from rlfb_jax.sweeps import lock
from rlfb_jax.sweeps.folder import JobFolder, State
from rlfb_jax.training import export, metrics, returns, run
from rlfb_jax.training.evaluate import Episodes

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEDULERS = ROOT / 'experiments' / 'schedulers'
TINY = (
  '--task=probe_observed',
  '--method=ppo',
  '--total_env_steps=64',
  '--ppo_num_envs=4',
  '--ppo_rollout_steps=8',
  '--ppo_minibatch_size=16',
  '--ppo_num_epochs=1',
  '--ppo_hidden_size=4',
  '--ppo_hidden_layers=1',
  '--eval_episodes=2',
  '--checkpoint_minutes=none',
  '--tensorboard=false',
)


def test_a_dry_run_shows_jobs_and_writes_nothing(tmp_path, capsys):
  out = tmp_path / 'sweep'
  grid = ['--grid=ppo_learning_rate=1e-3,3e-3', '--grid', 'ppo_hidden_size=4,8']
  assert sweep.main([f'--out={out}', '--dry_run', '--seeds=3', *grid, *TINY]) == 0
  said = capsys.readouterr().out
  head = 'job runs differing flags memory time estimated from state'
  assert said.splitlines()[0].split() == head.split()
  assert said.count('ppo_learning_rate=0.001,0.003') == 2
  assert said.splitlines()[-1].startswith('2 jobs: 2 missing; about')
  assert not out.exists()
  sweep.main([f'--out={out}', '--dry_run', '--shard=1/2', '--seeds=3', *grid, *TINY])
  assert capsys.readouterr().out.splitlines()[-1].startswith('1 jobs: 1 missing')


def test_a_dry_run_shows_numbers_of_classes_as_rows_or_as_jobs(tmp_path, capsys):
  argv = [f'--out={tmp_path}', '--dry_run', '--seeds=2', '--task=walker_walk']
  argv += ['--method=rbrl_kl', '--grid=rating_num_classes=3,4,6']
  assert sweep.main(argv) == 0
  said = capsys.readouterr().out
  assert said.count('rating_num_classes=3,4,6') == 1
  assert said.splitlines()[-1].startswith('1 jobs: 1 missing')
  assert sweep.main([*argv, '--kl_mode=heads_gaussian']) == 0
  assert capsys.readouterr().out.splitlines()[-1].startswith('3 jobs: 3 missing')


@pytest.mark.parametrize(
  ('argv', 'sentence'),
  [
    ([], '--out=FOLDER is missing'),
    (
      ['--out=x', '--grid=sac_learning_rate=1,2'],
      'did you mean --sac_actor_learning_ra',
    ),
    (['--out=x', '--tsk=walker_walk'], '--tsk is unknown; did you mean --task?'),
    (['--out=x', '--shard=4/4'], 'shards are counted from 0; try --shard=3/4'),
    (['--out=x', '--shard=4'], 'as 0/4'),
    (['--out=x', '--seeds=many'], '--seeds=many must be a whole number'),
    (['--out=x', '--num_seeds=3'], 'the number of seeds is --seeds'),
    (['--out=x', '--file=none.toml'], '--file=none.toml cannot be read'),
    (['--out=x', '--dry_run=perhaps'], 'must be true or false'),
    (['--out=x', '--grid'], '--grid needs a value'),
  ],
)
def test_mistakes_are_one_sentence(capsys, argv, sentence):
  with pytest.raises(SystemExit) as caught:
    sweep.main(argv)
  assert caught.value.code == 1
  error = capsys.readouterr().err
  assert sentence in error
  assert error.count('\n') == 1


def test_the_command_line_goes_beyond_the_file(tmp_path):
  path = tmp_path / 'sweep.toml'
  path.write_text('seeds = 3\n[flags]\nseed = 7\n[grid]\ntask = ["a", "b"]\n')
  argv = ['--out=x', f'--file={path}', '--seeds=2', '--preset', 'fast', '--grid=task=c']
  command = sweep.parse([*argv, '--arm=one: kl_beta=0.3', '--memory_gib=2'])
  assert command.sweep.seeds == 2
  assert command.sweep.base == ('--seed=7', '--preset=fast')
  assert command.sweep.grid == {'task': ('c',)}
  assert command.sweep.arms == {'one': {'kl_beta': '0.3'}}
  assert command.memory == 2**31


@pytest.mark.parametrize('name', ['slurm.sbatch', 'kubernetes.yaml', 'parallel.sh'])
def test_the_schedulers_examples_are_commands_that_work(name, monkeypatch, capsys):
  text = (SCHEDULERS / name).read_text()
  text = re.sub(r'\\\n', ' ', text)
  if name.endswith('.yaml'):
    text = re.sub(r'\n\s+(?=--)', ' ', text)
  (line,) = re.findall(r'rlfb-sweep (?=.*--out).*', text)
  filled = {
    '${SWEEP_OUT:-sweeps/push}': 'sweeps/push',
    '${SWEEP_THREADS:-2}': '2',
    '${SLURM_ARRAY_TASK_ID}': '3',
    '$JOB_COMPLETION_INDEX': '3',
    '{}': '3',
    '/sweeps/sweep.toml': 'experiments/schedulers/sweep.toml',
  }
  for variable, value in filled.items():
    line = line.replace(variable, value)
  assert '$' not in line
  monkeypatch.chdir(ROOT)
  argv = shlex.split(line)[1:]
  assert sweep.parse(argv).shard == (3, 4)
  assert sweep.main([*argv, '--dry_run']) == 0
  assert ' missing' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['slurm.sbatch', 'parallel.sh'])
def test_the_schedulers_scripts_can_be_read_by_their_shells(name):
  path = SCHEDULERS / name
  shell = path.read_text().splitlines()[0].removeprefix('#!')
  read = subprocess.run([shell, '-n', path], capture_output=True, text=True)
  assert (read.returncode, read.stderr) == (0, '')


def test_schedulers_start_as_many_tasks_as_there_are_shares():
  texts = {path.name: path.read_text() for path in SCHEDULERS.iterdir()}

  def found(name, pattern):
    (number,) = re.findall(pattern, texts[name])
    return int(number)

  array = found('slurm.sbatch', r'--array=0-(\d+)\n') + 1
  assert array == found('slurm.sbatch', r'--shard="\$\{SLURM_ARRAY_TASK_ID\}/(\d+)"')
  started = found('parallel.sh', r'seq 0 (\d+) ') + 1
  assert started == found('parallel.sh', r"--shard='\{\}/(\d+)'")
  assert started == found('parallel.sh', r'--jobs (\d+) ')
  spec = yaml.safe_load(texts['kubernetes.yaml'])['spec']
  count = found('kubernetes.yaml', r'--shard=\$JOB_COMPLETION_INDEX/(\d+)\n')
  assert spec['completions'] == spec['parallelism'] == count


def test_the_kubernetes_example_is_a_job_whose_parts_fit():
  job = yaml.safe_load((SCHEDULERS / 'kubernetes.yaml').read_text())
  assert (job['apiVersion'], job['kind']) == ('batch/v1', 'Job')
  assert job['spec']['completionMode'] == 'Indexed'
  pod = job['spec']['template']['spec']
  assert pod['restartPolicy'] == 'Never'
  (container,) = pod['containers']
  # One shell command on one line, and all that it reads and writes on the volume.
  (command,) = container['args']
  assert container['command'] == ['/bin/sh', '-c']
  assert '\n' not in command
  (mount,) = container['volumeMounts']
  assert [volume['name'] for volume in pod['volumes']] == [mount['name']]
  places = re.findall(r'--(?:file|out)=(\S+)', command)
  assert len(places) == 2
  assert all(place.startswith(f'{mount["mountPath"]}/') for place in places)
  assert pod['terminationGracePeriodSeconds'] > RunOptions().stop_seconds


def test_the_page_shows_the_schedulers_examples_as_they_are():
  page = (ROOT / 'rlfb_jax' / 'docs' / 'sweeping.md').read_text()
  script = (SCHEDULERS / 'slurm.sbatch').read_text().splitlines()
  shown = [line for line in page.splitlines() if line.startswith('#SBATCH')]
  assert shown
  assert set(shown) <= set(script)
  (block,) = re.findall(r'```yaml\n(.*?)```', page, re.DOTALL)
  job = yaml.safe_load((SCHEDULERS / 'kubernetes.yaml').read_text())
  spec = yaml.safe_load(block)['spec']
  assert len(spec) == 2
  assert {name: job['spec'][name] for name in spec} == spec


def test_the_image_is_made_as_the_readme_installs():
  page = (ROOT / 'rlfb_jax' / 'docs' / 'sweeping.md').read_text()
  readme = (ROOT / 'README.md').read_text()
  (block,) = re.findall(r'```dockerfile\n(.*?)```', page, re.DOTALL)
  lines = block.splitlines()
  (install,) = re.findall(r'^pip install -r .*', readme, re.MULTILINE)
  assert lines[-1] == f'RUN {install}'
  (version,) = re.findall(r'the lock file is that of ([\d.]+)', readme)
  assert lines[0] == f'FROM python:{version}-slim'
  assert {line.split()[0] for line in lines} == {'FROM', 'RUN', 'WORKDIR', 'COPY'}
  job = yaml.safe_load((SCHEDULERS / 'kubernetes.yaml').read_text())
  (container,) = job['spec']['template']['spec']['containers']
  assert f'docker build --tag {container["image"]} .' in page


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A sweep of two jobs, one of which fails while it trains."""
  out = tmp_path_factory.mktemp('sweep')
  argv = [f'--out={out}', '--grid=ppo_learning_rate=1e-3,3e-3', '--seeds=2', *TINY]
  command = [sys.executable, '-m', 'rlfb_jax.bin.sweep', *argv]
  environ = os.environ | {'PYTHONPATH': str(ROOT)}
  done = subprocess.run(
    command, env=environ, capture_output=True, text=True, check=False, timeout=300
  )
  assert done.returncode == 0, done.stderr
  (folder,) = (path.parent for path in out.glob('*/job.json'))
  return argv, out, JobFolder(folder)


def test_a_job_leaves_a_run_that_tells_its_rows(finished):
  _, _, folder = finished
  assert folder.state() is State.DONE
  rates = [{'ppo_learning_rate': r} for r in (1e-3, 1e-3, 3e-3, 3e-3)]
  rows = json.loads((folder.root / 'rows.json').read_text())
  assert rows == [
    {'seed': s, 'flags': f} for s, f in zip((0, 1, 0, 1), rates, strict=True)
  ]
  assert metrics.read(folder.root)['policy_loss'].shape == (2, 4)
  evaluation = json.loads((folder.root / 'report' / 'evaluation.json').read_text())
  assert np.shape(evaluation['returns']) == (4, 2)
  assert export.load_policy(folder.root).num_seeds == 4


def test_tables_take_no_evaluation_but_the_jobs_own(finished, tmp_path):
  _, out, folder = finished
  copy = tmp_path / 'sweep'
  shutil.copytree(out, copy)
  first, second = outcomes.read(copy, 'x', ['ppo_learning_rate'])
  path = copy / folder.root.name / 'report' / returns.FILE
  found = np.asarray(json.loads(path.read_text())['returns'])
  for outcome, rows in ((first, found[:2]), (second, found[2:])):
    np.testing.assert_allclose(outcome.evaluation, rows.mean(axis=1), atol=0.01)
  returns.save(path, 'probe_choice', 0, Episodes(found))
  with pytest.raises(ValueError, match='not the evaluation of the run itself'):
    outcomes.read(copy, 'x', ['ppo_learning_rate'])


def test_a_second_start_does_nothing(finished, capsys):
  argv, out, folder = finished
  before = folder.log.read_text()
  assert sweep.main(argv) == 0
  assert capsys.readouterr().err.splitlines()[-1] == 'rlfb-sweep: 1 done'
  assert folder.log.read_text() == before
  assert sweep.main([*argv, '--dry_run']) == 0
  said = capsys.readouterr().out
  assert 'its own clock' in said
  assert said.splitlines()[-1] == '1 jobs: 1 done'
  others = sweep.jobs_of(sweep.parse([*argv, '--ppo_num_epochs=2']))
  assert sweep.strangers(others, out) == [folder.root.name]


@pytest.mark.parametrize(('seeds', 'missing'), [(1, []), (2, []), (5, [2, 3, 4] * 2)])
def test_more_seeds_are_all_that_is_missing(finished, seeds, missing):
  argv, out, folder = finished
  argv = [a for a in argv if not a.startswith('--seeds')]
  jobs = sweep.jobs_of(sweep.parse([*argv, f'--seeds={seeds}']))
  assert jobs[0].name == folder.root.name
  assert [row.seed for job in jobs[1:] for row in job.rows] == missing
  assert sweep.strangers(jobs, out) == []


def test_the_rows_are_the_plain_runs(finished, tmp_path):
  _, _, folder = finished
  plain = tmp_path / 'plain'
  train.main([*TINY, '--ppo_learning_rate=3e-3', '--num_seeds=2', f'--run_dir={plain}'])
  ours, theirs = metrics.read(folder.root), metrics.read(plain)
  for name in set(theirs) - {'phase', 'env_steps', 'wall_seconds', 'steps_per_second'}:
    np.testing.assert_allclose(
      ours[name][:, 2:], theirs[name], rtol=1e-4, atol=1e-5, err_msg=name
    )


def test_a_job_that_is_held_is_left_alone(finished):
  _, _, folder = finished
  held = lock.acquire(folder.locks)
  with pytest.raises(SystemExit) as caught:
    sweep_job.main([str(folder.root), str(os.getppid())])
  assert caught.value.code == sweep_job.HELD_ELSEWHERE
  held.release()


def test_a_job_that_is_left_where_it_is_lets_go_of_its_claim(tmp_path, monkeypatch):
  (job,) = sweep.jobs_of(sweep.parse([f'--out={tmp_path}', *TINY]))
  folder = JobFolder(tmp_path / job.name)
  folder.write_order(job)
  states = []

  def leave_it(*args, on_leave, claimed, **more):
    assert claimed
    states.append(folder.state())
    on_leave()
    states.append(folder.state())

  monkeypatch.setattr(run, 'train_run', leave_it)
  monkeypatch.setattr(run, 'broken_seeds', lambda run: [])
  sweep_job.main([str(folder.root), str(os.getppid())])
  assert states == [State.RUNNING, State.STARTED]


def test_a_job_whose_log_lies_on_a_full_disk_is_done(tmp_path):
  argv = [f'--out={tmp_path}', *TINY]
  (job,) = sweep.jobs_of(sweep.parse(argv))
  folder = JobFolder(tmp_path / job.name)
  folder.root.mkdir()
  folder.log.symlink_to('/dev/full')
  assert sweep.main(argv) == 0
  assert folder.state() is State.DONE


def test_a_sweep_that_waits_for_a_job_elsewhere_does_not_end_as_done(
  tmp_path, monkeypatch
):
  argv = [f'--out={tmp_path}', *TINY]
  (job,) = sweep.jobs_of(sweep.parse(argv))
  assert lock.acquire(JobFolder(tmp_path / job.name).locks) is not None
  said = []

  def say(text):
    said.append(text)
    if text.startswith('waits'):
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(sweep, 'say', say)
  assert sweep.main(argv) == sweep.STOPPED
  assert said[-1] == 'stopped; the same command goes on from here.'


def _python(code, *arguments, **environ):
  return subprocess.run(
    [sys.executable, '-c', code, *arguments],
    env=os.environ | {'PYTHONPATH': str(ROOT), **environ},
    capture_output=True,
    text=True,
    check=False,
    timeout=120,
  )


def test_a_job_whose_sweep_died_while_it_was_starting_does_nothing(tmp_path):
  (job,) = sweep.jobs_of(sweep.parse([f'--out={tmp_path}', *TINY]))
  folder = JobFolder(tmp_path / job.name)
  folder.write_order(job)
  die_at_once = """
import os, subprocess, sys
subprocess.Popen([*sys.argv[1:], str(os.getpid())])
os._exit(0)
"""
  # Returns once the job, too, has closed its output.
  done = _python(die_at_once, *sweep.JOB_COMMAND, str(folder.root))
  assert done.stdout + done.stderr == ''
  assert folder.state() is State.MISSING
  assert not folder.locks.exists()


def test_the_sweep_itself_leaves_the_devices_to_its_jobs(tmp_path):
  code = """
import os, sys
from rlfb_jax.bin import sweep
sweep.main(sys.argv[1:])
print(os.environ['JAX_PLATFORMS'])
"""
  # There is no such device, which a process finds when it starts JAX on it.
  argv = [f'--out={tmp_path}', '--dry_run', *TINY]
  argv += ['--task=walker_walk', '--total_env_steps=4000']
  done = _python(code, *argv, JAX_PLATFORMS='one_for_jobs')
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == 'one_for_jobs'


def test_a_job_readies_its_devices_as_a_plain_run_does(tmp_path, monkeypatch):
  argv = [f'--out={tmp_path}', *TINY, '--mesh=data:2']
  (job,) = sweep.jobs_of(sweep.parse(argv))
  folder = JobFolder(tmp_path / job.name)
  folder.write_order(job)
  seen = []

  class Enough(Exception):
    pass

  def make_environment(config):
    seen.append(config)
    raise Enough

  monkeypatch.setattr(run.hosts, 'connect', lambda options: seen.append(options.mesh))
  monkeypatch.setattr(run, 'make_environment', make_environment)
  with pytest.raises(Enough):
    sweep_job.work(folder)
  assert seen[0] == 'data:2'
  assert len(seen) == 2


def test_help_names_every_flag_of_its_own(capsys):
  sweep.main(['--help'])
  said = capsys.readouterr().out
  for name in (*sweep._SINGLE, *sweep._REPEATED, 'dry_run'):
    assert f'--{name}' in said
