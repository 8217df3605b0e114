"""Methods: agents, feedback and rewards composed into things that learn."""

from rlfb_jax.methods.algorithm import Algorithm as Algorithm
from rlfb_jax.methods.check import check as check
from rlfb_jax.methods.config import SECTIONS as SECTIONS
from rlfb_jax.methods.config import Config as Config
from rlfb_jax.methods.family import make_family as make_family
from rlfb_jax.methods.make import check_memory as check_memory
from rlfb_jax.methods.make import make as make
from rlfb_jax.methods.make import memory_needed as memory_needed
