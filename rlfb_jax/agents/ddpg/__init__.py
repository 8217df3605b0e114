"""Deep deterministic policy gradient."""

from rlfb_jax.agents.ddpg.config import DDPGOptions as DDPGOptions
from rlfb_jax.agents.ddpg.networks import policy as policy
from rlfb_jax.agents.ddpg.update import DDPGState as DDPGState
from rlfb_jax.agents.ddpg.update import make_ddpg as make_ddpg
