"""The small export of a policy: two files that NumPy alone can use.

  policy.json  format version, task, sizes, activation, clip
  policy.npz   mean, scale; kernel_0, bias_0, kernel_1, ...; each leads with seeds

The policy is the mean of a squashed Normal:
`tanh(MLP(clip((observation - mean) / scale, -clip, clip)))`.
"""

import dataclasses
import io
import json
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax.methods.algorithm import PolicyNetwork
from rlfb_jax.training import files

FORMAT_VERSION = 1
_INFO = 'policy.json'
_ARRAYS = 'policy.npz'
# Activation -> the function in NumPy and in JAX.
_ACTIVATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
  'tanh': (np.tanh, jnp.tanh),
  'relu': (lambda x: np.maximum(x, 0), jax.nn.relu),
}

Array = TypeVar('Array', np.ndarray, jax.Array)


@dataclasses.dataclass(frozen=True)
class Policy:
  """Policies of S seeds, in NumPy.

  Attributes:
    task: the task that they were trained on.
    mean: mean of raw observations, [S, ds] float32.
    scale: what centred observations are divided by, [S, ds] float32, positive.
    layers: kernel [S, in, out] and bias [S, out] of each layer, float32.
    clip: bound of whitened observations.
    activation: of the hidden layers: `tanh` or `relu`.
  """

  task: str
  mean: np.ndarray = dataclasses.field(repr=False)
  scale: np.ndarray = dataclasses.field(repr=False)
  layers: tuple[tuple[np.ndarray, np.ndarray], ...] = dataclasses.field(repr=False)
  clip: float
  activation: str = 'tanh'

  @property
  def num_seeds(self) -> int:
    """S."""
    return len(self.mean)

  @property
  def observation_size(self) -> int:
    """Numbers in an observation, ds."""
    return int(self.mean.shape[-1])

  @property
  def action_size(self) -> int:
    """Numbers in an action, da."""
    return int(self.layers[-1][1].shape[-1])

  def seed(self, index: int) -> 'Policy':
    """The policy of one seed, as a `Policy` of one.

    Raises:
      ValueError: if there is no such seed.
    """
    if not 0 <= index < self.num_seeds:
      raise ValueError(
        f'seed={index} is not in this export; it has 0 to {self.num_seeds - 1}.'
      )
    one = slice(index, index + 1)
    return dataclasses.replace(
      self,
      mean=self.mean[one],
      scale=self.scale[one],
      layers=tuple((kernel[one], bias[one]) for kernel, bias in self.layers),
    )

  def params(self) -> dict[str, Any]:
    """The arrays as a pytree, leaves [S, ...], for `apply` under `jax.vmap`."""
    return {'mean': self.mean, 'scale': self.scale, 'layers': self.layers}

  def apply(self, params: dict[str, Any], obs: Array) -> Array:
    """Deterministic actions of one seed.

    Args:
      params: `params()` at one seed, leaves without the seed axis.
      obs: raw observations [..., ds]; NumPy gives NumPy, JAX gives JAX.

    Returns:
      Actions [..., da] in [-1, 1], float32.

    Raises:
      ValueError: if observations of another size are given.
    """
    if obs.shape[-1:] != (self.observation_size,):
      raise ValueError(
        f'observations of shape {obs.shape} do not fit this policy of {self.task}; '
        f'their last axis must be {self.observation_size}.'
      )
    in_jax = isinstance(obs, jax.Array)
    xp: Any = jnp if in_jax else np
    activation = _ACTIVATIONS[self.activation][in_jax]
    obs = xp.asarray(obs, np.float32)
    hidden = xp.clip((obs - params['mean']) / params['scale'], -self.clip, self.clip)
    for kernel, bias in params['layers'][:-1]:
      hidden = activation(hidden @ kernel + bias)
    kernel, bias = params['layers'][-1]
    return xp.tanh(hidden @ kernel + bias)

  def act(self, obs: Array, seed: int = 0) -> Array:
    """Deterministic actions of seed number `seed`; see `apply`."""
    if not 0 <= seed < self.num_seeds:
      self.seed(seed)  # Says what there is.
    return self.apply(jax.tree.map(lambda x: x[seed], self.params()), obs)


