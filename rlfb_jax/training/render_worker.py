"""Draws poses off-screen, in a process of its own.

Graphics drivers may abort a process rather than raise, and which one is used is
fixed when MuJoCo is imported; so `render.py` runs this file once a driver. It
imports MuJoCo and NumPy alone.

  render_worker.py FOLDER     reads model.mjb, qpos.npy, view.json; writes frames.npy
"""

import json
import pathlib
import sys

import mujoco
import numpy as np


def main(folder: pathlib.Path) -> None:
  """Draws every row of `qpos.npy`."""
  model = mujoco.MjModel.from_binary_path(str(folder / 'model.mjb'))
  view = json.loads((folder / 'view.json').read_text())
  height, width, camera = view['height'], view['width'], view['camera']
  model.vis.global_.offheight = max(model.vis.global_.offheight, height)
  model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
  # In software, shadow maps of the suite's size take most of the time.
  model.vis.quality.shadowsize = min(model.vis.quality.shadowsize, 512)
  if camera is None:
    camera = _best_camera(model)
  data = mujoco.MjData(model)
  frames = []
  with mujoco.Renderer(model, height, width) as renderer:
    for qpos in np.load(folder / 'qpos.npy'):
      data.qpos[:] = qpos
      mujoco.mj_forward(model, data)
      renderer.update_scene(data, camera)
      frames.append(renderer.render())
  np.save(folder / 'frames.npy', np.stack(frames))


def _best_camera(model: mujoco.MjModel) -> int:
  """The first camera that follows the body, else the first, else a free one."""
  follows = model.cam_mode != mujoco.mjtCamLight.mjCAMLIGHT_FIXED
  if follows.any():
    return int(np.argmax(follows))
  return 0 if model.ncam else -1


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
