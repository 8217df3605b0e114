"""The page: one HTML file with everything inside, that asks the network for nothing."""

import html
from collections.abc import Sequence
from importlib import resources

from rlfb_jax.reports import axes, figures, panels, tables
from rlfb_jax.reports.comparison import Comparison, differing_flags
from rlfb_jax.reports.figures import Figure
from rlfb_jax.reports.records import Record, numbers
from rlfb_jax.reports.tables import Table


def render(c: Comparison, title: str) -> str:
  """The whole page.

  Args:
    c: what is compared.
    title: in the head of the page.
  """
  drawn = figures.all_figures(c)
  shown = [f for f in drawn if f.views]
  left_out = [f.title for f in drawn if not f.views]
  scores, compared = tables.final_scores(c), tables.comparisons(c)
  parts = [_header(c, title, shown), '<main>']
  parts += [_figure(f, c.arms) for f in shown[:2]]
  parts.append(_table(scores))
  parts += [_figure(f, c.arms) for f in shown[2:]]
  if compared.rows:
    parts.append(_table(compared))
  parts.append(_notes(c, left_out))
  parts.append(_provenance(c))
  parts.append('</main>')
  style, script = _asset('page.css'), _asset('page.js')
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
    f'<title>{html.escape(title)}</title><style>{style}</style></head><body>'
    + '\n'.join(parts)
    + f'<div id="readout" role="status" hidden></div><script>{script}</script>'
    '</body></html>\n'
  )


def _asset(name: str) -> str:
  return resources.files('rlfb_jax.reports').joinpath(name).read_text('utf-8')


def _header(c: Comparison, title: str, shown: Sequence[Figure]) -> str:
  runs = sum(len(cell.seeds) for cell in c.cells.values())
  steps = sum(int(x.env_steps[-1]) * len(x.seeds) for x in c.cells.values())
  facts = [
    (str(len(c.arms)), 'arms' if len(c.arms) > 1 else 'arm'),
    (str(len(c.tasks)), 'tasks' if len(c.tasks) > 1 else 'task'),
    (str(runs), 'runs'),
    (axes.short(float(steps)), 'environment steps'),
  ]
  said = ''.join(f'<li><b>{number}</b> {name}</li>' for number, name in facts)
  links = [(f.anchor, f.title) for f in shown]
  links += [('scores', 'Final scores'), ('provenance', 'Provenance')]
  menu = ''.join(f'<a href="#{a}">{html.escape(t)}</a>' for a, t in links)
  return (
    f'<header><div class="top"><h1>{html.escape(title)}</h1>'
    '<button id="theme" type="button" aria-label="Switch between light and dark">'
    f'<span aria-hidden="true">◐</span></button></div><ul class="facts">{said}</ul>'
    f'<nav aria-label="Contents">{menu}</nav></header>'
  )


def _legend(arms: Sequence[str], drawn: str) -> str:
  """Names of the colours that are there."""
  items = ''.join(
    f'<li class="k{i % axes.NUM_COLOURS}{" dashed" if i >= axes.NUM_COLOURS else ""}">'
    f'{html.escape(arm)}</li>'
    for i, arm in enumerate(arms)
    if f' k{i % axes.NUM_COLOURS}' in drawn
  )
  return f'<ul class="legend">{items}</ul>'


def _figure(f: Figure, arms: Sequence[str]) -> str:
  legend = ''
  drawn = ''.join(panel for panels in f.views.values() for panel in panels)
  if f.keyed:
    legend = _legend(arms, drawn)
  elif f.key:
    legend = _legend(f.key, drawn)
  grids = [
    f'<div class="grid n{min(len(panels), 3)}">{"".join(panels)}</div>'
    for panels in f.views.values()
  ]
  if len(f.views) > 1:
    # Radio buttons and a style rule: switching needs no script.
    tabs = ''.join(
      f'<input type="radio" name="{f.anchor}" id="{f.anchor}-{i}"'
      f'{" checked" if not i else ""}><label for="{f.anchor}-{i}">'
      f'{html.escape(view)}</label>'
      for i, view in enumerate(f.views)
    )
    body = (
      f'<div class="tabs">{tabs}{legend}<div class="views">{"".join(grids)}</div></div>'
    )
  else:
    body = legend + grids[0]
  return (
    f'<section id="{f.anchor}"><h2>{html.escape(f.title)}</h2><figure>{body}'
    f'<figcaption>{_prose(f.says)} <button class="save" type="button" hidden>'
    'Download SVG</button></figcaption></figure></section>'
  )


def _table(t: Table) -> str:
  return (
    f'<section id="{t.name}"><h2>{html.escape(t.title)}</h2>{tables.to_html(t)}'
    f'<p class="caption">{_prose(t.says)}</p></section>'
  )


def _prose(text: str) -> str:
  return html.escape(text).replace('95 %', '95\u00a0%')


def _notes(c: Comparison, left_out: Sequence[str]) -> str:
  said = list(c.problems)
  if left_out:
    names = ', '.join(name.lower() for name in left_out)
    said.append(f'Figures that are left out, because they would be empty: {names}.')
  undrawn = panels.undrawn_sentence(c)
  if undrawn:
    said.append(undrawn)
  if not said:
    said = ['Every arm has every seed on every task, and all have a final score.']
  items = ''.join(f'<li>{html.escape(s)}</li>' for s in said)
  return f'<section id="notes"><h2>Missing and broken</h2><ul>{items}</ul></section>'


def _provenance(c: Comparison) -> str:
  rows, commands = [], []
  for task in c.tasks:
    for arm, cell in c.on(task).items():
      for record in cell.records:
        rows.append((task, arm, *_made_with(record)))
        command = ' '.join(record.manifest.get('command', ()))
        if command and command not in commands:
          commands.append(command)
  head = ('task', 'arm', 'source', 'seeds', 'made', 'device', 'revision', 'versions')
  made = Table(
    'made', 'Provenance', '', (*head, "program's minutes", "program's runs"), rows
  )
  flags = differing_flags(c)
  body = tables.to_html(made)
  if flags:
    lines = [
      (flag, *(values.get(arm, '') for arm in c.arms)) for flag, values in flags.items()
    ]
    table = Table('flags', 'Flags that differ', '', ('flag', *c.arms), lines)
    body += f'<h3>Flags that differ</h3>{tables.to_html(table)}'
  items = ''.join(f'<li><code>{html.escape(x)}</code></li>' for x in commands)
  body += f'<h3>Commands</h3><ul class="commands">{items}</ul>' if commands else ''
  return f'<section id="provenance"><h2>Provenance</h2>{body}</section>'


def _made_with(record: Record) -> tuple[str, ...]:
  manifest = record.manifest
  git = manifest.get('git') or {}
  revision = str(git.get('revision', ''))[:10] + (' changed' * bool(git.get('changed')))
  device = manifest.get('device') or {}
  versions = manifest.get('versions') or {}
  kind = device.get('kind', '')
  # A processor is better known by its model than as `cpu`.
  kind = f'{manifest.get("processor", kind)}' if kind == 'cpu' else kind
  count = device.get('count', 1)
  minutes = '' if record.seconds is None else f'{record.seconds / 60:.1f}'
  return (
    record.source,
    numbers(record.seeds),
    str(manifest.get('started', ''))[:10],
    f'{count} x {kind}' if count > 1 else kind,
    revision,
    ', '.join(f'{n} {versions[n]}' for n in ('rlfb-jax', 'jax') if versions.get(n)),
    minutes,
    str(record.program_rows),
  )
