"""Checkpoints of a small state that holds one of everything."""

import json
import os
import shutil
import subprocess
import sys

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.training import checkpoint as checkpoint_lib
from rlfb_jax.training import leaves
from rlfb_jax.training.checkpoint import Checkpoints, UnusableError
from rlfb_jax.training.clock import Clock

# Reads of damaged files may end after those who asked have given up.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


class Toy(flax.struct.PyTreeNode):
  key: jax.Array
  bits: jax.Array
  empty: jax.Array
  flags: jax.Array
  parts: dict[str, tuple[jax.Array, ...]]
  widths: tuple[int, ...] = flax.struct.field(pytree_node=False)


def make(size=1000):
  return Toy(
    key=jax.vmap(jax.random.key)(jnp.arange(2)),
    bits=jnp.array([[0, 2**32 - 1], [7, 2**31]], jnp.uint32),
    empty=jnp.zeros((2, 3, 0)),
    flags=jnp.array([True, False]),
    parts={'a.b/c': (jnp.array([jnp.nan, -0.0]), jnp.arange(2.0 * size))},
    widths=(3, 4),
  )


def bits(tree):
  """Leaves as bytes, so that NaNs and signs count."""
  raw = jax.tree.map(lambda x: jax.random.key_data(x) if leaves._is_key(x) else x, tree)
  return [np.asarray(x).tobytes() for x in jax.tree.leaves(raw)]


@pytest.fixture
def opened(tmp_path):
  """Opens the same folder, again and again, and remembers what it said."""
  said = []

  def open_(**kwargs):
    return Checkpoints(tmp_path / 'c', say=said.append, **kwargs)

  open_.said = said
  open_.folder = tmp_path / 'c'
  return open_


def fill(opened, steps=(10, 20, 30), **kwargs):
  """A checkpoint at each of the steps, whose state tells which it is."""
  saves = opened(**{'kept': len(steps), **kwargs})
  for step in steps:
    state = make().replace(bits=jnp.full((2, 2), step, jnp.uint32))
    saves.save(state, Clock(env_steps=step, score=float(step)))
  saves.wait()


def step_of(restored):
  return int(restored.state.bits[0, 0])


def test_everything_comes_back_to_the_bit(opened):
  state = make()
  clock = Clock(
    env_steps=40,
    done=2,
    pending={'x': np.float32([0.1, np.nan]), 'n': np.array([3, 4], np.int32)},
    seconds=1.25,
    score=-np.inf,
  )
  saves = opened()
  saves.save(state, clock)
  saves.wait()
  restored = opened().restore(jax.eval_shape(make))
  assert bits(restored.state) == bits(state)
  assert jax.tree.structure(restored.state) == jax.tree.structure(state)
  assert leaves.leaves_of(restored.state) == leaves.leaves_of(state)
  assert not any(
    getattr(x, 'weak_type', False) for x in jax.tree.leaves(restored.state)
  )
  for a, b in zip(jax.tree.leaves(restored.clock), jax.tree.leaves(clock), strict=True):
    assert a.to_json() == b.to_json()
  assert restored.clock.pending['x'].dtype == np.float32
  assert opened.said == []


def test_a_save_is_of_the_state_before_the_next_chunk_writes_over_it(opened):
  """Donated arrays are written in place, while the files are being written."""

  @jax.jit
  def start():
    return make(1_000_000)

  def change(state):
    return state.replace(
      bits=state.bits + 1, parts=jax.tree.map(lambda x: x + 1, state.parts)
    )

  change = jax.jit(change, donate_argnums=0)
  state = change(start())
  kept = bits(state)
  saves = opened()
  saves.save(state, Clock(env_steps=1))
  for _ in range(5):
    state = change(state)
  assert bits(state) != kept
  saves.wait()
  assert bits(opened().restore(jax.eval_shape(start)).state) == kept


