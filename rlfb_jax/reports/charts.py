"""Charts drawn as SVG text: lines with bands, intervals, bars.

Numbers for the read-outs travel in `data-plot`.
"""

import html
import json
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from rlfb_jax.reports.axes import (
  BOTTOM,
  HEIGHT,
  LEFT,
  NUM_COLOURS,
  RIGHT,
  TOP,
  WIDTH,
  colour_class,
  frame,
  padded,
  panel,
  points,
  scale,
  short,
  ticks,
)

_MAX_POINTS = 160


class Series(NamedTuple):
  """A line and its band.

  Attributes:
    name: for the read-out.
    colour: which of `NUM_COLOURS`; beyond them lines are dashed.
    x: [T].
    y: [T].
    low: lower edge of the band, [T]; NaN or None for no band.
    high: its upper edge.
    ends: whether the last point is marked, where x does not grow along the line.
  """

  name: str
  colour: int
  x: np.ndarray
  y: np.ndarray
  low: np.ndarray | None = None
  high: np.ndarray | None = None
  ends: bool = False


class Level(NamedTuple):
  """A horizontal line with a name."""

  name: str
  colour: int
  y: float


class Row(NamedTuple):
  """A value with its interval, on a line of its own; `value` None makes a heading."""

  label: str
  colour: int
  value: float | None
  low: float = math.nan
  high: float = math.nan
  text: str = ''


class Group(NamedTuple):
  """Bars that stand together.

  Attributes:
    label: for the read-out.
    colour: which of `NUM_COLOURS`.
    values: heights, at least 0; NaN for no bar.
    low: lower ends of their intervals, drawn from 0 up; NaN for no interval.
    high: upper ends.
  """

  label: str
  colour: int
  values: Sequence[float]
  low: Sequence[float]
  high: Sequence[float]

  def text(self, i: int) -> str:
    """A bar in words: `2.5 [1, 4]`, and `none` where there is none."""
    if not math.isfinite(self.values[i]):
      return 'none'
    ends = ''
    if math.isfinite(self.low[i]):
      ends = f' [{short(max(0.0, self.low[i]))}, {short(self.high[i])}]'
    return f'{short(self.values[i])}{ends}'


# Width of a character of a row's name, about.
CHARACTER = 7.2


def lines(
  title: str,
  series: Sequence[Series],
  x_label: str,
  y_label: str,
  *,
  levels: Sequence[Level] = (),
  y_range: tuple[float, float] | None = None,
) -> str:
  """A panel of lines with bands.

  Args:
    title: above the panel, and what screen readers say first.
    series: at least one, each with a finite point.
    x_label: below.
    y_label: at the left.
    levels: horizontal lines.
    y_range: what the axis shows at least; from the data alone where None.
  """
  series = [_thinned(s) for s in series]
  ys = [v for s in series for v in (s.y, s.low, s.high) if v is not None]
  values = np.concatenate([*ys, [level.y for level in levels], y_range or []])
  low, high = padded(values, exact=y_range is not None)
  if y_range is None and 0 <= np.nanmin(values) < 0.4 * np.nanmax(values):
    low = 0.0
  xs = np.concatenate([s.x for s in series])
  x_low, x_high = float(np.nanmin(xs)), float(np.nanmax(xs))
  x_low = 0.0 if 0 < x_low < 0.3 * x_high else x_low
  x_high = x_high if x_high > x_low else x_low + 1.0
  px = scale(x_low, x_high, LEFT, WIDTH - RIGHT)
  py = scale(low, high, HEIGHT - BOTTOM, TOP)
  parts = frame(title, x_label, y_label, (x_low, x_high, px), (low, high, py))
  for s in series:
    if s.low is None or s.high is None:
      continue
    known = np.isfinite(s.low) & np.isfinite(s.high)
    if known.sum() > 1:
      there = points(s.x[known], s.high[known], px, py)
      back = points(s.x[known][::-1], s.low[known][::-1], px, py)
      parts.append(
        f'<path class="band {colour_class(s.colour)}" d="M{there}L{back}Z"/>'
      )
  for level in levels:
    at, key = py(level.y), colour_class(level.colour)
    parts.append(
      f'<line class="level {key}" x1="{LEFT}" x2="{WIDTH - RIGHT}"'
      f' y1="{at:.1f}" y2="{at:.1f}"/>'
      f'<text class="note" x="{WIDTH - RIGHT - 2}" y="{at - 4:.1f}"'
      f' text-anchor="end">{html.escape(level.name)}</text>'
    )
  for s in series:
    dash = ' dashed' if s.colour >= NUM_COLOURS else ''
    path = points(s.x, s.y, px, py)
    parts.append(f'<path class="line {colour_class(s.colour)}{dash}" d="M{path}"/>')
    if s.ends or len(s.x) == 1:
      parts.append(
        f'<circle class="dot {colour_class(s.colour)}" cx="{px(s.x[-1]):.1f}"'
        f' cy="{py(s.y[-1]):.1f}" r="4.5"/>'
      )
  last = '; '.join(f'{s.name} ends at {short(float(s.y[-1]))}' for s in series)
  return panel(
    title, f'{y_label} over {x_label}: {last}', HEIGHT, parts, _data(series, px)
  )


