"""Tables of a report: HTML, Markdown, LaTeX (`booktabs`) and CSV."""

import csv
import html
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rlfb_jax.reports import panels, statistics
from rlfb_jax.reports.comparison import Comparison
from rlfb_jax.reports.records import numbers
from rlfb_jax.training.intervals import mean_interval


class Table(NamedTuple):
  """Rows of text.

  Attributes:
    name: of its files.
    title: as a heading.
    says: what it shows and how it was computed.
    head: names of columns.
    rows: as many cells each.
  """

  name: str
  title: str
  says: str
  head: tuple[str, ...]
  rows: Sequence[tuple[str, ...]]


def final_scores(c: Comparison) -> Table:
  """Final scores of every arm on every task."""
  # Most tasks tell no success, and then nobody wants a column of nothing.
  told = _tells_success(c)
  rows = []
  for task in c.tasks:
    for arm, cell in c.on(task).items():
      found = statistics.aggregate([cell.final])
      scale = c.scale.get(task)
      rows.append(
        (
          task,
          arm,
          str(len(cell.seeds)),
          f'{int(cell.env_steps[-1]):,}',
          _mean(cell.final),
          panels.text_of(found),
          _mean(cell.evaluation),
          *([_mean(cell.success)] if told else []),
          '' if scale is None else f'{cell.final.mean() / scale:.2f}',
        )
      )
  return Table(
    'scores',
    'Final scores',
    'True return of training episodes over the last tenth of the steps: mean with 95 %'
    ' Student interval, and interquartile mean with 95 % bootstrap interval.'
    f' Evaluation: deterministic episodes at the end'
    f'{", success the share of them that had it" if told else ""}.'
    f' {_what_shares_are(c)}',
    (
      'task',
      'arm',
      'seeds',
      'steps',
      'mean',
      'interquartile mean',
      'evaluation',
      *(['success'] if told else []),
      'share',
    ),
    rows,
  )


def _tells_success(c: Comparison) -> bool:
  return any(cell.success is not None for cell in c.cells.values())


def _what_shares_are(c: Comparison) -> str:
  said = []
  if c.scale:
    said.append(f'Share: of the reference, {panels.reference_sentence(c)}.')
  without = [task for task in c.tasks if task not in c.scale]
  if without:
    names = panels.joined(without)
    said.append(f'No share on {names}, where the mean of the reference is not above 0.')
  return ' '.join(said)


def comparisons(c: Comparison) -> Table:
  """Paired differences and probabilities of improvement, task by task."""
  rows = []
  for first, second in panels.pairs(c):
    for task in c.common(first, second):
      a, b = c.cells[task, first], c.cells[task, second]
      found = panels.difference(c, task, first, second)
      chance = statistics.probability_of_improvement([a.final], [b.final])
      common = set(a.seeds) & set(b.seeds)
      rows.append(
        (
          task,
          first,
          second,
          numbers(sorted(common)),
          '' if found is None else panels.text_of(found, signed=True),
          panels.text_of(chance),
        )
      )
  return Table(
    'comparisons',
    'Comparisons',
    'First minus second over the seeds that both have, with 95 % Student interval, and'
    ' the probability that a run of the first ends above one of the second, with 95 %'
    ' bootstrap interval.',
    ('task', 'first', 'second', 'common seeds', 'difference', 'P(first > second)'),
    rows,
  )


def _mean(values: np.ndarray | None) -> str:
  """Over the seeds that have a value; says so where not all have, '' where none has."""
  if values is None:
    return ''
  known = values[np.isfinite(values)]
  some = f' ({len(known)} of {len(values)} seeds)' if len(known) < len(values) else ''
  return f'{mean_interval(known, statistics.CONFIDENCE)}{some}'


def seeds_csv(c: Comparison) -> str:
  """Final score of every seed, one a line."""
  rows = []
  for task in c.tasks:
    for arm, cell in c.on(task).items():
      nothing = np.full(len(cell.seeds), np.nan)
      columns = [
        nothing if values is None else values
        for values in (cell.final, cell.evaluation, cell.success)
      ]
      for seed, *values in zip(cell.seeds, *columns, strict=True):
        shown = ['' if np.isnan(v) else f'{v:.6g}' for v in values]
        rows.append((task, arm, str(seed), *shown))
  head = ('task', 'arm', 'seed', 'training_return')
  return _csv((*head, 'evaluation_return', 'evaluation_success'), rows)


def curves_csv(c: Comparison) -> str:
  """Mean return and interval at every line of every arm, one a line."""
  rows = []
  for task in c.tasks:
    for arm, cell in c.on(task).items():
      found = zip(
        cell.env_steps, *panels.band(cell.columns['episode_return']), strict=True
      )
      for steps, *values in found:
        shown = ['' if np.isnan(v) else f'{v:.6g}' for v in values]
        rows.append((task, arm, str(int(steps)), *shown))
  return _csv(('task', 'arm', 'env_steps', 'mean', 'low', 'high'), rows)


def to_csv(table: Table) -> str:
  """With a line of names first."""
  return _csv(table.head, table.rows)


def to_markdown(table: Table) -> str:
  """As GitHub and others render it."""

  def line(cells: Sequence[str]) -> str:
    return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'

  rule = '|' + '---|' * len(table.head)
  return '\n'.join([line(table.head), rule, *map(line, table.rows)]) + '\n'


def to_latex(table: Table) -> str:
  """For the package `booktabs`."""

  def line(cells: Sequence[str]) -> str:
    return ' & '.join(_latex(cell) for cell in cells) + r' \\'

  body = '\n'.join(f'    {line(row)}' for row in table.rows)
  return (
    '\\begin{table}\n  \\centering\n'
    f'  \\caption{{{_latex(table.says)}}}\n'
    f'  \\begin{{tabular}}{{{"l" * len(table.head)}}}\n    \\toprule\n'
    f'    {line(table.head)}\n    \\midrule\n{body}\n    \\bottomrule\n'
    '  \\end{tabular}\n\\end{table}\n'
  )


def to_html(table: Table) -> str:
  """A table that scrolls by itself where the page is narrow."""
  head = ''.join(f'<th scope="col">{html.escape(h)}</th>' for h in table.head)
  lines = []
  before = None
  for row in table.rows:
    first = ' class="first"' if row[0] != before else ''
    before = row[0]
    cells = ''.join(
      f'<td{" class=num" if _is_number(cell) else ""}>{html.escape(cell)}</td>'
      for cell in row
    )
    lines.append(f'<tr{first}>{cells}</tr>')
  return (
    '<div class="scroll" tabindex="0" role="region"'
    f' aria-label="{html.escape(table.title)}"><table><thead><tr>{head}</tr></thead>'
    f'<tbody>{"".join(lines)}</tbody></table></div>'
  )


def _csv(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  writer.writerow(head)
  writer.writerows(rows)
  return out.getvalue()


def _latex(text: str) -> str:
  for plain, safe in (
    ('_', r'\_'), ('%', r'\%'), ('&', r'\&'), ('#', r'\#'), ('±', r'$\pm$'),
    ('>', '$>$'), ('<', '$<$'),
  ):  # fmt: skip
    text = text.replace(plain, safe)
  return text


def _is_number(cell: str) -> bool:
  return cell[:1].isdigit() or (cell[:1] in '+-' and cell[1:2].isdigit())
