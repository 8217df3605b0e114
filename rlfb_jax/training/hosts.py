"""Several hosts as one run: each has its devices, and all run the same programs.

Every host starts the same command. The hosts find each other through a coordinator,
the first of them, which alone writes the run's folder but for parts of checkpoints.
What decides the order of programs must be the same on all of them, because a program
that spans hosts waits for all: what one host alone can know, such as the time, is
agreed upon first.
"""

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from rlfb_jax.core.xla_flags import avoid_cpu_deadlock
from rlfb_jax.methods.device_options import DeviceOptions
from rlfb_jax.training.placement import parse_mesh

AUTO = 'auto'

_MAX_TEXT = 4096  # Bytes of a text that is shared; paths are shorter.


def connect(options: DeviceOptions) -> None:
  """Makes this process one of several, where a coordinator is named.

  To be called before JAX is used for anything else. Where devices will speak to each
  other, CPUs are set to do so in one order: under XLA's usual scheduler each may wait
  in another sum for the others, which has hung two processes with a core each.
  Where an earlier run has connected the process, it only checks the options.

  Args:
    options: the mesh; who coordinates, how many there are and which of them this is.
      What is left out is looked for in `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES`
      and `JAX_PROCESS_ID`, in `JOB_COMPLETION_INDEX` (an indexed job of Kubernetes),
      and where `jax.distributed.initialize` looks (Slurm, Open MPI, Cloud TPU,
      Kubernetes).

  Raises:
    ValueError: in one sentence, if that is not enough, or if the numbers do not fit.
  """
  address = options.coordinator_address
  if parse_mesh(options.mesh)[1] > 1:
    avoid_cpu_deadlock()
  if not address:
    if options.num_processes is not None or options.process_id is not None:
      raise ValueError(
        '--num_processes and --process_id need --coordinator_address; try'
        ' --coordinator_address=HOST:PORT of process 0.'
      )
    return
  if address == AUTO:
    address = os.environ.get('JAX_COORDINATOR_ADDRESS', '')
  elif not address.rpartition(':')[2].isdecimal():
    raise ValueError(
      f'--coordinator_address={address} has no port; try {address}:12321.'
    )
  number = _first(options.num_processes, 'JAX_NUM_PROCESSES')
  index = _first(options.process_id, 'JAX_PROCESS_ID', 'JOB_COMPLETION_INDEX')
  if number is not None and index is not None and not index < number:
    raise ValueError(
      f'--process_id={index} must be less than --num_processes={number}; they are'
      f' counted from 0, try {number - 1}.'
    )
  if jax.distributed.is_initialized():
    return  # By an earlier run of this process, among the same hosts.
  # What CPUs on several hosts speak to each other with.
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  try:
    jax.distributed.initialize(address or None, number, index)
  except ValueError as error:
    raise ValueError(
      f'--coordinator_address={options.coordinator_address} does not say enough, and no'
      f' cluster was found that does ({str(error).rstrip(".")}); try'
      ' --coordinator_address=HOST:PORT --num_processes=N --process_id=I.'
    ) from None


def is_first() -> bool:
  """Whether this host writes the run's folder and talks to people."""
  return jax.process_index() == 0


def anywhere(flag: bool) -> bool:
  """Whether the flag is set on some host; all must ask."""
  if jax.process_count() == 1:
    return flag
  return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def as_first(flag: bool) -> bool:
  """The first host's flag; all must ask."""
  if jax.process_count() == 1:
    return flag
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(flag)))


def text_of_first(text: str) -> str:
  """The first host's text, such as the name of a new folder; all must ask.

  Raises:
    ValueError: if it is longer than 4096 bytes.
  """
  if jax.process_count() == 1:
    return text
  data = text.encode()
  if len(data) > _MAX_TEXT:
    raise ValueError(
      f'A text of {len(data)} bytes is shared between hosts; at most {_MAX_TEXT} fit.'
    )
  padded = np.zeros(_MAX_TEXT, np.uint8)
  padded[: len(data)] = np.frombuffer(data, np.uint8)
  shared = np.asarray(multihost_utils.broadcast_one_to_all(padded))
  return shared.tobytes().rstrip(b'\0').decode()


def readable(tree: Any) -> Any:
  """The tree itself on one host, `whole(tree)` on several; all hosts must ask."""
  return tree if jax.process_count() == 1 else whole(tree)


def whole(tree: Any) -> Any:
  """All of a tree's arrays in this host's memory, as NumPy; all hosts must ask.

  Args:
    tree: arrays, parts of which may lie on other hosts; keys become their numbers.
  """

  def gather(leaf: Any) -> np.ndarray:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
      leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)

  return jax.tree.map(gather, tree)


def _first(option: int | None, *variables: str) -> int | None:
  """The option where it is given, else the first of the variables that is set."""
  if option is not None:
    return option
  for variable in variables:
    value = os.environ.get(variable)
    if value is not None:
      if not value.isdecimal():
        raise ValueError(f'{variable}={value} must be a whole number, such as 0.')
      return int(value)
  return None