def _lines(label: str) -> list[str]:
  """A label, in two lines where it compares two names that one has no room for."""
  if len(label) * CHARACTER > WIDTH - 32:
    for between in (' > ', ' minus '):
      first, found, second = label.partition(between)
      if found:
        return [first, f'{between.strip()} {second}']
  return [label]


def intervals(
  title: str,
  rows: Sequence[Row],
  x_label: str,
  *,
  centre: float | None = None,
  x_range: tuple[float, float] | None = None,
) -> str:
  """A panel of values with intervals, one below the other.

  Args:
    title: above the panel.
    rows: at least one with a value.
    x_label: below.
    centre: where a vertical line stands for no difference.
    x_range: what the axis shows at least.
  """
  values = [v for r in rows for v in (r.value, r.low, r.high) if v is not None]
  extra = [*(x_range or ()), *(() if centre is None else (centre,))]
  low, high = padded(np.array([*values, *extra], float), exact=x_range is not None)
  # Long names leave no room for the number beside them, two of them none in a line.
  room = (WIDTH - 48) / CHARACTER
  labels = [_lines(r.label) for r in rows]
  below = 14 * (max(map(len, labels)) - 1)
  if any(len(r.label) + len(r.text) > room for r in rows):
    below += 14
  pitch, top = 32 + below, TOP + 4
  height = top + pitch * len(rows) + BOTTOM - 4
  px = scale(low, high, 16, WIDTH - 16)
  foot = height - BOTTOM + 4
  parts = [f'<text class="title" x="16" y="18">{html.escape(title)}</text>']
  for tick in ticks(low, high):
    x = px(tick)
    parts.append(
      f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{foot}"/>'
    )
    parts.append(
      f'<text class="tick" x="{x:.1f}" y="{foot + 15}" text-anchor="middle">'
      f'{short(tick)}</text>'
    )
  if centre is not None:
    x = px(centre)
    parts.append(
      f'<line class="zero" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{foot}"/>'
    )
  for i, row in enumerate(rows):
    y = top + pitch * i + 12
    if row.value is None:
      head = html.escape(row.label)
      parts.append(f'<text class="head" x="16" y="{y + 8}">{head}</text>')
      continue
    for j, line in enumerate(labels[i]):
      fit = ''
      if len(line) * CHARACTER > WIDTH - 32:
        fit = f' textLength="{WIDTH - 32}" lengthAdjust="spacingAndGlyphs"'
      text = html.escape(line)
      parts.append(f'<text class="name" x="16" y="{y + 14 * j}"{fit}>{text}</text>')
    y += below
    parts.append(
      f'<text class="number" x="{WIDTH - 16}" y="{y}" text-anchor="end">'
      f'{html.escape(row.text)}</text>'
    )
    key = colour_class(row.colour)
    if math.isfinite(row.low):
      a, b = px(row.low), px(row.high)
      parts.append(
        f'<line class="whisker {key}" x1="{a:.1f}" x2="{b:.1f}" y1="{y + 10}"'
        f' y2="{y + 10}"/>'
      )
    parts.append(
      f'<circle class="dot {key}" cx="{px(row.value):.1f}" cy="{y + 10}" r="4.5"/>'
    )
  parts.append(
    f'<text class="label" x="{WIDTH / 2}" y="{foot + 34}" text-anchor="middle">'
    f'{html.escape(x_label)}</text>'
  )
  said = '; '.join(f'{r.label}: {r.text}' for r in rows if r.value is not None)
  return panel(title, said, height, parts, '')


