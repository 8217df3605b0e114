"""Which devices and hosts a run is spread over."""

import dataclasses

from rlfb_jax.core.config import Options, option
from rlfb_jax.core.precision import PRECISIONS

# Flags by which hosts find each other.
HOSTS = ('coordinator_address', 'num_processes', 'process_id')


@dataclasses.dataclass(frozen=True)
class DeviceOptions(Options):
  """Where a run is computed, and in which precision; that changes what comes out."""

  mesh: str = option(
    '',
    'Devices, such as seed:4,data:2: seeds spread over 4, environments and batches of '
    'each split over 2; by default the first device, with more hosts seed:ALL.',
  )
  coordinator_address: str = option(
    '',
    'HOST:PORT of process 0 in a multi-host run, or auto to read it from JAX_* '
    'variables, Slurm, Open MPI or Kubernetes.',
  )
  num_processes: int | None = option(
    None, "Processes of such a run; none: as the cluster's variables say.", low=1
  )
  process_id: int | None = option(
    None, "Which of them this is, from 0; none: as the cluster's variables say.", low=0
  )
  matmul_precision: str = option(
    'float32',
    "Precision of the networks' matrix products on GPUs and TPUs; the coarser, the "
    'faster. Physics and statistics keep float32, and so do CPUs.',
    choices=PRECISIONS,
  )
