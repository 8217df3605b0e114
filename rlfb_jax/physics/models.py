"""MuJoCo models: the benchmark's own MJCF, plus the sensors that our tasks read.

The XML comes from the installed `dm_control` package (Apache-2.0), found on disk
and never imported: importing `dm_control` would load a renderer.
"""

import importlib.util
import pathlib
from typing import Literal

import jax
import mujoco
import numpy as np

_SENSOR_TYPES = {
  'pos': mujoco.mjtSensor.mjSENS_FRAMEPOS,
  'zaxis': mujoco.mjtSensor.mjSENS_FRAMEZAXIS,
}
# XBODY is the body's own frame; BODY would be its inertial frame.
_OBJECT_TYPES = {
  'body': mujoco.mjtObj.mjOBJ_XBODY,
  'site': mujoco.mjtObj.mjOBJ_SITE,
}


def suite_folder() -> pathlib.Path:
  """Folder with the MJCF files of the installed DeepMind Control Suite.

  Raises:
    ValueError: if dm_control is not installed.
  """
  spec = importlib.util.find_spec('dm_control')
  for location in (spec and spec.submodule_search_locations) or ():
    folder = pathlib.Path(location) / 'suite'
    if folder.is_dir():
      return folder
  raise ValueError(
    'The model files of the DeepMind Control Suite were not found, because the '
    'package dm_control is not installed; try `pip install dm-control==1.0.50`.'
  )


def load_suite(domain: str) -> mujoco.MjSpec:
  """Editable model of a suite domain, its shared includes resolved.

  Args:
    domain: name of the MJCF file without its ending, e.g. `walker`.

  Raises:
    ValueError: if dm_control is missing or has no such domain.
  """
  path = suite_folder() / f'{domain}.xml'
  if not path.is_file():
    known = ', '.join(sorted(p.stem for p in path.parent.glob('*.xml')))
    raise ValueError(f'domain={domain} has no model file; try one of {known}.')
  return mujoco.MjSpec.from_file(str(path))


def add_frame_sensor(
  spec: mujoco.MjSpec,
  of: Literal['body', 'site'],
  name: str,
  quantity: Literal['pos', 'zaxis'],
) -> None:
  """Adds the sensor `<name>_<quantity>`: 3 numbers in world coordinates.

  Args:
    spec: the model, edited in place.
    of: what carries the frame.
    name: name of the body or site.
    quantity: `pos` is the frame's origin (m), `zaxis` its z-axis (unit vector).
  """
  spec.add_sensor(
    name=f'{name}_{quantity}',
    type=_SENSOR_TYPES[quantity],
    objtype=_OBJECT_TYPES[of],
    objname=name,
  )


def read_sensor(model: mujoco.MjModel, sensordata: jax.Array, *names: str) -> jax.Array:
  """Readings of named sensors in a row, [..., sum of their dimensions].

  Args:
    model: the model whose sensors they are.
    sensordata: all readings, [..., ns].
    *names: sensors; consecutive ones cost a single slice.

  Raises:
    ValueError: at trace time, if the model has no sensor of that name.
  """
  columns: list[int] = []
  for name in names:
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, name)
    if index < 0:
      known = ', '.join(model.sensor(i).name for i in range(model.nsensor))
      raise ValueError(f'The model has no sensor {name}; it has {known}.')
    start = int(model.sensor_adr[index])
    columns.extend(range(start, start + int(model.sensor_dim[index])))
  if columns == list(range(columns[0], columns[-1] + 1)):
    return sensordata[..., columns[0] : columns[-1] + 1]
  return sensordata[..., np.array(columns)]
