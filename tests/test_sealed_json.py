"""A sealed file says by itself whether it is what was written."""

import contextlib
import json

import pytest

from fusebench.benchmarks.sealed_json import SEAL, DamagedError, sealed_text, unsealed

HELD = {"b": [1, 0.1 + 0.2, None, True], "a": {"é": "\u2028 \U0001f600", "": -0.0}}


def test_it_holds_what_was_put_in_and_one_key_more():
    text = sealed_text(HELD)
    assert unsealed(text.encode()) == HELD
    assert json.loads(text).keys() == {*HELD, SEAL}


def test_white_space_and_the_order_of_keys_do_not_matter():
    held = json.loads(sealed_text(HELD))
    assert unsealed(json.dumps(dict(reversed(held.items()))).encode()) == HELD


def test_what_has_no_seal_is_read_as_it_is():
    assert unsealed(b'{"a": 1}') == {"a": 1}
    assert unsealed(b"[1]") == [1]


def test_every_flipped_bit_is_found_or_changes_nothing():
    whole = sealed_text(HELD).encode()
    for place in range(len(whole)):
        for bit in range(8):
            flipped = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            # White space may become other white space; the last digit of 0.30000000000000004 decides nothing; and a
            # file whose seal has another name is read as one without.
            with contextlib.suppress(DamagedError):
                found = unsealed(flipped)
                assert {key: found[key] for key in HELD} == HELD


def test_every_truncation_is_found():
    whole = sealed_text(HELD).encode()
    for size in range(len(whole) - 1):
        with pytest.raises(DamagedError):
            unsealed(whole[:size])


@pytest.mark.parametrize("text", [b"", b"\xff", b"[" * 100_000, b'{"a": NaN}', b'{"a": -Infinity}'])
def test_what_is_no_json_is_damaged(text):
    with pytest.raises(DamagedError):
        unsealed(text)


def test_numbers_that_are_none_are_never_written():
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            sealed_text({"a": number})
    with pytest.raises(DamagedError, match="content_sha256"):
        unsealed(sealed_text({"a": 1.0}).replace("1.0", "1e999").encode())
