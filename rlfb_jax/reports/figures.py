"""All figures of a report, in the order of the page."""

from rlfb_jax.reports import reward_figures, score_figures
from rlfb_jax.reports.comparison import Comparison
from rlfb_jax.reports.panels import Figure


def all_figures(c: Comparison) -> list[Figure]:
  """Every figure, in order; one whose views are empty has no data."""
  return [
    score_figures.aggregates(c),
    score_figures.learning_curves(c),
    score_figures.success(c),
    score_figures.profiles(c),
    score_figures.improvement(c),
    score_figures.paired(c),
    reward_figures.quality(c),
    reward_figures.over_optimisation(c),
    reward_figures.label_histogram(c),
    reward_figures.divergences(c),
    reward_figures.final_divergences(c),
    reward_figures.watched(c),
  ]
