#!/bin/sh
# Four processes on one machine, with GNU parallel, each with its share of the cores.
# sh experiments/schedulers/parallel.sh
seq 0 3 | parallel --jobs 4 --line-buffer --termseq TERM,60000,KILL \
  rlfb-sweep \
  --file=experiments/schedulers/sweep.toml \
  --out="${SWEEP_OUT:-sweeps/push}" \
  --num_threads="${SWEEP_THREADS:-2}" \
  --shard='{}/4'
