"""The floors of the house: imports point downwards only."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'rlfb_jax'

# Rooms on one floor may not import each other.
FLOORS = (
  ('core',),
  ('physics',),
  ('envs',),
  ('agents', 'feedback', 'repulsion'),
  ('reward',),  # Learns from the labels that feedback stores.
  ('methods',),
  ('training',),
  ('reports', 'sweeps'),
  ('presets',),
  ('bin',),
)
FLOOR_OF = {room: i for i, floor in enumerate(FLOORS) for room in floor}
FILES = sorted(p.relative_to(ROOT).as_posix() for p in PACKAGE.glob('*/**/*.py'))


def _rooms_imported(path):
  """(line, room) of every import from this package, those inside functions too."""
  for node in ast.walk(ast.parse((ROOT / path).read_text())):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}:{node.lineno} imports relatively'
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    for name in names:
      parts = name.split('.')
      if parts[0] == 'rlfb_jax' and len(parts) > 1:
        yield node.lineno, parts[1]


def test_every_room_has_a_floor():
  assert {path.split('/')[1] for path in FILES} == set(FLOOR_OF)


@pytest.mark.parametrize('path', FILES)
def test_imports_point_downwards(path):
  room = path.split('/')[1]
  for line, other in _rooms_imported(path):
    assert other == room or FLOOR_OF[other] < FLOOR_OF[room], (
      f'{path}:{line} imports rlfb_jax.{other}, which is not below {room}'
    )
