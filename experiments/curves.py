"""Learning curves of runs: one line a method, a band for the interval over seeds."""

import itertools
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlfb_jax.reports.comparison import final_scores
from rlfb_jax.training import metrics
from rlfb_jax.training.intervals import mean_interval


class Curve(NamedTuple):
  """True return of training episodes, or of deterministic evaluations on the way.

  Attributes:
    env_steps: [T].
    returns: [T, S].
  """

  env_steps: np.ndarray
  returns: np.ndarray

  def until(self, steps: int) -> 'Curve':
    """The part that ends there."""
    kept = self.env_steps <= steps
    return Curve(self.env_steps[kept], self.returns[kept])

  def final(self, share: float = 0.1) -> np.ndarray:
    """Each seed's mean return over the last `share` of its steps, [S]."""
    return final_scores(self.env_steps, self.returns, share)


def read_curve(run_dir: str | pathlib.Path) -> Curve:
  """The curve of a run's folder; chunks in which no episode ended are left out."""
  columns = metrics.read(run_dir)
  return where_all_ended(columns['env_steps'], columns['episode_return'])


def where_all_ended(env_steps: np.ndarray, returns: np.ndarray) -> Curve:
  """The lines on which every seed has a return.

  Args:
    env_steps: [T].
    returns: [T, S], NaN where no episode of a seed ended, or none was evaluated.
  """
  ended = np.isfinite(returns).all(axis=1)
  return Curve(env_steps[ended], returns[ended])


# What is drawn; by whether it is evaluated on the way.
_EPISODES = (
  'true return of training episodes',
  'true return, deterministic evaluation',
)
# Colours that colour-blind readers can tell apart (Okabe and Ito 2008).
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
# More curves than colours are told apart by their strokes.
_LOOKS = tuple((colour, style) for style in ('-', '--', '-.') for colour in _COLOURS)


def plot(
  path: str | pathlib.Path,
  panels: Mapping[str, Mapping[str, Curve]],
  *,
  levels: Mapping[str, Mapping[str, float]] | None = None,
  evaluated: Collection[str] = (),
  notes: Sequence[str] = (),
) -> pathlib.Path:
  """Draws one panel a task.

  Args:
    path: picture to write, `.png` or `.svg`.
    panels: task -> method -> curve.
    levels: task -> name -> return, drawn as a dotted line (random policy, a
      published number).
    evaluated: tasks whose curves are those of deterministic evaluations.
    notes: lines below the picture.
  """
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
  looks = dict(zip(names, itertools.cycle(_LOOKS), strict=False))
  figure, axes = plt.subplots(
    1, len(panels), figsize=(4.6 * len(panels) + 0.6, 3.9), squeeze=False
  )
  for axis, (task, curves) in zip(axes[0], panels.items(), strict=True):
    for name, curve in curves.items():
      _draw_curve(axis, name, curve, looks[name], alone=len(curves) == 1)
    for name, level in (levels or {}).get(task, {}).items():
      _draw_level(axis, name, level, curves.values())
    _finish_panel(axis, task)
  labels = [_EPISODES[task in evaluated] for task in panels]
  for axis, label, before in zip(axes[0], labels, ['', *labels], strict=False):
    if label != before:  # Once for neighbours that show the same.
      axis.set_ylabel(label)
  lines = _draw_legend(figure, axes[0])
  bottom = _draw_notes(figure, notes)
  figure.tight_layout(rect=(0, bottom, 1, 0.99 - 0.06 * lines))
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=150)
  plt.close(figure)
  return path


def _draw_curve(
  axis: Any, name: str, curve: Curve, look: tuple[str, str], alone: bool
) -> None:
  """The mean over seeds, its interval, and each seed where there is room for them."""
  mean, half = mean_interval(curve.returns, axis=1)
  steps, (colour, style) = curve.env_steps / 1e6, look
  axis.plot(steps, mean, style, color=colour, label=name, linewidth=1.8)
  # Two seeds' interval is 13 times their spread and hides all else.
  if np.isfinite(half).all() and curve.returns.shape[1] > 2:
    axis.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.16, lw=0)
  if alone:
    axis.plot(steps, curve.returns, color=colour, alpha=0.5, linewidth=0.7)


def _draw_level(axis: Any, name: str, level: float, curves: Iterable[Curve]) -> None:
  """A dotted line, named on the side where curves are farther from it."""
  axis.axhline(level, color='0.45', linestyle=':', linewidth=1.1)
  side = _freer_side(curves, level)
  axis.annotate(
    name,
    (0.01 if side == 'left' else 1, level),
    xycoords=('axes fraction', 'data'),
    ha=side,
    va='bottom',
    fontsize=7.5,
    color='0.35',
  )


def _finish_panel(axis: Any, task: str) -> None:
  axis.set_title(task, fontsize=10)
  axis.set_xlabel('environment steps (millions)')
  axis.set_ylim(bottom=0)
  axis.grid(alpha=0.25, linewidth=0.6)
  axis.spines[['top', 'right']].set_visible(False)


def _draw_legend(figure: Any, axes: Sequence[Any]) -> int:
  """The names of all curves above the panels; in how many lines."""
  handles = {
    label: handle
    for axis in axes
    for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
  }
  # A narrow picture has its names in more lines.
  columns = min(len(handles), 4 * len(axes))
  figure.legend(
    handles.values(),
    handles.keys(),
    loc='upper center',
    ncol=columns,
    frameon=False,
    fontsize=9,
  )
  return -(-len(handles) // columns)


def _draw_notes(figure: Any, notes: Sequence[str]) -> float:
  """Lines below the panels; the share of the height that they take."""
  height = 0.05 * len(notes)
  for i, note in enumerate(notes):
    figure.text(0.01, height - 0.045 * i - 0.035, note, fontsize=7, color='0.3')
  return height


def _freer_side(curves: Iterable[Curve], level: float) -> str:
  """Where a label at this height is farther from every curve."""
  gaps = {'left': np.inf, 'right': np.inf}
  for curve in curves:
    gap = np.abs(np.nanmean(curve.returns, axis=1) - level)
    third = -(-len(gap) // 3)
    gaps['left'] = min(gaps['left'], gap[:third].min())
    gaps['right'] = min(gaps['right'], gap[-third:].min())
  return 'right' if gaps['right'] >= gaps['left'] else 'left'


def random_return(task: str, num_episodes: int = 32, seed: int = 0) -> np.ndarray:
  """Returns of uniformly random actions on C MuJoCo, one an episode, [num_episodes]."""
  import jax
  import jax.numpy as jnp

  from rlfb_jax import envs

  env = envs.make(task, engine='native')

  @jax.jit
  def episodes(key: jax.Array) -> jax.Array:
    reset_key, act_key = jax.random.split(key)

    def step(state, k):
      action = jax.random.uniform(
        k, (num_episodes, env.action_size), minval=-1.0, maxval=1.0
      )
      state = env.step(state, action)
      return state, state.env_reward

    state = env.reset(reset_key, num_episodes)
    keys = jax.random.split(act_key, env.episode_length)
    _, rewards = jax.lax.scan(step, state, keys)
    return jnp.sum(rewards, axis=0)

  return np.asarray(episodes(jax.random.key(seed)))
