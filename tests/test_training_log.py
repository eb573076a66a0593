"""The log of a training has one line of each update, in order, also after interruptions."""

import errno
import json
import math

import pytest

from fusebench.errors import InputError
from fusebench.study.training_log import TrainingLog, require_log

CONFIG = {"method": "mlp+info-nce", "seed": 1}


def update(number, loss, stage=0):
    return {"stage": stage, "update": number, "loss": loss}


def look(number, score):
    return {"update": number, "dev_score": score}


def lines(path):
    return [json.loads(line) for line in path.with_name(path.name + ".jsonl").read_text().splitlines()]


def write(path, events):
    with TrainingLog(path, CONFIG) as log:
        for event in events:
            log(event)


def test_events_stand_in_their_order_below_the_configuration(tmp_path):
    events = [update(1, 0.5), update(2, 0.25), look(2, 0.75), update(3, 0.125, stage=1)]
    write(tmp_path / "below" / "run", events)
    assert lines(tmp_path / "below" / "run") == [{"config": CONFIG}, *events]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    write(tmp_path / "run", [{**update(1, math.nan), "gradient_norm": math.inf, "low": -math.inf}, look(1, None)])
    assert lines(tmp_path / "run")[1:] == [
        {"stage": 0, "update": 1, "loss": None, "gradient_norm": None, "low": None},
        {"update": 1, "dev_score": None},
    ]


def test_what_is_gone_through_again_replaces_what_was_there(tmp_path):
    """Interrupted after update 4, taken up again from a checkpoint after update 2."""
    path = tmp_path / "run"
    before = [update(1, 0.1), update(2, 0.2), look(2, 0.9), update(3, 9.0), update(4, 9.0), look(4, 0.0)]
    write(path, before)
    write(path, [update(3, 0.3), update(4, 0.4), look(4, 0.8), update(5, 0.5)])
    assert lines(path) == [
        update(1, 0.1),
        update(2, 0.2),
        look(2, 0.9),
        {"config": CONFIG},
        update(3, 0.3),
        update(4, 0.4),
        look(4, 0.8),
        update(5, 0.5),
    ]


def test_equal_updates_of_two_stages_are_two(tmp_path):
    write(tmp_path / "run", [update(1, 0.1), update(1, 0.2, stage=1)])
    assert lines(tmp_path / "run")[1:] == [update(1, 0.1), update(1, 0.2, stage=1)]


def test_every_event_is_on_disk_at_once(tmp_path):
    log = TrainingLog(tmp_path / "run", CONFIG)
    log(update(1, 0.5))
    assert lines(tmp_path / "run")[-1] == update(1, 0.5)
    log.close()


def test_an_interrupted_training_keeps_what_was_logged(tmp_path):
    def events():
        yield update(1, 0.5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "run", events())
    assert lines(tmp_path / "run")[-1] == update(1, 0.5)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="write"):
        TrainingLog(tmp_path / "file" / "run", CONFIG)


def test_a_full_disk_is_told_and_keeps_what_was_logged_before(tmp_path, monkeypatch):
    def train_on_a_full_disk():
        with TrainingLog(tmp_path / "run", CONFIG) as log:
            log(update(1, 0.5))
            monkeypatch.setattr(log, "_file", FullFile(log._file))
            log(update(2, 0.5))

    with pytest.raises(InputError, match=r"run\.jsonl: No space left .* free some space"):
        train_on_a_full_disk()
    assert lines(tmp_path / "run") == [{"config": CONFIG}, update(1, 0.5)]
    write(tmp_path / "run", [update(2, 0.25)])
    assert lines(tmp_path / "run") == [update(1, 0.5), {"config": CONFIG}, update(2, 0.25)]


class FullFile:
    """A file on a full disk: the buffer cannot be written, not even when it is closed."""

    def __init__(self, file):
        self.file = file

    def write(self, text):
        pass

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    close = flush


def test_a_log_with_a_half_last_line_is_one_and_garbage_is_none(tmp_path):
    write(tmp_path / "run", [update(1, 0.5)])
    path = tmp_path / "run.jsonl"
    whole = path.read_bytes()
    require_log(path)
    path.write_bytes(whole[:-3])
    require_log(path)
    for garbage in (b"\xff\n" + whole, b"[1]\n" + whole, whole[7:], whole.replace(b"0.5", b"0.5,")):
        path.write_bytes(garbage)
        with pytest.raises(ValueError, match=r"line|decode|Expecting|Extra|JSON"):
            require_log(path)
