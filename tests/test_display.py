from __future__ import annotations

import io

import pytest
from rich.console import Console

from fusebench.study import display
from fusebench.study.display import LiveProgress


@pytest.fixture
def said(monkeypatch):
    """Reports progress at moments of a made-up clock; the lines printed."""

    def said(*events):
        screen, moment = io.StringIO(), 0.0
        monkeypatch.setattr(display.time, "monotonic", lambda: moment)
        with LiveProgress(Console(file=screen, width=200), alive_seconds=1e6).running() as progress:
            for moment, *report in events:  # noqa: B007  # the clock reads it
                progress(*report)
        return screen.getvalue().splitlines()

    return said


def test_outside_a_terminal_a_stage_says_how_much_is_done_and_how_long_the_rest_takes_at_this_rate(said):
    lines = said((0.0, "cells", 0, 200), (5.0, "cells", 20, 200), (30.0, "cells", 50, 200), (90.0, "cells", 200, 200))
    assert lines == [
        "cells: 0 % (0 of 200)",
        "cells: 25 % (50 of 200, 2 min left)",
        "cells: 100 % (200 of 200)",
    ]


@pytest.mark.parametrize(("seconds", "words"), [(20, "20 s"), (600, "10 min"), (9000, "2.5 h")])
def test_time_left_has_a_unit_that_suits_it(said, seconds, words):
    assert said((0.0, "cells", 0, 2), (float(seconds), "cells", 1, 2))[1] == f"cells: 50 % (1 of 2, {words} left)"
