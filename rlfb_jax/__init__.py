"""Reinforcement learning from feedback in JAX, compiled end to end."""


def __getattr__(name: str) -> object:
  """`load_policy` and `train`, on first use: importing the package loads nothing else."""
  if name == 'load_policy':
    from rlfb_jax.training.export import load_policy

    return load_policy
  if name == 'train':
    from rlfb_jax.bin.launch import train

    return train
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
