import errno
import os
import resource
import threading

import numpy as np
import pytest

from fusebench.errors import InputError
from fusebench.methods import row_arrays
from fusebench.methods.row_arrays import RowArrays

WIDTHS = {("mean", 0): 3, ("live", "max"): 2}


def rows(count, width, start=0):
    return (np.arange(count * width, dtype=np.float32) + start).reshape(count, width)


@pytest.fixture(params=[1 << 20, 0], ids=["in memory", "on disk"])
def arrays(request, tmp_path):
    return RowArrays(in_memory=request.param, folder=tmp_path)


def test_what_was_written_is_read_again_in_any_order_and_after_growing(arrays):
    arrays.grow(WIDTHS, 4)
    for key, width in WIDTHS.items():
        arrays.write(key, np.array([2, 0, 3, 1]), rows(4, width))
    arrays.grow(WIDTHS, 2)
    for key, width in WIDTHS.items():
        arrays.write(key, slice(4, 6), rows(2, width, start=100))
        expected = np.concatenate([rows(4, width)[[1, 3, 0, 2]], rows(2, width, start=100)])
        assert np.array_equal(arrays.read(key, slice(None)), expected)
        assert np.array_equal(arrays.read(key, np.array([5, 0, 5])), expected[[5, 0, 5]])
    assert len(arrays) == 6
    assert list(arrays) == list(WIDTHS)


def test_rows_that_were_cut_off_are_gone_and_the_others_stay(arrays):
    arrays.grow(WIDTHS, 5)
    arrays.write(("mean", 0), slice(None), rows(5, 3))
    arrays.cut(2)
    assert len(arrays) == 2
    assert np.array_equal(arrays.read(("mean", 0), slice(None)), rows(2, 3))
    arrays.grow(WIDTHS, 1)
    assert np.array_equal(arrays.read(("mean", 0), slice(2)), rows(2, 3))
    assert arrays.read(("mean", 0), slice(None)).shape == (3, 3)


def test_a_new_array_has_all_rows(arrays):
    arrays.grow({"a": 1}, 3)
    arrays.grow({"a": 1, "b": 2}, 0)
    arrays.write("b", slice(None), rows(3, 2))
    assert np.array_equal(arrays.read("b", slice(None)), rows(3, 2))


def test_arrays_move_to_disk_when_together_they_are_too_large_and_lose_nothing(tmp_path):
    arrays = RowArrays(in_memory=4 * 10 * 5, folder=tmp_path)
    arrays.grow(WIDTHS, 10)
    arrays.write(("live", "max"), slice(None), rows(10, 2))
    assert not arrays.on_disk
    arrays.grow(WIDTHS, 1)
    assert arrays.on_disk
    assert np.array_equal(arrays.read(("live", "max"), slice(10)), rows(10, 2))
    assert list(tmp_path.iterdir()) == []  # the files have no name


def test_pages_go_back_to_the_system_and_come_again_with_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(row_arrays, "_RESIDENT", 1 << 20)
    arrays = RowArrays(in_memory=0, folder=tmp_path)
    count = 16_384
    arrays.grow({"a": 512}, count)  # 32 MB
    page = resource.getpagesize()
    resident = []
    for start in range(0, count, 256):
        arrays.write("a", slice(start, start + 256), np.full((256, 512), start, dtype=np.float32))
        with open("/proc/self/statm") as statm:  # noqa: PTH123  # not a file
            resident.append(int(statm.read().split()[2]) * page)  # pages of files
    assert max(resident) - min(resident) < 8 << 20
    for start in range(0, count, 256):
        assert (arrays.read("a", slice(start, start + 256)) == start).all()


def test_threads_write_different_rows_while_pages_are_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(row_arrays, "_RESIDENT", 1 << 14)
    arrays = RowArrays(in_memory=0, folder=tmp_path)
    arrays.grow({"a": 64}, 2000)

    def write(first):
        for row in range(first, 2000, 2):
            arrays.write("a", np.array([row]), np.full((1, 64), row, dtype=np.float32))

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(arrays.read("a", slice(None))[:, 5], np.arange(2000))


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match=r"0\.0 GB of layer states cannot be stored .*No space left.*TMPDIR"):
        RowArrays(in_memory=0, folder=tmp_path).grow({"a": 1}, 3)
