"""The rating loss and the network again, in float64 NumPy, with loops."""

import numpy as np

EPSILON = 1e-6


def normalise(returns):
  return (returns - returns.min()) / (returns.max() - returns.min() + EPSILON)


def boundaries(normalised, ratings, n, kind):
  ordered = np.sort(normalised)
  size = len(ordered)
  tau = [0.0]
  for i in range(1, n):
    below = int(np.sum(ratings < i))
    if below == 0:
      tau.append(0.0)
    elif below == size:
      tau.append(1.0)
    elif kind == 'order_stat':
      tau.append(ordered[below - 1])
    else:
      tau.append((ordered[below - 1] + ordered[below]) / 2)
  return np.array([*tau, 1.0])


def quadratic_logits(normalised, tau, k):
  """The form of the public code."""
  return np.stack(
    [
      -k * (normalised - tau[i]) * (normalised - tau[i + 1])
      for i in range(len(tau) - 1)
    ],
    axis=-1,
  )


def softmax(logits):
  e = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


def loss(
  returns, ratings, n, k=30.0, kind='midpoint', tau=None, mae=False, weights=None
):
  """Weighted mean loss; `tau` fixes the boundaries, as the gradient sees them."""
  normalised = normalise(returns)
  if tau is None:
    tau = boundaries(normalised, ratings, n, kind)
  p = softmax(quadratic_logits(normalised, tau, k))
  label = np.eye(n)[ratings]
  each = np.abs(p - label).sum(-1) if mae else -np.log((p * label).sum(-1))
  w = np.ones(len(returns)) if weights is None else np.asarray(weights)[ratings]
  return np.sum(w * each) / np.sum(w)


def loss_gradient(returns, ratings, n, h=1e-6, **kwargs):
  """Central differences with the boundaries held still."""
  tau = boundaries(normalise(returns), ratings, n, kwargs.pop('kind', 'midpoint'))
  grad = np.zeros(len(returns))
  for b in range(len(returns)):
    up, down = returns.copy(), returns.copy()
    up[b] += h
    down[b] -= h
    grad[b] = (
      loss(up, ratings, n, tau=tau, **kwargs)
      - loss(down, ratings, n, tau=tau, **kwargs)
    ) / (2 * h)
  return grad


HEADS = {
  'tanh': np.tanh,
  'sigmoid': lambda z: 1 / (1 + np.exp(-z)),
  'relu': lambda z: np.where(z > 0, z, 0.0),
}
# By the output.
HEAD_SLOPES = {
  'tanh': lambda out: 1 - out**2,
  'sigmoid': lambda out: out * (1 - out),
  'relu': lambda out: np.where(out > 0, 1.0, 0.0),
}


def forward(layers, x, head='tanh'):
  """Activations of every layer; layers are (kernel, bias) pairs in float64."""
  hidden = [x]
  for kernel, bias in layers[:-1]:
    z = hidden[-1] @ kernel + bias
    hidden.append(np.where(z > 0, z, 0.01 * z))
  kernel, bias = layers[-1]
  return hidden, HEADS[head](hidden[-1] @ kernel[:, 0] + bias[0])


def backward(layers, hidden, out, d_out, head='tanh'):
  """Gradients like `layers` from the derivative of the outputs."""
  grads = [None] * len(layers)
  d = (d_out * HEAD_SLOPES[head](out))[:, None]
  for i in range(len(layers) - 1, -1, -1):
    grads[i] = (hidden[i].T @ d, d.sum(axis=0))
    if i:
      d = d @ layers[i][0].T * np.where(hidden[i] > 0, 1.0, 0.01)
  return grads


class Adam:
  """PyTorch's defaults."""

  def __init__(self, layers, lr):
    self.lr, self.t = lr, 0
    self.m = [[np.zeros_like(x) for x in layer] for layer in layers]
    self.v = [[np.zeros_like(x) for x in layer] for layer in layers]

  def step(self, layers, grads):
    self.t += 1
    new = []
    for layer, grad, m, v in zip(layers, grads, self.m, self.v, strict=True):
      row = []
      for j in range(2):
        m[j] = 0.9 * m[j] + 0.1 * grad[j]
        v[j] = 0.999 * v[j] + 0.001 * grad[j] ** 2
        mean, var = m[j] / (1 - 0.9**self.t), v[j] / (1 - 0.999**self.t)
        row.append(layer[j] - self.lr * mean / (np.sqrt(var) + 1e-8))
      new.append(tuple(row))
    return new
