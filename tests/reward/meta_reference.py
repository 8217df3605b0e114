"""The pseudo-update and the outer loss again, in float64 NumPy, with loops."""

import numpy as np
import pair_reference


def forward(layers, x):
  """Activations of a tanh network with one linear output; (kernel, bias) pairs."""
  hidden = [x]
  for kernel, bias in layers[:-1]:
    hidden.append(np.tanh(hidden[-1] @ kernel + bias))
  kernel, bias = layers[-1]
  return hidden, (hidden[-1] @ kernel + bias)[:, 0]


def backward(layers, hidden, d_out):
  d, grads = d_out[:, None], [None] * len(layers)
  for i in range(len(layers) - 1, -1, -1):
    grads[i] = (hidden[i].T @ d, d.sum(axis=0))
    if i:
      d = d @ layers[i][0].T * (1 - hidden[i] ** 2)
  return grads


def outer_loss(critics, x, targets, first, second, labels, lr, weight):
  """Loss after one step of gradient descent of each critic on its squared error."""
  total = 0.0
  for layers in critics:
    hidden, q = forward(layers, x)
    grads = backward(layers, hidden, 2 * (q - targets) / len(x))
    stepped = [
      tuple(p - lr * g for p, g in zip(layer, grad, strict=True))
      for layer, grad in zip(layers, grads, strict=True)
    ]
    scores = np.stack([forward(stepped, s)[1] for s in (first, second)], axis=1)
    total += pair_reference.preference_loss(scores, labels)
  return weight * total