def from_network(task: str, network: PolicyNetwork) -> Policy:
  """A policy from an actor's network, after training.

  Args:
    task: the task's name.
    network: of all seeds.

  Raises:
    ValueError: if the arrays do not all lead with the same seeds.
  """
  policy = Policy(
    task=task,
    mean=_float32(network.mean),
    scale=_float32(network.scale),
    layers=tuple((_float32(k), _float32(b)) for k, b in network.layers),
    clip=float(network.clip),
    activation=network.activation,
  )
  _check(policy)
  return policy


def save(folder: str | pathlib.Path, policy: Policy) -> None:
  """Writes `policy` into `folder`, which is made if it is not there.

  An export that is there already is replaced a whole file at a time.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  arrays = {'mean': policy.mean, 'scale': policy.scale}
  for i, (kernel, bias) in enumerate(policy.layers):
    arrays |= {f'kernel_{i}': kernel, f'bias_{i}': bias}
  content = io.BytesIO()
  np.savez(content, allow_pickle=False, **arrays)
  files.replace(folder / _ARRAYS, content.getvalue())
  info = {
    'format_version': FORMAT_VERSION,
    'task': policy.task,
    'num_seeds': policy.num_seeds,
    'observation_size': policy.observation_size,
    'action_size': policy.action_size,
    'hidden_sizes': [int(bias.shape[-1]) for _, bias in policy.layers[:-1]],
    'activation': policy.activation,
    'squash': 'tanh',
    'clip': policy.clip,
  }
  files.write_json(folder / _INFO, info)


def load_policy(path: str | pathlib.Path) -> Policy:
  """Reads an export.

  Args:
    path: the export's folder, or the folder of a run that holds it as `policy/`.

  Raises:
    ValueError: if there is none, or it was written by a later format.
  """
  folder = pathlib.Path(path)
  if not (folder / _INFO).is_file() and (folder / 'policy' / _INFO).is_file():
    folder = folder / 'policy'
  if not (folder / _INFO).is_file():
    raise ValueError(f'{path} holds no policy: neither it nor its policy/ has {_INFO}.')
  info = json.loads((folder / _INFO).read_text())
  if info['format_version'] > FORMAT_VERSION:
    raise ValueError(
      f'{path} has format_version={info["format_version"]}, which is newer than '
      f'{FORMAT_VERSION}; use a newer rlfb_jax.'
    )
  with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
    policy = Policy(
      task=info['task'],
      mean=arrays['mean'],
      scale=arrays['scale'],
      layers=tuple(
        (arrays[f'kernel_{i}'], arrays[f'bias_{i}'])
        for i in range(len(info['hidden_sizes']) + 1)
      ),
      clip=info['clip'],
      activation=info['activation'],
    )
  _check(policy)
  return policy


def _float32(array: Any) -> np.ndarray:
  return np.asarray(array, np.float32)


def _check(policy: Policy) -> None:
  """Shapes that do not fit would broadcast into nonsense."""
  if policy.activation not in _ACTIVATIONS:
    raise ValueError(
      f'activation={policy.activation} is not one of {", ".join(_ACTIVATIONS)}.'
    )
  seeds = policy.mean.shape[:1]
  width = policy.mean.shape[-1]
  found = [policy.mean.shape, policy.scale.shape]
  wanted = [(*seeds, width)] * 2
  for kernel, bias in policy.layers:
    found += [kernel.shape, bias.shape]
    wanted += [(*seeds, width, bias.shape[-1]), (*seeds, bias.shape[-1])]
    width = bias.shape[-1]
  if found != wanted:
    raise ValueError(f'arrays of shapes {found} make no policy; expected {wanted}.')
