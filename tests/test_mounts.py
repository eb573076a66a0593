"""Locks that other machines do not see are told from those that they do."""

import pytest

from fusebench.benchmarks.mounts import locks_are_local

MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
server:/home /net/home nfs4 rw,vers=4.2,local_lock=none 0 0
server:/old /net/old nfs rw,vers=3,nolock,local_lock=all 0 0
server:/odd /net/with\\040space nfs rw,local_lock=flock 0 0
server:/posix /net/posix nfs rw,vers=3,local_lock=posix 0 0
mds:/lustre /scratch lustre rw,flock 0 0
mds:/lustre /scratch/old lustre rw,localflock 0 0
tmpfs /net/old/tmp tmpfs rw 0 0
//server/share /share cifs rw,nobrl 0 0
"""


@pytest.fixture
def mounts(tmp_path):
    path = tmp_path / "mounts"
    path.write_text(MOUNTS)
    return path


@pytest.mark.parametrize(
    ("place", "local"),
    [
        ("/var/results", False),
        ("/net/home/results", False),
        ("/net/old", True),
        ("/net/old/results", True),
        ("/net/older", False),
        ("/net/with space/results", True),
        ("/net/posix/results", False),
        ("/scratch/results", False),
        ("/scratch/old/results", True),
        ("/net/old/tmp/results", False),
        ("/share/x", True),
    ],
)
def test_the_innermost_mount_and_its_options_decide(mounts, place, local):
    assert locks_are_local(place, mounts) is local


def test_nothing_is_claimed_where_nothing_is_known(tmp_path):
    assert locks_are_local(tmp_path, tmp_path / "no such file") is False
    assert locks_are_local(tmp_path) is False
