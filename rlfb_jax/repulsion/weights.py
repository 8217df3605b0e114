"""How strongly each rating class repels.

Classes are numbered 0 (worst) to n - 1 (best). The vectors here have n + 1 entries:
one a class, and last the pooled law of all included classes.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax.core.config import is_traced
from rlfb_jax.core.padding import Count, capacity
from rlfb_jax.repulsion.options import RepulsionOptions

# Weights typed into the only public code, HPML_Final; the last is .06, not .0625.
HPML_WEIGHTS = (1.0, 0.5, 0.25, 0.125, 0.06)


def included_classes(options: RepulsionOptions, num_classes: Count) -> Count:
  """How many classes repel, counted from the worst: classes 0 .. k - 1.

  The public code includes the best class for n <= 5 (n=2: 2, ..., 5: 5, 6: 5).
  """
  if not is_traced(options.weights) and options.weights == 'hpml':
    assert isinstance(num_classes, int)
    return min(num_classes, len(HPML_WEIGHTS))
  return num_classes if options.include_best else num_classes - 1


def class_weights(
  options: RepulsionOptions, num_classes: Count
) -> np.ndarray | jax.Array:
  """The weights omega, [n + 1] float32, entry n for the pooled law.

  geometric: 2^-i (RbRL-KL). uniform and pooled: the same total, spread evenly over
  the classes or put on one Gaussian of all of them (two readings of the uniform
  baseline). reversed: 2^-(k - 1 - i) for k included classes. Where runs with different
  weights or numbers of classes share a program, the option is the weights themselves.
  """
  if is_traced(options.weights):
    return options.weights  # type: ignore[return-value]
  assert isinstance(num_classes, int)
  k = capacity(included_classes(options, num_classes))
  weights = np.zeros(num_classes + 1, np.float32)
  geometric = 0.5 ** np.arange(k)
  if options.weights == 'geometric':
    weights[:k] = geometric
  elif options.weights == 'uniform':
    weights[:k] = geometric.sum() / k
  elif options.weights == 'pooled':
    weights[num_classes] = geometric.sum()
  elif options.weights == 'reversed':
    weights[:k] = geometric[::-1]
  else:
    weights[:k] = HPML_WEIGHTS[:k]
  return weights


def active_rows(options: RepulsionOptions, num_classes: Count) -> np.ndarray:
  """Indices of the rows with weight; static, so that others cost nothing."""
  if is_traced(options.weights):  # Of a kind that weighs every included class.
    return np.arange(capacity(included_classes(options, num_classes)))
  return np.flatnonzero(class_weights(options, num_classes))


def below_median_gate(predicted_class: jax.Array, num_classes: Count) -> jax.Array:
  """Which classes lie below the (lower) median class of the current behaviour.

  Class n - 2 may describe the present policy, rated "almost best" a moment ago;
  repelling from it fights improvement.

  Args:
    predicted_class: class of each segment of the rollout, [B] int.
    num_classes: n.

  Returns:
    [n + 1] bool; the pooled row is open if any class is.
  """
  median = jnp.sort(predicted_class)[(predicted_class.shape[0] - 1) // 2]
  gate = jnp.arange(capacity(num_classes)) < median
  return jnp.append(gate, jnp.any(gate))
