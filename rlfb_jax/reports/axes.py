"""Panels as SVG text: frames, scales, ticks, numbers.

A panel is one `<svg>` that scales with its column. Colours are classes `k0`, `k1`,
..., which the page's style sheet gives meaning to, light or dark.
"""

import html
import math
from collections.abc import Callable

import numpy as np

WIDTH, HEIGHT = 400, 270
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 30, 46
NUM_COLOURS = 8


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


def panel(title: str, said: str, height: float, parts: list[str], data: str) -> str:
  """Wraps marks as an image that says what it shows.

  Args:
    title: what screen readers say first.
    said: what they say then.
    height: in units of which the panel is `WIDTH` wide.
    parts: marks.
    data: what the page's script reads out, JSON, or ''.
  """
  label = html.escape(f'{title}. {said}.', quote=True)
  focus = f' tabindex="0" data-plot="{html.escape(data, quote=True)}"' if data else ''
  return (
    f'<svg class="panel" viewBox="0 0 {WIDTH} {height}" role="img"'
    f' aria-label="{label}"{focus}>' + ''.join(parts) + '</svg>'
  )


Axis = tuple[float, float, Callable[[float], float]]


def frame(title: str, x_label: str, y_label: str, x: Axis | None, y: Axis) -> list[str]:
  """Title, grid, ticks and names of axes; no ticks where `x` is None."""
  right, foot = WIDTH - RIGHT, HEIGHT - BOTTOM
  parts = [f'<text class="title" x="{LEFT}" y="18">{html.escape(title)}</text>']
  for tick in ticks(y[0], y[1]):
    at = y[2](tick)
    parts.append(
      f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
      f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">'
      f'{short(tick)}</text>'
    )
  for tick in ticks(x[0], x[1]) if x else []:
    assert x is not None
    parts.append(
      f'<text class="tick" x="{x[2](tick):.1f}" y="{foot + 16}" text-anchor="middle">'
      f'{short(tick)}</text>'
    )
  middle = (TOP + foot) / 2
  parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{foot}" y2="{foot}"/>')
  parts.append(
    f'<text class="label" x="{(LEFT + right) / 2}" y="{HEIGHT - 10}"'
    f' text-anchor="middle">{html.escape(x_label)}</text>'
    f'<text class="label" transform="translate(13 {middle}) rotate(-90)"'
    f' text-anchor="middle">{html.escape(y_label)}</text>'
  )
  return parts


def padded(values: np.ndarray, exact: bool) -> tuple[float, float]:
  """Ends of an axis that shows all values, with some air unless `exact`."""
  low, high = float(np.nanmin(values)), float(np.nanmax(values))
  if high <= low:
    return low - 0.5, high + 0.5
  pad = 0.0 if exact else 0.05 * (high - low)
  return low - pad, high + pad


def scale(
  low: float, high: float, start: float, end: float
) -> Callable[[float], float]:
  """The line through (low, start) and (high, end)."""
  return lambda value: start + (value - low) / (high - low) * (end - start)


def points(
  x: np.ndarray,
  y: np.ndarray,
  px: Callable[[float], float],
  py: Callable[[float], float],
) -> str:
  """Corners of a path, in units of the panel."""
  return 'L'.join(f'{px(a):.1f} {py(b):.1f}' for a, b in zip(x, y, strict=True))


def colour_class(colour: int) -> str:
  """The class that gives a mark its colour."""
  return f'k{colour % NUM_COLOURS}'
