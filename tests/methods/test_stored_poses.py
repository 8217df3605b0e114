"""What was shown to the teacher can be shown again, from what is stored of it."""

import functools

import jax
import numpy as np
import pytest

from rlfb_jax import envs
from rlfb_jax.training import render
from tests.methods.probe_runs import make_config, run

STEPS = 5  # H.


@functools.cache
def world():
  # Episodes end within the run: a clip must not run over a reset.
  return envs.make('cartpole_swingup', 'native', num_threads=1, episode_length=30)


@functools.cache
def shown():
  """Each kind of clip in the stores of two seeds, and how many rows hold one."""
  config = make_config('rbrl/both', run={'task': 'cartpole_swingup'})
  stores = run(config, world())[0].feedback.answers
  ratings, pairs = stores.ratings, stores.pairs.asked
  return {
    'rated': (ratings.clip, ratings.count),
    'first of a pair': (pairs.first, pairs.count),
    'second of a pair': (pairs.second, pairs.count),
  }


@pytest.mark.parametrize('kind', ['rated', 'first of a pair', 'second of a pair'])
def test_poses_of_what_was_shown_give_back_what_was_seen(kind):
  env = world()
  clip, counts = shown()[kind]
  for seed, count in enumerate(counts):
    assert count > 20
    poses, seen = clip.pose[seed, :count], np.asarray(clip.obs[seed, :count])
    assert poses.shape == (count, STEPS, env.pose_size)
    physics = jax.jit(env.physics_at)(poses.reshape(-1, env.pose_size))
    again = env.task.observe(env.model, physics)
    np.testing.assert_allclose(again, seen.reshape(-1, 5), rtol=1e-6, atol=1e-6)
    # The poles swing, so that no step could stand for another.
    assert np.abs(np.diff(seen, axis=1)).max(axis=-1).min() > 1e-5


def test_the_clip_that_was_rated_is_the_one_that_is_drawn(monkeypatch, tmp_path):
  asked = []

  def draw(model, poses, **view):
    asked.append((model, poses, view))
    return np.zeros((len(poses), 8, 8, 3), np.uint8)

  monkeypatch.setattr(render, 'render_frames', draw)
  env, (clip, _) = world(), shown()['rated']
  said = render.show_again(tmp_path / 'a.gif', env, clip, (1, 3), camera='fixed')
  assert said == str(tmp_path / 'a.gif')
  ((model, poses, view),) = asked
  assert (model, view) == (env.model, {'camera': 'fixed'})
  # A pose every 0.01 s, of which 25 frames a second show every fourth.
  np.testing.assert_array_equal(poses, clip.pose[1, 3, ::4])
  with pytest.raises(IndexError):
    render.show_again(tmp_path / 'b.gif', env, clip, (1, clip.pose.shape[1]))
