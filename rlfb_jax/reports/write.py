"""Writes a report: the page, and its tables as files."""

import pathlib

from rlfb_jax.reports import page, tables
from rlfb_jax.reports.comparison import Comparison

PAGE = 'index.html'
_KINDS = {'csv': tables.to_csv, 'md': tables.to_markdown, 'tex': tables.to_latex}


def write(c: Comparison, folder: str | pathlib.Path, title: str) -> pathlib.Path:
  """Writes `index.html`, tables as CSV, Markdown and LaTeX, and numbers as CSV.

  Args:
    c: what is compared.
    folder: made if it is not there; files of an older report are written over.
    title: of the page.

  Returns:
    The page.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  files = {
    PAGE: page.render(c, title),
    'seeds.csv': tables.seeds_csv(c),
    'curves.csv': tables.curves_csv(c),
  }
  for table in (tables.final_scores(c), tables.comparisons(c)):
    for kind, to_text in _KINDS.items():
      name = f'{table.name}.{kind}'
      if table.rows:
        files[name] = to_text(table)
      else:  # An older report may have had some.
        (folder / name).unlink(missing_ok=True)
  for name, text in files.items():
    (folder / name).write_text(text, encoding='utf-8')
  return folder / PAGE
