"""Clips of behaviour from poses, drawn by MuJoCo without a screen.

Training never depends on graphics: where nothing can draw, callers get one sentence
that says what to install, and go on.
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from PIL import Image

from rlfb_jax.envs.environment import MujocoEnvironment
from rlfb_jax.feedback.clips import Clip

HOW_TO_GET_GL = (
  'no clip: off-screen OpenGL is not available here; on Debian or Ubuntu '
  '`apt-get install libegl1 libgl1-mesa-dri` or `apt-get install libosmesa6` gives '
  'it, after which MUJOCO_GL=egl or MUJOCO_GL=osmesa is found by itself'
)

_WORKER = pathlib.Path(__file__).with_name('render_worker.py')
_TIMEOUT_S = 300
_MAX_FPS = 25  # GIF viewers slow down what is faster.


class NoOffscreenGLError(RuntimeError):
  """No way to draw without a screen was found; the message says how to get one."""


def render_frames(
  model: mujoco.MjModel,
  poses: Any,
  *,
  width: int = 320,
  height: int = 240,
  camera: str | None = None,
) -> np.ndarray:
  """Pictures of poses.

  Args:
    model: the bodies.
    poses: [T, np]; the first `model.nq` numbers of each row are joint positions.
    width: pixels.
    height: pixels.
    camera: name of the model's camera; by default the first that follows the body.

  Returns:
    [T, height, width, 3] uint8.

  Raises:
    NoOffscreenGLError: if no driver works.
    ValueError: if the poses do not fit the model or the camera is unknown.
  """
  qpos = np.asarray(poses, np.float64)[..., : model.nq]
  if qpos.ndim != 2 or qpos.shape[1] != model.nq or not len(qpos):
    raise ValueError(
      f'poses of shape {np.shape(poses)} do not fit the model; expected [T, n] with '
      f'T >= 1 and n >= {model.nq}.'
    )
  cameras = [model.camera(i).name for i in range(model.ncam)]
  if camera is not None and camera not in cameras:
    raise ValueError(f'camera={camera} is unknown; there are {", ".join(cameras)}.')
  view = {'width': width, 'height': height, 'camera': camera}
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    mujoco.mj_saveModel(model, str(folder / 'model.mjb'))
    np.save(folder / 'qpos.npy', qpos)
    (folder / 'view.json').write_text(json.dumps(view))
    for driver in drivers(os.environ):
      if _run_worker(folder, driver):
        return np.load(folder / 'frames.npy')
  raise NoOffscreenGLError(HOW_TO_GET_GL)


def drivers(environ: Mapping[str, str], system: str = sys.platform) -> list[str]:
  """Values of MUJOCO_GL worth trying, the best first; empty where it is switched off.

  Args:
    environ: the environment; its own MUJOCO_GL comes first, for a machine whose
      owner knows better.
    system: as `sys.platform`.
  """
  wish = environ.get('MUJOCO_GL', '').lower().strip()
  if wish in ('disable', 'disabled', 'off', 'false', '0'):
    return []
  known = ['egl', 'osmesa'] if system == 'linux' else ['']
  if system == 'linux' and environ.get('DISPLAY'):
    known.append('glfw')
  return list(dict.fromkeys([wish, *known] if wish else known))


def write_clip(
  path: str | pathlib.Path, frames: np.ndarray, seconds_per_frame: float
) -> pathlib.Path:
  """Writes a moving picture at its true speed.

  Args:
    path: `.gif`, or `.mp4` where ffmpeg is installed; without a suffix MP4 if
      possible, else GIF.
    frames: [T, height, width, 3] uint8.
    seconds_per_frame: simulated time between frames; some are left out where they
      would be shown at more than 25 a second.

  Returns:
    The path with its suffix.

  Raises:
    ValueError: for another suffix, or MP4 without an ffmpeg that works.
    OSError: if the file cannot be written.
  """
  path = pathlib.Path(path)
  ffmpeg = shutil.which('ffmpeg')
  if not path.suffix:
    if ffmpeg:
      with contextlib.suppress(ValueError):  # An ffmpeg that does not work.
        return write_clip(path.with_suffix('.mp4'), frames, seconds_per_frame)
    path = path.with_suffix('.gif')
  if path.suffix not in ('.gif', '.mp4'):
    raise ValueError(f'clip={path} must end in .gif or .mp4.')
  if path.suffix == '.mp4' and not ffmpeg:
    raise ValueError(f'clip={path} needs ffmpeg, which is not installed; try .gif.')
  stride = _stride(seconds_per_frame)
  frames, duration = frames[::stride], seconds_per_frame * stride
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.mp4':
    try:
      _write_mp4(path, frames, 1.0 / duration, str(ffmpeg))
    except (OSError, subprocess.CalledProcessError):
      path.unlink(missing_ok=True)  # What there is of it plays nowhere.
      raise ValueError(
        f'clip={path} could not be written by ffmpeg; try .gif.'
      ) from None
  else:
    _write_gif(path, frames, duration)
  return path


def clip_or_sentence(
  path: str | pathlib.Path,
  model: mujoco.MjModel,
  poses: Any,
  seconds_per_pose: float,
  *,
  max_seconds: float = 10.0,
  **view: Any,
) -> str:
  """Writes a clip where that is possible; what it returns is meant for printing.

  Args:
    path: see `write_clip`.
    model: the bodies.
    poses: [T, np], see `render_frames`.
    seconds_per_pose: simulated time between poses.
    max_seconds: what comes later is left out.
    **view: width, height, camera of `render_frames`.

  Returns:
    The clip's path, or the sentence that says how to get one.
  """
  stride = _stride(seconds_per_pose)
  poses = np.asarray(poses)[: max(round(max_seconds / seconds_per_pose), 1) : stride]
  try:
    frames = render_frames(model, poses, **view)
  except NoOffscreenGLError as error:
    return str(error)
  return str(write_clip(path, frames, seconds_per_pose * stride))


def show_again(
  path: str | pathlib.Path,
  env: MujocoEnvironment,
  shown: Clip,
  index: int | tuple[int, ...],
  **view: Any,
) -> str:
  """Writes what a teacher was shown; what it returns is meant for printing.

  Args:
    path: see `write_clip`.
    env: of the run's task.
    shown: clips of a store, `ratings.clip` or `pairs.asked.first`, leaves
      [..., H, n].
    index: which; (seed, row) in the stores of a run. Rows are in the order asked.
    **view: width, height, camera of `render_frames`.

  Returns:
    As `clip_or_sentence`.

  Raises:
    IndexError: if there is no such clip.
  """
  # In NumPy, because JAX would take the last clip for one beyond it.
  poses = np.asarray(shown.pose)[index]
  seconds = env.control_timestep
  return clip_or_sentence(
    path, env.model, poses, seconds, max_seconds=len(poses) * seconds, **view
  )


def _stride(seconds: float) -> int:
  """Every which frame is kept."""
  return max(round(1.0 / (_MAX_FPS * seconds)), 1)


def _run_worker(folder: pathlib.Path, driver: str) -> bool:
  """Whether the worker drew the frames with this driver."""
  environ = {k: v for k, v in os.environ.items() if k != 'PYOPENGL_PLATFORM'}
  environ['MUJOCO_GL'] = driver
  # -P: the worker's neighbours must not stand in for modules of the same name.
  command = [sys.executable, '-P', str(_WORKER), str(folder)]
  try:
    done = subprocess.run(
      command, env=environ, capture_output=True, timeout=_TIMEOUT_S, check=False
    )
  except (OSError, subprocess.TimeoutExpired):
    return False
  # Some drivers fail only at exit, after the frames were written.
  return done.returncode == 0 or (folder / 'frames.npy').is_file()


def _write_gif(path: pathlib.Path, frames: np.ndarray, duration: float) -> None:
  """One palette for all frames: colours that stay still compress well."""
  some = np.concatenate(frames[:: max(len(frames) // 8, 1)])
  palette = Image.fromarray(some).quantize(128)
  images = [
    Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE)
    for f in frames
  ]
  images[0].save(
    path,
    save_all=True,
    append_images=images[1:],
    duration=round(100 * duration) * 10,  # GIF counts hundredths of a second.
    loop=0,
  )


def _write_mp4(path: pathlib.Path, frames: np.ndarray, fps: float, ffmpeg: str) -> None:
  _, height, width, _ = frames.shape
  source = ['-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', f'{width}x{height}']
  # Even sides, as the format wants, and the colours that every player knows.
  target = ['-vf', 'pad=ceil(iw/2)*2:ceil(ih/2)*2', '-pix_fmt', 'yuv420p']
  command = [ffmpeg, '-y', '-loglevel', 'error', *source, '-r', f'{fps:.6f}']
  command += ['-i', '-', *target, str(path)]
  subprocess.run(
    command,
    input=np.ascontiguousarray(frames).tobytes(),
    stderr=subprocess.DEVNULL,  # It says more than a sentence.
    check=True,
  )
