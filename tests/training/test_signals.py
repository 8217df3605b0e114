"""Signals set a flag, and are given back."""

import os
import signal
import threading

import pytest

from rlfb_jax.training import signals


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_a_flag_while_it_is_watched(number):
  before = signal.getsignal(number)
  with signals.watch() as request:
    assert request.number is None
    os.kill(os.getpid(), number)
    assert request.number == number
    os.kill(os.getpid(), signal.SIGTERM)  # The first one stays.
    assert request.number == number
  assert signal.getsignal(number) is before


def test_a_second_ctrl_c_does_what_it_did_before():
  seen = []
  before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
  try:
    with signals.watch():
      os.kill(os.getpid(), signal.SIGINT)
      assert seen == []
      os.kill(os.getpid(), signal.SIGINT)
      assert seen == [signal.SIGINT]
      # Its handler is the current one, which that of host calls asks for.
      os.kill(os.getpid(), signal.SIGINT)
      assert seen == [signal.SIGINT] * 2
  finally:
    signal.signal(signal.SIGINT, before)


def test_signals_are_left_alone_where_that_is_wanted_or_needed():
  before = signal.getsignal(signal.SIGTERM)
  with signals.watch(enabled=False):
    assert signal.getsignal(signal.SIGTERM) is before
  seen = []

  def elsewhere():
    with signals.watch() as request:
      seen.append(request.number)

  thread = threading.Thread(target=elsewhere)
  thread.start()
  thread.join()
  assert seen == [None]
