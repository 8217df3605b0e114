"""Panels drawn as SVG text: axes, lines with bands, intervals, bars.

A panel is one `<svg>` that scales with its column. Colours are classes `k0`, `k1`,
..., which the page's style sheet gives meaning to, light or dark; numbers for the
read-outs travel in `data-plot`.
"""

import html
import json
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 400, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 30, 46
NUM_COLOURS = 8
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
  """Bars that stand together."""

  label: str
  colour: int
  values: Sequence[float]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
  """Round numbers inside [low, high], about `count` of them."""
  span = high - low
  if not math.isfinite(span) or span <= 0:
    return [low]
  step = 10.0 ** math.floor(math.log10(span / count))
  step *= next(f for f in (1, 2, 5, 10) if span / (step * f) <= count + 0.5)
  first = math.ceil(low / step - 1e-9)
  return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
  """A number as axes and read-outs write it: 1.5M, 200k, 0.25."""
  for limit, unit in ((1e6, 'M'), (1e4, 'k')):
    if abs(value) >= limit:
      return f'{value / (1e3 if unit == "k" else limit):.4g}{unit}'
  return f'{value:.4g}' if abs(value) >= 1e-12 else '0'


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
  low, high = _padded(values, exact=y_range is not None)
  if y_range is None and 0 <= np.nanmin(values) < 0.4 * np.nanmax(values):
    low = 0.0
  xs = np.concatenate([s.x for s in series])
  x_low, x_high = float(np.nanmin(xs)), float(np.nanmax(xs))
  x_low = 0.0 if 0 < x_low < 0.3 * x_high else x_low
  x_high = x_high if x_high > x_low else x_low + 1.0
  px = _scale(x_low, x_high, _LEFT, WIDTH - _RIGHT)
  py = _scale(low, high, HEIGHT - _BOTTOM, _TOP)
  parts = _frame(title, x_label, y_label, (x_low, x_high, px), (low, high, py))
  for s in series:
    if s.low is None or s.high is None:
      continue
    known = np.isfinite(s.low) & np.isfinite(s.high)
    if known.sum() > 1:
      there = _points(s.x[known], s.high[known], px, py)
      back = _points(s.x[known][::-1], s.low[known][::-1], px, py)
      parts.append(f'<path class="band {_key(s.colour)}" d="M{there}L{back}Z"/>')
  for level in levels:
    at = py(level.y)
    parts.append(
      f'<line class="level {_key(level.colour)}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}"'
      f' y1="{at:.1f}" y2="{at:.1f}"/>'
      f'<text class="note" x="{WIDTH - _RIGHT - 2}" y="{at - 4:.1f}"'
      f' text-anchor="end">{html.escape(level.name)}</text>'
    )
  for s in series:
    dash = ' dashed' if s.colour >= NUM_COLOURS else ''
    path = _points(s.x, s.y, px, py)
    parts.append(f'<path class="line {_key(s.colour)}{dash}" d="M{path}"/>')
    if s.ends or len(s.x) == 1:
      parts.append(
        f'<circle class="dot {_key(s.colour)}" cx="{px(s.x[-1]):.1f}"'
        f' cy="{py(s.y[-1]):.1f}" r="4.5"/>'
      )
  last = '; '.join(f'{s.name} ends at {short(float(s.y[-1]))}' for s in series)
  return _svg(
    title, f'{y_label} over {x_label}: {last}', HEIGHT, parts, _data(series, px)
  )


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
  low, high = _padded(np.array([*values, *extra], float), exact=x_range is not None)
  pitch, top = 32, _TOP + 4
  height = top + pitch * len(rows) + _BOTTOM - 4
  px = _scale(low, high, 16, WIDTH - 16)
  foot = height - _BOTTOM + 4
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
    label = html.escape(row.label)
    if row.value is None:
      parts.append(f'<text class="head" x="16" y="{y + 8}">{label}</text>')
      continue
    parts.append(
      f'<text class="name" x="16" y="{y}">{label}</text>'
      f'<text class="number" x="{WIDTH - 16}" y="{y}" text-anchor="end">'
      f'{html.escape(row.text)}</text>'
    )
    key = _key(row.colour)
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
  return _svg(title, said, height, parts, '')


