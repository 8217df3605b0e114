"""Numbers that others published, to stand beside ours. None of them was made here.

Returns are per episode of 1000 control steps, 0 to 1000.
"""

from typing import NamedTuple


class Published(NamedTuple):
  """One published number.

  Attributes:
    mean: as printed, or read off a plot.
    std: over runs, None where none was given.
  """

  mean: float
  std: float | None = None

  def __str__(self) -> str:
    digits = 2 if abs(self.mean) < 10 else 0
    spread = '' if self.std is None else f' (sd {self.std:.{digits}f})'
    return f'{self.mean:.{digits}f}{spread}'


# arXiv 2501.07502, result tables, ten seeds: (task, method, n) -> mean return. How a
# run's curve became one number is not said, nor which cartpole task was used. Absolute
# numbers could be read for n = 4 and n = 6 only.
RBRL_KL = {
  ('cartpole_swingup', 'rbrl', 4): Published(402.55),
  ('cartpole_swingup', 'rbrl_kl', 4): Published(417.54),
  ('cartpole_swingup', 'rbrl', 6): Published(306.92),
  ('cartpole_swingup', 'rbrl_kl', 6): Published(381.79),
  ('ball_in_cup_catch', 'rbrl', 4): Published(789.30),
  ('ball_in_cup_catch', 'rbrl_kl', 4): Published(861.47),
  ('ball_in_cup_catch', 'rbrl', 6): Published(828.62),
  ('ball_in_cup_catch', 'rbrl_kl', 6): Published(873.92),
  ('finger_spin', 'rbrl', 4): Published(511.55),
  ('finger_spin', 'rbrl_kl', 4): Published(579.27),
  ('finger_spin', 'rbrl', 6): Published(559.73),
  ('finger_spin', 'rbrl_kl', 6): Published(646.37),
  ('cheetah_run', 'rbrl', 4): Published(238.99),
  ('cheetah_run', 'rbrl_kl', 4): Published(337.04),
  ('cheetah_run', 'rbrl', 6): Published(235.46),
  ('cheetah_run', 'rbrl_kl', 6): Published(303.88),
  ('walker_walk', 'rbrl', 4): Published(606.14),
  ('walker_walk', 'rbrl_kl', 4): Published(742.05),
  ('walker_walk', 'rbrl', 6): Published(797.90),
  ('walker_walk', 'rbrl_kl', 6): Published(825.18),
  ('quadruped_walk', 'rbrl', 4): Published(308.48),
  ('quadruped_walk', 'rbrl_kl', 4): Published(477.29),
  ('quadruped_walk', 'rbrl', 6): Published(199.83),
  ('quadruped_walk', 'rbrl_kl', 6): Published(306.78),
}

# The same paper's gains where only they could be read: (task, n) -> RbRL-KL above RbRL,
# in per cent.
RBRL_KL_GAIN = {
  ('cartpole_swingup', 3): 15.5,
  ('cartpole_swingup', 5): 22.5,
  ('cheetah_run', 3): 60.0,
  ('cheetah_run', 5): 45.2,
  ('quadruped_walk', 3): -7.5,
  ('quadruped_walk', 5): 226.0,
}

# The authors' own plot for walker-walk at 4M steps, ten runs, read off to within 10
# (Dev1nW/Simplified-Rating-and-Preference-RL, `Demos/Walker.png`).
RBRL_PLOT: dict[str | tuple[str, int], Published] = {
  'ppo': Published(885.0, 20.0),
  ('rbrl', 3): Published(757.0),
  ('rbrl', 4): Published(745.0),
  ('rbrl', 5): Published(810.0),
  ('rbrl', 6): Published(650.0),
}

# SAC on the true reward, deterministic evaluations of three seeds (sd over them) in the
# data of denisyarats/pytorch_sac (`data/sac.csv` at 3ecf500), whose agent B-Pref's is:
# (task, environment steps) -> return.
SAC = {
  ('walker_walk', 100_000): Published(847.2, 149.6),
  ('walker_walk', 200_000): Published(882.6, 120.7),
  ('walker_walk', 500_000): Published(896.5, 103.5),
  ('walker_walk', 1_000_000): Published(905.2, 95.5),
  ('cheetah_run', 100_000): Published(213.5, 82.4),
  ('cheetah_run', 200_000): Published(349.6, 80.8),
  ('cheetah_run', 500_000): Published(686.1, 37.6),
  ('cheetah_run', 1_000_000): Published(802.1, 46.2),
  ('quadruped_walk', 100_000): Published(168.7, 52.1),
  ('quadruped_walk', 200_000): Published(119.1, 38.7),
  ('quadruped_walk', 500_000): Published(301.5, 172.4),
  ('quadruped_walk', 1_000_000): Published(502.5, 349.7),
}

# Liu et al. 2022 (MRN), Table 1: squared error of the learned Q on walker, ten runs,
# 100 labels.
MRN_Q_ERROR = {
  'pebble': Published(0.12, 0.04),
  'surf': Published(0.11, 0.04),
  'mrn': Published(0.10, 0.02),
  'sac': Published(0.07, 0.02),
}

# Final evaluation over five seeds in PPE's Table 1, other SAC settings on
# some tasks: (task, method) -> return. MRN's own paper prints curves only.
PREFERENCE_RETURNS = {
  ('walker_walk', 'pebble'): Published(453.43, 159.43),
  ('walker_walk', 'surf'): Published(661.01, 91.72),
  ('walker_walk', 'rune'): Published(414.62, 182.16),
  ('cheetah_run', 'pebble'): Published(545.77, 130.00),
  ('cheetah_run', 'surf'): Published(556.78, 59.32),
  ('cheetah_run', 'rune'): Published(508.60, 186.06),
  ('quadruped_walk', 'pebble'): Published(364.46, 138.98),
  ('quadruped_walk', 'surf'): Published(554.20, 279.01),
  ('quadruped_walk', 'rune'): Published(506.89, 266.33),
}
