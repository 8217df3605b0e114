"""Clips: what is drawn, at which speed it is shown, and what is said without GL."""

import shutil

import mujoco
import numpy as np
import pytest
from PIL import Image

from rlfb_jax.training import render

XML = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="far" pos="0 -9 0" xyaxes="1 0 0 0 0 1"/>
    <camera name="near" pos="0 -3 0" xyaxes="1 0 0 0 0 1"/>
    <body>
      <joint name="x" type="slide" axis="1 0 0"/>
      <camera name="follow" mode="track" pos="0 -3 0" xyaxes="1 0 0 0 0 1"/>
      <geom type="sphere" size=".3" rgba="1 0 0 1"/>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope='module')
def model():
  return mujoco.MjModel.from_xml_string(XML)


def _red_centre(frame):
  red = frame[..., 0].astype(float) * (frame[..., 0] > 2 * frame[..., 1])
  return (red.sum(0) @ np.arange(frame.shape[1])) / red.sum()


def test_frames_show_the_poses(model):
  poses = np.array([[-0.6, 5.0], [0.0, 5.0], [0.6, 5.0]])  # qpos, then qvel.
  try:
    frames = render.render_frames(model, poses, width=80, height=60, camera='near')
  except render.NoOffscreenGLError as error:
    pytest.skip(str(error))
  assert frames.shape == (3, 60, 80, 3)
  assert frames.dtype == np.uint8
  centres = [_red_centre(f) for f in frames]
  assert centres[0] < centres[1] - 5 < centres[2] - 10
  assert abs(centres[1] - 39.5) < 1
  # Without a name, the camera that follows keeps the body in the middle.
  follow = render.render_frames(model, poses, width=80, height=60)
  assert all(abs(_red_centre(f) - 39.5) < 1 for f in follow)


def test_a_driver_that_aborts_is_contained(model, tmp_path, monkeypatch):
  crash = tmp_path / 'crash.py'
  crash.write_text('import os; os.abort()')
  monkeypatch.setattr(render, '_WORKER', crash)
  said = render.clip_or_sentence(tmp_path / 'clip', model, np.zeros((2, 1)), 0.02)
  assert said == render.HOW_TO_GET_GL
  assert 'apt-get install' in said
  assert not list(tmp_path.glob('clip*'))


def test_a_clip_shows_its_first_seconds_at_true_speed(model, tmp_path, monkeypatch):
  asked = []

  def draw(model, poses, **view):
    asked.append((np.asarray(poses)[:, 0].tolist(), view))
    grey = np.linspace(0, 255, len(poses), dtype=np.uint8)
    return np.broadcast_to(grey[:, None, None, None], (len(poses), 8, 8, 3))

  monkeypatch.setattr(render, 'render_frames', draw)
  poses = np.arange(100.0)[:, None]
  # A pose every 0.01 s, of which 25 frames a second show every fourth.
  said = render.clip_or_sentence(
    tmp_path / 'a.gif', model, poses, 0.01, max_seconds=0.4, camera='near'
  )
  assert said == str(tmp_path / 'a.gif')
  assert asked == [([0, 4, 8, 12, 16, 20, 24, 28, 32, 36], {'camera': 'near'})]
  with Image.open(said) as image:
    assert (image.n_frames, image.info['duration']) == (10, 40)


def test_drivers_follow_the_environment():
  assert render.drivers({}, 'linux') == ['egl', 'osmesa']
  assert render.drivers({'DISPLAY': ':0'}, 'linux') == ['egl', 'osmesa', 'glfw']
  assert render.drivers({'MUJOCO_GL': 'osmesa'}, 'linux') == ['osmesa', 'egl']
  assert render.drivers({'MUJOCO_GL': 'disable'}, 'linux') == []
  assert render.drivers({}, 'darwin') == ['']


def test_what_cannot_be_drawn_is_refused(model):
  with pytest.raises(ValueError, match=r'poses of shape \(3, 0\) do not fit'):
    render.render_frames(model, np.zeros((3, 0)))
  with pytest.raises(ValueError, match='camera=top is unknown; there are far, near'):
    render.render_frames(model, np.zeros((1, 1)), camera='top')


@pytest.mark.parametrize(
  ('seconds_per_frame', 'shown', 'milliseconds'),
  [(0.01, 25, 40), (0.025, 50, 50), (0.05, 100, 50), (0.1, 100, 100)],
)
def test_gifs_play_at_true_speed(tmp_path, seconds_per_frame, shown, milliseconds):
  frames = np.zeros((100, 12, 16, 3), np.uint8)
  # A dot that moves, so that no two frames are merged.
  frames[np.arange(100), np.arange(100) % 12, np.arange(100) % 16] = 255
  path = render.write_clip(tmp_path / 'new' / 'a.gif', frames, seconds_per_frame)
  with Image.open(path) as image:
    assert image.n_frames == shown
    assert image.info['duration'] == milliseconds
    assert image.info['loop'] == 0
    image.seek(1)
    stride = 100 // shown
    assert image.convert('RGB').getpixel((stride % 16, stride % 12)) == (255,) * 3


def test_a_clip_is_a_gif_where_there_is_no_ffmpeg(tmp_path, monkeypatch):
  frames = np.zeros((2, 4, 4, 3), np.uint8)
  monkeypatch.setattr(render.shutil, 'which', lambda name: None)
  assert render.write_clip(tmp_path / 'a', frames, 0.1).suffix == '.gif'
  with pytest.raises(ValueError, match=r'needs ffmpeg.*try \.gif'):
    render.write_clip(tmp_path / 'a.mp4', frames, 0.1)
  with pytest.raises(ValueError, match=r'must end in \.gif or \.mp4'):
    render.write_clip(tmp_path / 'a.avi', frames, 0.1)


@pytest.mark.parametrize('code', ['echo no >&2; echo half > "$f"; exit 1', 'kill $$'])
def test_a_clip_is_a_gif_where_ffmpeg_does_not_work(tmp_path, monkeypatch, capfd, code):
  broken = tmp_path / 'ffmpeg'
  broken.write_text(f'#!/bin/sh\nfor f in "$@"; do :; done; {code}\n')
  broken.chmod(0o755)
  monkeypatch.setattr(render.shutil, 'which', lambda name: str(broken))
  # More than a pipe holds.
  frames = np.zeros((2, 200, 200, 3), np.uint8)
  assert render.write_clip(tmp_path / 'a', frames, 0.1).suffix == '.gif'
  with pytest.raises(ValueError, match=r'could not be written by ffmpeg; try \.gif'):
    render.write_clip(tmp_path / 'a.mp4', frames, 0.1)
  assert not (tmp_path / 'a.mp4').exists()
  assert capfd.readouterr().err == ''


@pytest.mark.skipif(shutil.which('ffmpeg') is None, reason='ffmpeg is not installed')
def test_mp4_is_written_by_ffmpeg(tmp_path):
  frames = np.zeros((5, 13, 15, 3), np.uint8)
  path = render.write_clip(tmp_path / 'a', frames, 0.1)
  assert path.suffix == '.mp4'
  assert path.stat().st_size > 0