def bars(
  title: str, groups: Sequence[Group], names: Sequence[str], x_label: str, y_label: str
) -> str:
  """A panel of bars: for each name, one bar of every group beside the others."""
  top = max(max(g.values) for g in groups)
  low, high = 0.0, 1.08 * top if top > 0 else 1.0
  py = _scale(low, high, HEIGHT - _BOTTOM, _TOP)
  px = _scale(0, len(names), _LEFT, WIDTH - _RIGHT)
  parts = _frame(title, x_label, y_label, None, (low, high, py))
  slot = 0.8 / len(groups)
  for i, name in enumerate(names):
    parts.append(
      f'<text class="tick" x="{px(i + 0.5):.1f}" y="{HEIGHT - _BOTTOM + 16}"'
      f' text-anchor="middle">{html.escape(name)}</text>'
    )
    for j, g in enumerate(groups):
      a, b = px(i + 0.1 + slot * j), px(i + 0.1 + slot * (j + 1))
      y = py(g.values[i])
      parts.append(
        f'<rect class="bar {_key(g.colour)}" x="{a:.1f}" y="{y:.1f}"'
        f' width="{b - a - 1:.1f}" height="{HEIGHT - _BOTTOM - y:.1f}">'
        f'<title>{html.escape(g.label)}, {html.escape(name)}: '
        f'{short(g.values[i])}</title></rect>'
      )
  said = '; '.join(
    f'{g.label}: ' + ', '.join(short(v) for v in g.values) for g in groups
  )
  return _svg(title, f'{y_label} by {x_label}: {said}', HEIGHT, parts, '')


def _svg(title: str, said: str, height: float, parts: list[str], data: str) -> str:
  label = html.escape(f'{title}. {said}.', quote=True)
  focus = f' tabindex="0" data-plot="{html.escape(data, quote=True)}"' if data else ''
  return (
    f'<svg class="panel" viewBox="0 0 {WIDTH} {height}" role="img"'
    f' aria-label="{label}"{focus}>' + ''.join(parts) + '</svg>'
  )


Axis = tuple[float, float, Callable[[float], float]]


def _frame(
  title: str, x_label: str, y_label: str, x: Axis | None, y: Axis
) -> list[str]:
  right, foot = WIDTH - _RIGHT, HEIGHT - _BOTTOM
  parts = [f'<text class="title" x="{_LEFT}" y="18">{html.escape(title)}</text>']
  for tick in ticks(y[0], y[1]):
    at = y[2](tick)
    parts.append(
      f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
      f'<text class="tick" x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">'
      f'{short(tick)}</text>'
    )
  for tick in ticks(x[0], x[1]) if x else []:
    assert x is not None
    parts.append(
      f'<text class="tick" x="{x[2](tick):.1f}" y="{foot + 16}" text-anchor="middle">'
      f'{short(tick)}</text>'
    )
  middle = (_TOP + foot) / 2
  parts.append(
    f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{foot}" y2="{foot}"/>'
  )
  parts.append(
    f'<text class="label" x="{(_LEFT + right) / 2}" y="{HEIGHT - 10}"'
    f' text-anchor="middle">{html.escape(x_label)}</text>'
    f'<text class="label" transform="translate(13 {middle}) rotate(-90)"'
    f' text-anchor="middle">{html.escape(y_label)}</text>'
  )
  return parts


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


def _padded(values: np.ndarray, exact: bool) -> tuple[float, float]:
  low, high = float(np.nanmin(values)), float(np.nanmax(values))
  if high <= low:
    return low - 0.5, high + 0.5
  pad = 0.0 if exact else 0.05 * (high - low)
  return low - pad, high + pad


def _scale(
  low: float, high: float, start: float, end: float
) -> Callable[[float], float]:
  return lambda value: start + (value - low) / (high - low) * (end - start)


def _points(
  x: np.ndarray,
  y: np.ndarray,
  px: Callable[[float], float],
  py: Callable[[float], float],
) -> str:
  return 'L'.join(f'{px(a):.1f} {py(b):.1f}' for a, b in zip(x, y, strict=True))


def _key(colour: int) -> str:
  return f'k{colour % NUM_COLOURS}'