def test_the_newest_stay_and_the_best(opened):
  saves = opened(kept=2)
  scores = {10: None, 20: 5.0, 30: 7.0, 40: 6.0, 50: None, 60: 1.0}
  for step, score in scores.items():
    saves.save(make(), Clock(env_steps=step, score=score))
  saves.wait()
  assert saves.steps() == [30, 50, 60]
  # Another process knows the scores from the files.
  saves = opened(kept=2)
  saves.restore(jax.eval_shape(make))
  saves.save(make(), Clock(env_steps=70, score=2.0))
  saves.wait()
  assert saves.steps() == [30, 60, 70]


def test_when_a_save_is_due(opened, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(checkpoint_lib.time, 'monotonic', lambda: now[0])
  saves = opened(minutes=2.0, interval=100)
  assert not saves.due(Clock(env_steps=99))
  assert saves.due(Clock(env_steps=100))
  now[0] = 121.0
  assert saves.due(Clock(env_steps=50))
  assert not saves.due(Clock())  # Nothing has happened yet.
  saves.save(make(), Clock(env_steps=50, done=1))
  assert not saves.due(Clock(env_steps=50, done=2))
  assert opened(minutes=0.0).due(Clock(done=1))
  assert not opened(minutes=None).due(Clock(env_steps=10**9))


def test_positions_within_an_iteration_have_checkpoints_of_their_own(opened):
  saves = opened(kept=9)
  for clock in (Clock(), Clock(env_steps=4), Clock(env_steps=4, done=1)):
    saves.save(make(), clock)
    saves.save(make(), clock)
  saves.wait()
  # Where they would collide the later one moves up.
  saves.save(make(), Clock(env_steps=5))
  saves.wait()
  assert saves.steps() == [4, 5, 6]
  assert opened().restore(jax.eval_shape(make)).clock.position == (5, 0)


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x10
  path.write_bytes(bytes(data))


def arrays(folder):
  """The file that holds most."""
  files = [p for p in (folder / 'state').rglob('*') if p.is_file()]
  return max(files, key=lambda p: p.stat().st_size)


def host(folder):
  return folder / 'host' / 'metadata'


def change_clock(path):
  """Valid JSON that says something else."""
  path.write_text(path.read_text().replace('"env_steps": 30', '"env_steps": 31'))


DAMAGES = {
  'truncated arrays': lambda folder: truncate(arrays(folder)),
  'flipped bit': lambda folder: flip(arrays(folder)),
  'missing arrays': lambda folder: arrays(folder).unlink(),
  'missing state': lambda folder: shutil.rmtree(folder / 'state'),
  'truncated clock': lambda folder: truncate(host(folder)),
  'flipped clock': lambda folder: flip(host(folder)),
  'another clock': lambda folder: change_clock(host(folder)),
  'missing clock': lambda folder: host(folder).unlink(),
  'missing description': lambda folder: (folder / 'state' / '_METADATA').unlink(),
  'empty folder': lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_what_is_damaged_is_passed_over_with_a_sentence(opened, damage):
  fill(opened)
  DAMAGES[damage](opened.folder / '30')
  saves = opened()
  restored = saves.restore(jax.eval_shape(make))
  assert step_of(restored) == 20
  assert restored.clock.env_steps == 20
  assert opened.said[0].startswith(f'checkpoint 30 in {opened.folder} is damaged: ')
  assert opened.said[1] == 'going on from checkpoint 20 instead.'
  assert len(opened.said) == 2
  # It is set aside, and its step can be saved again.
  assert (opened.folder / 'damaged-30').is_dir()
  saves.save(make(), Clock(env_steps=30))
  saves.wait()
  assert saves.steps() == [20, 30]
  assert opened().restore(jax.eval_shape(make)).clock.env_steps == 30


def test_what_is_damaged_on_another_host_alone_is_said_to_be(opened, monkeypatch):
  fill(opened, steps=(10, 20))
  others = iter([True, False, False])  # Of 20, of 10, and when all are waited for.
  monkeypatch.setattr(
    checkpoint_lib.hosts, 'anywhere', lambda flag: next(others) or flag
  )
  assert step_of(opened().restore(jax.eval_shape(make))) == 10
  assert opened.said == [
    f'checkpoint 20 in {opened.folder} is damaged: on another host.',
    'going on from checkpoint 10 instead.',
  ]


def test_a_flipped_bit_anywhere_is_found_or_harmless(opened):
  fill(opened, steps=(10,))
  whole = bits(opened().restore(jax.eval_shape(make)).state)
  folder = opened.folder / '10'
  paths = sorted(p for p in folder.rglob('*') if p.is_file() and p.stat().st_size)
  random = np.random.default_rng(0)
  found = 0
  for path in paths:
    for _ in range(2):
      good = path.read_bytes()
      bad = bytearray(good)
      bad[random.integers(len(bad))] ^= 1 << random.integers(8)
      path.write_bytes(bytes(bad))
      try:
        restored = opened().restore(jax.eval_shape(make))
        assert bits(restored.state) == whole, path
        assert restored.clock.position == (10, 0), path
      except UnusableError:
        found += 1
      path.write_bytes(good)
  assert found >= len(paths) // 2


def test_where_all_are_damaged_nothing_is_touched(opened):
  fill(opened)
  for step in (10, 20, 30):
    flip(arrays(opened.folder / str(step)))
  before = {p: p.is_file() and p.read_bytes() for p in opened.folder.rglob('*')}
  with pytest.raises(UnusableError, match='all checkpoints in'):
    opened().restore(jax.eval_shape(make))
  after = {p: p.is_file() and p.read_bytes() for p in opened.folder.rglob('*')}
  assert before == after
  assert len(opened.said) == 3


def test_a_checksum_finds_what_storage_believes(opened, monkeypatch):
  """Numbers that were wrong when they were stored: only the checksum knows."""
  fill(opened, steps=(10,))
  pack = leaves.pack
  lie = lambda tree: {**pack(tree), '.bits': jnp.zeros((2, 2), jnp.uint32)}  # noqa: E731
  sums = leaves.checksums(pack(make()))
  with monkeypatch.context() as patch:
    patch.setattr(leaves, 'pack', lie)
    patch.setattr(leaves, 'checksums', lambda arrays: sums)
    saves = opened()
    saves.save(make(), Clock(env_steps=20))
    saves.wait()
  assert step_of(opened().restore(jax.eval_shape(make))) == 10
  assert '.bits does not have its checksum.' in opened.said[0]


def test_an_unfinished_save_is_no_checkpoint(opened):
  fill(opened, steps=(10,))
  shutil.copytree(opened.folder / '10', opened.folder / '20.orbax-checkpoint-tmp-5')
  assert step_of(opened().restore(jax.eval_shape(make))) == 10
  assert opened.said == []


def test_without_checkpoints_there_is_nothing_to_restore(opened):
  assert opened().restore(jax.eval_shape(make)) is None


@pytest.mark.parametrize(
  ('change', 'sentence'),
  [
    (
      lambda s: s.replace(bits=s.bits[:, :1]),
      r'\.bits is uint32\[2, 2\] in it and uint32\[2, 1\] here',
    ),
    (
      lambda s: s.replace(flags=s.flags.astype(jnp.int32)),
      r'\.flags is bool\[2\] in it and int32\[2\] here',
    ),
    (lambda s: s.replace(parts={'z': s.flags}), r"\.parts\['z'\] is not in it"),
    (lambda s: s.replace(flags=None), r'\.flags is in it and not here'),
    (
      lambda s: s.replace(
        key=jax.vmap(lambda k: jax.random.key(k, impl='rbg'))(s.flags)
      ),
      r'\.key is key<fry>\[2\] in it and key<rbg>\[2\] here',
    ),
  ],
)
def test_another_state_is_refused_by_the_name_of_its_first_leaf(
  opened, change, sentence
):
  fill(opened, steps=(10, 20))
  with pytest.raises(UnusableError, match=sentence):
    opened().restore(jax.eval_shape(lambda: change(make())))
  assert opened.said == []


def test_a_later_format_is_refused(opened):
  fill(opened, steps=(10,))
  path = host(opened.folder / '10')
  record = json.loads(path.read_text())
  record['format_version'] = checkpoint_lib.FORMAT_VERSION + 1
  del record['crc32']
  record['crc32'] = checkpoint_lib._crc(record)
  path.write_text(json.dumps(record))
  with pytest.raises(UnusableError, match='newer than 1; use a newer rlfb_jax'):
    opened().restore(jax.eval_shape(make))


def test_other_files_are_brought_up_to_date_first(opened):
  seen = []
  saves = opened(before_save=lambda state: seen.append((bits(state), saves.steps())))
  saves.save(make(), Clock(env_steps=1))
  saves.wait()
  assert seen == [(bits(make()), [])]


def random_state(seed):
  """What no compression makes small."""
  numbers = np.random.default_rng(seed).normal(size=(2, 100_000))
  return make().replace(parts={'x': (jnp.asarray(numbers, jnp.float32),)})


def test_a_full_disk_costs_checkpoints_and_not_the_run(opened, capfd, small_files):
  saves = opened()
  saves.save(random_state(1), Clock(env_steps=1))
  saves.wait()
  with small_files(100_000):
    # The next save finds out, as does who waits.
    saves.save(random_state(2), Clock(env_steps=2))
    saves.save(random_state(3), Clock(env_steps=3))
    assert [line[:32] for line in opened.said] == ['checkpoint 2 could not be writte']
    saves.wait()
    assert saves.saved == (1, 0)
    # Nothing is left of them, which would make the disk fuller.
    assert [path.name for path in opened.folder.iterdir()] == ['1']
    # The last one is tried again when the run ends, and only then.
    assert not saves.due(Clock(env_steps=3))
    saves.save(random_state(3), Clock(env_steps=3))
    saves.wait()
  assert opened.said[1:] == 2 * [
    'checkpoint 3 could not be written (File too large); a resumed run would go on'
    ' from step 1.'
  ]
  assert 'ERROR' not in capfd.readouterr().err  # Of Orbax, which logs what it raises.
  assert bits(opened().restore(jax.eval_shape(lambda: random_state(1))).state) == bits(
    random_state(1)
  )
  saves.save(random_state(3), Clock(env_steps=3))
  saves.wait()
  assert (saves.saved, saves.steps()) == ((3, 0), [1, 3])


def test_people_hear_of_a_full_disk_in_sentences_alone(tmp_path):
  """Of many arrays that fail at once, storage alone would say thousands of lines."""
  program = """
import pathlib, resource, sys
import jax.numpy as jnp
from rlfb_jax.training.checkpoint import Checkpoints
from rlfb_jax.training.clock import Clock

saves = Checkpoints(pathlib.Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (50, resource.RLIM_INFINITY))
for step in range(1, 6):
  saves.save([jnp.arange(100.0) + step for _ in range(60)], Clock(env_steps=step))
saves.wait()
print(saves.saved)
"""
  done = subprocess.run(
    [sys.executable, '-c', program, str(tmp_path / 'c')],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_ENABLE_COMPILATION_CACHE': '0'},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert (done.returncode, done.stdout) == (0, '(0, 0)\n')
  said = done.stderr.splitlines()
  assert [line.partition(' could')[0] for line in said] == [
    f'checkpoint {step}' for step in range(1, 6)
  ]


def test_no_checkpoint_is_ahead_of_the_other_files(opened):
  full = [True]

  def before_save(state):
    if full.pop():
      raise OSError(28, 'No space left on device')

  saves = opened(before_save=before_save)
  saves.save(make(), Clock(env_steps=1))
  assert opened.said == [
    'checkpoint 1 could not be written (No space left on device); a resumed run would'
    ' go on from step 0.'
  ]
  full.append(False)
  saves.save(make(), Clock(env_steps=1))
  saves.wait()
  assert saves.steps() == [1]
