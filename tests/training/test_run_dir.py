"""A run's folder and its manifest."""

import json
import pathlib
import platform
import shutil
import socket
import subprocess
import threading
from importlib import metadata

import jax
import pytest

from rlfb_jax.training import files, manifest, run_dir


def test_a_new_run_has_flags_and_manifest(tmp_path):
  run = run_dir.create(str(tmp_path / 'a' / 'b'), 'x', ['--seed=1', '--task=t'], ['p'])
  assert run.flags.read_text() == '--seed=1\n--task=t\n'
  assert json.loads(run.manifest.read_text())['command'] == ['p']
  for folder in (run.tensorboard, run.policy, run.report):
    assert folder.is_dir()
    assert folder.parent == tmp_path / 'a' / 'b'


def test_a_run_is_never_written_over(tmp_path):
  run_dir.create(str(tmp_path / 'a'), 'x')
  with pytest.raises(ValueError, match='holds a run already; name another'):
    run_dir.create(str(tmp_path / 'a'), 'x')


def test_of_those_who_make_one_run_at_once_one_does(tmp_path):
  made, refused, together = [], [], threading.Barrier(6)

  def make(name):
    together.wait()
    try:
      run_dir.create(str(tmp_path / 'a'), 'x', [f'--task={name}'], [name])
      made.append(name)
    except ValueError as error:
      refused.append(str(error))

  threads = [threading.Thread(target=make, args=[str(i)]) for i in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(made) == 1
  assert len(refused) == 5
  assert all('holds a run already' in text for text in refused)
  run = run_dir.RunDir(tmp_path / 'a')
  assert run.flags.read_text() == f'--task={made[0]}\n'
  assert json.loads(run.manifest.read_text())['command'] == made


def test_a_lock_is_waited_for_and_let_go(tmp_path):
  path = tmp_path / 'lock'
  with files.locked(path) as first, files.locked(path, patience=0) as second:
    assert first
    assert not second
  with files.locked(path, patience=0) as free:
    assert free
  holder = files.locked(path)
  assert holder.__enter__()
  later = threading.Timer(0.2, holder.__exit__, (None, None, None))
  later.start()
  with files.locked(path, patience=30) as free:
    assert free
  later.join()


def test_runs_without_a_name_get_the_first_free_one(tmp_path):
  names = [
    run_dir.create('', 'walker walk/rbrl', parent=str(tmp_path)).root.name
    for _ in range(3)
  ]
  assert names == ['walker-walk-rbrl', 'walker-walk-rbrl-2', 'walker-walk-rbrl-3']


def test_places_that_cannot_be_are_one_sentence(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match=r'cannot be made \('):
    run_dir.create(str(tmp_path / 'file'), 'x')


def test_the_manifest_says_with_what_and_not_where():
  made = manifest.make(
    [
      *('/some/where/rlfb-train', '--task=walker_walk', '--run_dir=/home/me/a'),
      *('runs/b', '/home/me/sweep/walker-n=4-s0', '--run_dir=/home/me/n=4/s0'),
    ]
  )
  assert made['command'] == [
    'rlfb-train',
    '--task=walker_walk',
    '--run_dir=a',
    'runs/b',
    'walker-n=4-s0',
    '--run_dir=s0',
  ]
  assert made['versions']['jax'] == jax.__version__
  assert made['versions']['python'] == platform.python_version()
  assert made['device']['platform'] == jax.devices()[0].platform
  assert made['precision']['float'] == 'float32'
  assert made['format_version'] == manifest.FORMAT_VERSION
  text = json.dumps(made)
  assert str(pathlib.Path(__file__).resolve().parents[2]) not in text
  assert socket.gethostname() not in text


def test_the_revision_tells_whether_the_source_was_changed(tmp_path):
  assert manifest.git_revision(tmp_path) is None

  def git(*args):
    identity = ['-c', 'user.name=n', '-c', 'user.email=e']
    subprocess.run(['git', *identity, *args], cwd=tmp_path, check=True)

  git('init', '-q')
  (tmp_path / 'a').write_text('1')
  git('add', 'a')
  git('commit', '-q', '-m', 'first')
  found = manifest.git_revision(tmp_path)
  assert len(found['revision']) == 40
  assert found['changed'] is False
  (tmp_path / 'a').write_text('2')
  assert manifest.git_revision(tmp_path)['changed'] is True


def test_a_run_tells_its_rows_and_that_it_is_complete(tmp_path):
  rows = [run_dir.Row(3, {}), run_dir.Row(3, {'ppo_learning_rate': 1e-3})]
  run = run_dir.create(str(tmp_path / 'a'), 'x', rows=rows)
  assert run_dir.read_rows(run) == rows
  assert run_dir.read_finished(run) is None
  run_dir.write_finished(run, env_steps=64, seconds=1.5)
  assert run_dir.read_finished(run) == {'env_steps': 64, 'seconds': 1.5}
  assert not list(run.root.glob('*.new'))


@pytest.mark.parametrize(
  ('rows', 'names'),
  [
    ([(100, {}), (101, {})], ['seed_100', 'seed_101']),
    (
      [(3, {}), (3, {'b': 1e-05, 'a': 'x,y/z'})],
      ['seed_3', 'seed_3-a_x_y_z-b_1e-05'],
    ),
    ([(3, {}), (4, {'a': 1, 'b': 2, 'c': 3})], ['row_0', 'row_1']),
    ([(3, {'a': 'x,y'}), (3, {'a': 'x;y'})], ['row_0', 'row_1']),
    ([], []),
  ],
)
def test_rows_have_short_names_that_are_their_own(rows, names):
  assert run_dir.row_names([run_dir.Row(*row) for row in rows]) == names


def test_the_manifest_lists_sessions_and_what_is_new_in_them(tmp_path):
  run = run_dir.create(str(tmp_path / 'a'), 'x', command=['p'])
  assert manifest.add_session(run.manifest, 0, ['first']) == []
  assert manifest.add_session(run.manifest, 40, ['second']) == []
  record = json.loads(run.manifest.read_text())
  assert [s['env_steps'] for s in record['sessions']] == [0, 40]
  assert [s['command'] for s in record['sessions']] == [['first'], ['second']]
  record['sessions'][-1]['versions']['jax'] = '0.1'
  run.manifest.write_text(json.dumps(record))
  assert manifest.add_session(run.manifest, 80) == [f'jax 0.1 is {jax.__version__} now']


@pytest.fixture
def accelerated(tmp_path, monkeypatch):
  """A folder of packages on the path, by their metadata alone, and a driver's file."""
  packages = tmp_path / 'packages'

  def install(name, version, folder=packages):
    info = folder / f'{name}-x.dist-info'
    info.mkdir(parents=True, exist_ok=True)
    about = f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
    (info / 'METADATA').write_text(about)

  for name in ('jax-cuda13-plugin', 'jax_cuda13_pjrt', 'nvidia-cublas', 'warp-lang'):
    install(name, '1.5')
  install('nvidia-cudnn-cu13', '9.1')
  for name in ('nvidia-cuda-cupti', 'libtpu-of-others', 'nvidia-ml-py'):
    install(name, '1.5')
  (packages / 'broken-1.dist-info').mkdir()
  driver = tmp_path / 'version'
  driver.write_text(
    'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build'
    '  (builder@host)  Tue Mar  5\nGCC version:  gcc version 12.2.0 (Debian)\n'
  )
  monkeypatch.setattr(manifest, '_DRIVER', driver)
  everywhere = metadata.distributions
  path = [str(packages), str(tmp_path / 'behind')]
  monkeypatch.setattr(metadata, 'distributions', lambda: everywhere(path=path))
  install('warp-lang', '1.4', tmp_path / 'behind')
  return install, driver


def test_the_manifest_has_what_decides_bits_on_accelerators(accelerated):
  _, driver = accelerated
  versions = manifest.make([])['versions']
  own = {'python', *manifest._PACKAGES}
  assert {name: v for name, v in versions.items() if name not in own} == {
    'jax-cuda13-pjrt': '1.5',
    'jax-cuda13-plugin': '1.5',
    'nvidia-cublas': '1.5',
    'nvidia-cudnn-cu13': '9.1',
    'nvidia-driver': '550.54.15',
    'warp-lang': '1.5',
  }
  driver.write_text(
    'NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n'
  )
  assert manifest.make([])['versions']['nvidia-driver'] == '535.104.05'
  driver.unlink()
  assert 'nvidia-driver' not in manifest.make([])['versions']


def test_libraries_that_another_package_brought_are_not_told(accelerated, tmp_path):
  """PyTorch comes with NVIDIA's, which JAX on a CPU does not use."""
  for folder in (tmp_path / 'packages').glob('jax*'):
    shutil.rmtree(folder)
  versions = manifest.make([])['versions']
  told = {name for name in versions if name not in ('python', *manifest._PACKAGES)}
  assert told == {'nvidia-driver', 'warp-lang'}


def test_a_session_tells_what_is_new_on_the_accelerator(accelerated, tmp_path):
  install, driver = accelerated
  path = tmp_path / 'manifest.json'
  manifest.write(path, [])
  assert manifest.add_session(path, 0, []) == []
  install('nvidia-cudnn-cu13', '9.2')
  install('libtpu', '0.1')
  driver.unlink()
  assert manifest.add_session(path, 40, []) == [
    'libtpu None is 0.1 now',
    'nvidia-cudnn-cu13 9.1 is 9.2 now',
    'nvidia-driver 550.54.15 is None now',
  ]
