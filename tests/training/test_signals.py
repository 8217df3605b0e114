"""Signals set a flag, and are given back; who does not answer is left."""

import errno
import hashlib
import os
import signal
import threading
import time

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


def test_signals_are_left_alone_where_they_must_be():
  before = signal.getsignal(signal.SIGTERM)
  seen = []

  def elsewhere():
    with signals.watch() as request:
      seen.append((request.number, signal.getsignal(signal.SIGTERM)))

  thread = threading.Thread(target=elsewhere)
  thread.start()
  thread.join()
  assert seen == [(None, before)]


def busy_in_c(seconds):
  """Like a compiled program: Python handles no signal meanwhile."""
  end = time.monotonic() + seconds
  rounds = 100_000
  while time.monotonic() < end:
    hashlib.pbkdf2_hmac('sha256', b'', b'', rounds)
    rounds *= 2


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_takes_longer_is_left(number):
  left, told = [], threading.Event()

  def leave(number):
    left.append((number, time.monotonic()))
    told.set()

  with signals.watch(patience=0.3, leave=leave) as request:
    timer = threading.Timer(0.1, os.kill, (os.getpid(), number))
    timer.start()
    start = time.monotonic()
    busy_in_c(1.0)
    end = time.monotonic()
    assert told.wait(5)
    assert request.number == number
  ((found, at),) = left
  assert found == number
  assert start + 0.3 <= at < end


def test_a_second_ctrl_c_leaves_the_program_at_once():
  left, told = [], threading.Event()
  start = time.monotonic()
  timers = [
    threading.Timer(t, os.kill, (os.getpid(), signal.SIGINT)) for t in (0.1, 0.3)
  ]
  before = signal.signal(signal.SIGINT, lambda *_: None)
  try:
    with signals.watch(60, lambda number: (left.append(number), told.set())):
      for timer in timers:
        timer.start()
      busy_in_c(0.6)
      assert told.wait(5)
      assert time.monotonic() - start < 30
  finally:
    signal.signal(signal.SIGINT, before)
  assert left == [signal.SIGINT]


def test_a_hint_that_nobody_hears_keeps_no_program_from_being_left(monkeypatch):
  def nobody(number, text):
    raise OSError(errno.EIO, 'Input/output error')

  monkeypatch.setattr(signals.os, 'write', nobody)
  left, told = [], threading.Event()
  with signals.watch(0.1, lambda number: (left.append(number), told.set())):
    os.kill(os.getpid(), signal.SIGINT)
    assert told.wait(5)
  assert left == [signal.SIGINT]


def test_a_leave_that_fails_lets_the_loop_answer(monkeypatch):
  monkeypatch.setattr(threading, 'excepthook', lambda args: failed.append(args))
  failed, tried = [], threading.Event()

  def leave(number):
    tried.set()
    raise BrokenPipeError

  with signals.watch(0.1, leave) as request:
    os.kill(os.getpid(), signal.SIGTERM)
    assert tried.wait(5)
    while not failed:
      time.sleep(0.01)
    request.answer()  # Would wait for ever.


def test_who_answers_or_has_ended_is_not_left():
  left = []
  with signals.watch(patience=0.2, leave=left.append) as request:
    os.kill(os.getpid(), signal.SIGTERM)
    request.answer()
    time.sleep(0.4)
  with signals.watch(patience=0.2, leave=left.append):
    os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(0.4)
  assert left == []


def test_a_warning_leaves_its_time_and_what_follows_does_not():
  left, told = [], threading.Event()
  with signals.watch(0.2, lambda number: (left.append(number), told.set())) as request:
    os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(0.5)
    assert left == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert told.wait(5)
    assert request.number == signal.SIGUSR1
  assert left == [signal.SIGTERM]


def test_the_ear_of_whoever_listened_before_is_given_back():
  before = signal.set_wakeup_fd(-1)
  try:
    with signals.watch():
      pass
    assert signal.set_wakeup_fd(-1) == -1
  finally:
    signal.set_wakeup_fd(before)
  assert not [t for t in threading.enumerate() if t.name == 'signals']
