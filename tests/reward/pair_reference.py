"""Losses on pairs again, in float64 NumPy, with loops."""

import numpy as np


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def preference_loss(returns, labels, margin=0.0):
  """Mean soft cross-entropy; the target is written out case by case."""
  total = 0.0
  for (first, second), label in zip(returns, labels, strict=True):
    p_second = np.exp(second) / (np.exp(first) + np.exp(second))
    target = {0.0: (1 - margin, margin), 1.0: (margin, 1 - margin), 0.5: (0.5, 0.5)}
    to_first, to_second = target[float(label)]
    total -= to_first * np.log(1 - p_second) + to_second * np.log(p_second)
  return total / len(labels)


def preference_gradient(returns, labels):
  """By the returns, [B, 2]: the closed form (p - label) / B."""
  slope = (sigmoid(returns[:, 1] - returns[:, 0]) - labels) / len(labels)
  return np.stack([-slope, slope], axis=1)


def pseudo_label_loss(judged, cropped, threshold):
  """Mean over all pairs; unconfident ones count as zeros. Inputs [B, 2]."""
  total, confident = 0.0, 0
  for before, after in zip(judged, cropped, strict=True):
    p = np.exp(before) / np.sum(np.exp(before))
    if p.max() < threshold:
      continue
    confident += 1
    total -= np.log(np.exp(after[p.argmax()]) / np.sum(np.exp(after)))
  return total / len(judged), confident
