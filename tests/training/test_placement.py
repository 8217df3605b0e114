"""Meshes of devices: what they are refused for, and that they change no result."""

import types

import numpy as np
import pytest

from rlfb_jax.training import placement
from tests.training import spread_runs

# Of the same program, split otherwise: sums in another order, in float32.
TOLERANCE = 2e-4
# Rounding decides on which side of a ReLU's kink, or of a tie of two critics, a number
# falls that is there within 1e-7. Seed 1 meets one on `data:2` (1e-3 apart afterwards);
# of eight seeds the other seven stay within 6e-6.
SEED = ('--seed=20',)
RESUMED = 'seed:2,data:2'
RESUME = (f'--resume={RESUMED}',)
ALL = ('seed:2', 'data:2', 'seed:2,data:2')


def devices(*hosts):
  return [types.SimpleNamespace(process_index=host) for host in hosts]


@pytest.mark.parametrize(
  ('text', 'sizes'),
  [('', (1, 1)), ('seed:4', (4, 1)), ('data:2', (1, 2)), ('data:2, seed:3', (3, 2))],
)
def test_a_mesh_as_text(text, sizes):
  assert placement.parse_mesh(text) == sizes


@pytest.mark.parametrize(
  ('text', 'num_seeds', 'hosts', 'said'),
  [
    ('sed:2', 2, (0, 0), r'sed.*did you mean seed\?'),
    ('seed', 2, (0, 0), r'--mesh=seed needs a number of devices.*try --mesh=seed:2'),
    ('seed:0', 2, (0, 0), 'needs a number'),
    ('seed:2,data:2', 2, (0, 0), r'takes 4 devices.* are 2; try --mesh=seed:2\.'),
    ('seed:8', 8, (0,) * 3, r'takes 8 devices.* are 3; try --mesh=seed:2\.'),
    ('data:4', 1, (0, 0), r'takes 4 devices.* are 2; try --mesh=seed:1\.'),
    ('seed:4', 6, (0,) * 4, r'--num_seeds=4 or 8, or --mesh=seed:3\.'),
    ('seed:4', 3, (0,) * 4, r'--num_seeds=4, or --mesh=seed:3\.'),
    ('seed:2', 2, (0, 0, 1, 1), 'takes 2 of 4.*seed:4 with a multiple of 4 seeds'),
    ('', 3, (0, 1), r'--num_seeds=3 cannot be spread evenly over --mesh=seed:2'),
  ],
)
def test_refusals_name_what_works(text, num_seeds, hosts, said):
  with pytest.raises(ValueError, match=said):
    placement.make_placement(text, num_seeds, devices(*hosts))


def test_one_device_needs_no_placement():
  for text in ('', 'seed:1', 'seed:1,data:1'):
    assert placement.make_placement(text, 3, devices(0, 0)) is None


def test_environments_that_do_not_divide_are_refused_by_their_flag():
  said = r'--ppo_num_envs=8 cannot.*try --ppo_num_envs=6 or 9, or --mesh=data:2\.'
  with pytest.raises(ValueError, match=said):
    placement.check_environments(8, 3, '--ppo_num_envs')
  placement.check_environments(8, 4)


def read(folder, mesh):
  """The state as floats; C MuJoCo's is float64 in pairs of uint32."""
  with np.load(folder / f'{mesh}.npz') as file:
    arrays = dict(file)
  return {
    name: x.view(np.float64) if name.endswith('.engine') else x
    for name, x in arrays.items()
  }


def assert_same(folder, mesh, other=spread_runs.ONE):
  """Whole numbers, keys and flags are equal, floats up to rounding."""
  expected, found = read(folder, other), read(folder, mesh)
  assert expected.keys() == found.keys()
  for name, x in expected.items():
    y = found[name]
    if np.issubdtype(x.dtype, np.floating):
      scale = 1 + np.max(np.abs(x[np.isfinite(x)]), initial=0)
      np.testing.assert_allclose(
        y, x, rtol=0, atol=TOLERANCE * scale, err_msg=f'{mesh}: {name}'
      )
    else:
      np.testing.assert_array_equal(y, x, err_msg=f'{mesh}: {name}')


def assert_resumed(folder, mesh):
  """A run that was taken up half way has the bits of one that went through."""
  with (
    np.load(folder / f'{mesh}.npz') as whole,
    np.load(folder / f'{mesh}-resumed.npz') as resumed,
  ):
    assert set(whole) == set(resumed)
    for name in whole:
      assert whole[name].tobytes() == resumed[name].tobytes(), f'{mesh}: {name}'


@pytest.mark.parametrize(
  ('method', 'task', 'meshes', 'flags'),
  [
    ('ppo', 'cartpole_swingup', ALL, ('--eval_episodes=4',)),
    ('ppo', 'cartpole_swingup', ('seed:2,data:2',), ('--engine=mjx',)),
    ('sac', 'cartpole_swingup', ALL, ()),
    ('mrn', 'probe_choice', ALL, SEED + RESUME),
    ('rbrl_kl', 'probe_choice', ALL, RESUME),
    ('ppo', 'probe_choice', ('seed:8', 'data:8', 'seed:4,data:2'), ('--num_seeds=8',)),
  ],
)
def test_a_mesh_computes_what_one_device_does(tmp_path, method, task, meshes, flags):
  run = spread_runs.start(
    tmp_path, method, task, spread_runs.ONE, *meshes, devices=8, flags=flags
  )
  spread_runs.finish(run)
  for mesh in meshes:
    assert_same(tmp_path, mesh)
  if RESUME[0] in flags:
    assert_resumed(tmp_path, RESUMED)
