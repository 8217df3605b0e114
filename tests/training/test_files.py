"""Files that are replaced: what is on disk, and when."""

import errno
import os
import stat

import pytest

from rlfb_jax.training import files


@pytest.fixture
def calls(monkeypatch):
  """What is synced and renamed, in order, and the error that folders give, if any."""
  seen = []
  fsync, replace = os.fsync, os.replace

  def sync(number):
    is_folder = stat.S_ISDIR(os.fstat(number).st_mode)
    seen.append('folder' if is_folder else 'file')
    if is_folder and refused:
      raise OSError(refused[0], 'refused')
    fsync(number)

  def rename(old, new):
    seen.append('rename')
    replace(old, new)

  refused = []
  monkeypatch.setattr(os, 'fsync', sync)
  monkeypatch.setattr(os, 'replace', rename)
  return seen, refused


def test_the_content_is_on_disk_before_the_name_and_the_name_before_the_end(
  calls, tmp_path
):
  files.replace(tmp_path / 'a', b'x')
  assert calls[0] == ['file', 'rename', 'folder']
  assert (tmp_path / 'a').read_bytes() == b'x'
  assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_file_systems_without_synced_folders_will_do(calls, tmp_path):
  calls[1].append(errno.EINVAL)
  files.replace(tmp_path / 'a', b'x')
  calls[1][:] = [errno.EIO]
  with pytest.raises(OSError, match='refused'):
    files.replace(tmp_path / 'a', b'y')