def bars(
  title: str, groups: Sequence[Group], names: Sequence[str], x_label: str, y_label: str
) -> str:
  """A panel of bars: for each name, one bar of every group beside the others.

  A group with fewer values than there are names has no bars for the last ones.
  """
  top = float(np.nanmax([v for g in groups for v in (*g.values, *g.high)]))
  low, high = 0.0, 1.08 * top if top > 0 else 1.0
  py = scale(low, high, HEIGHT - BOTTOM, TOP)
  px = scale(0, len(names), LEFT, WIDTH - RIGHT)
  parts = frame(title, x_label, y_label, None, (low, high, py))
  slot = 0.8 / len(groups)
  for i, name in enumerate(names):
    parts.append(
      f'<text class="tick" x="{px(i + 0.5):.1f}" y="{HEIGHT - BOTTOM + 16}"'
      f' text-anchor="middle">{html.escape(name)}</text>'
    )
    for j, g in enumerate(groups):
      if i >= len(g.values) or not math.isfinite(g.values[i]):
        continue
      a, b = px(i + 0.1 + slot * j), px(i + 0.1 + slot * (j + 1))
      y = py(g.values[i])
      parts.append(
        f'<rect class="bar {colour_class(g.colour)}" x="{a:.1f}" y="{y:.1f}"'
        f' width="{b - a - 1:.1f}" height="{HEIGHT - BOTTOM - y:.1f}">'
        f'<title>{html.escape(g.label)}, {html.escape(name)}: {g.text(i)}</title>'
        '</rect>'
      )
      if math.isfinite(g.low[i]):
        foot, head = py(max(0.0, g.low[i])), py(g.high[i])
        x, cap = (a + b - 1) / 2, min(3.0, (b - a - 1) / 2)
        caps = ''.join(f'M{x - cap:.1f} {at:.1f}h{2 * cap:.1f}' for at in (foot, head))
        parts.append(f'<path class="error" d="M{x:.1f} {foot:.1f}V{head:.1f}{caps}"/>')
  said = '; '.join(
    f'{g.label}: ' + ', '.join(g.text(i) for i in range(len(g.values))) for g in groups
  )
  return panel(title, f'{y_label} by {x_label}: {said}', HEIGHT, parts, '')


def _data(series: Sequence[Series], px: Callable[[float], float]) -> str:
  def column(values: np.ndarray | None) -> list[float | None] | None:
    if values is None or not np.isfinite(values).any():
      return None
    return [float(f'{v:.4g}') if math.isfinite(v) else None for v in values.tolist()]

  found = [
    {
      'n': s.name,
      'k': s.colour % NUM_COLOURS,
      'p': [round(px(x), 1) for x in s.x.tolist()],
      'x': [float(f'{x:.6g}') for x in s.x.tolist()],
      'y': column(s.y),
      'l': column(s.low),
      'h': column(s.high),
    }
    for s in series
  ]
  return json.dumps(found, separators=(',', ':'))


def _thinned(s: Series) -> Series:
  """Finite points only, and not more of them than a panel can show."""
  known = np.flatnonzero(np.isfinite(s.x) & np.isfinite(s.y))
  if len(known) > _MAX_POINTS:
    known = known[np.linspace(0, len(known) - 1, _MAX_POINTS).round().astype(int)]
  low, high = (None if v is None else v[known] for v in (s.low, s.high))
  return s._replace(x=s.x[known], y=s.y[known], low=low, high=high)
