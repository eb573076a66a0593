"""Files of tensors and facts are whole or not there, and give back what was put in."""

import contextlib
import errno

import pytest
import torch
from torch import nn

import fusebench.methods.checkpoint as checkpoint
from fusebench.errors import InputError
from fusebench.methods.checkpoint import (
    load_module,
    load_optimizer,
    module_state,
    optimizer_state,
    read_tensors,
    write_tensors,
)

TENSORS = {"a": torch.randn(2, 3).T, "b": torch.tensor(5), "c": torch.tensor([True])}
FACTS = {"names": ["ä"], "score": 0.1 + 0.2, "none": None}


def test_what_was_written_is_read_bitwise(tmp_path):
    path = tmp_path / "below" / "file.safetensors"
    shared = torch.randn(4)
    write_tensors(path, {**TENSORS, "one": shared, "same": shared, "part": shared[:2]}, FACTS)
    tensors, facts = read_tensors(path)
    assert facts == FACTS
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert torch.equal(tensors["one"], tensors["same"])
    assert torch.equal(tensors["part"], shared[:2])
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, FACTS)

    def full(*given, **more):
        given[1].write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(InputError, match="free some room"):
        write_tensors(path, {}, {})
    assert read_tensors(path)[1] == FACTS
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("size", [0, 4, 40, -1])
def test_a_truncated_file_is_refused(size, tmp_path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, FACTS)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"file\.safetensors holds no weights .* delete it"):
        read_tensors(path)


def test_every_flipped_byte_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "file.safetensors"
    tensors = {**TENSORS, "half": torch.ones(3, dtype=torch.bfloat16), "none": torch.empty(0, 2)}
    write_tensors(path, tensors, FACTS)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with contextlib.suppress(InputError):
            found, facts = read_tensors(path)
            assert {key: facts[key] for key in FACTS} == FACTS  # a seal of another name is a fact more
            assert found.keys() == tensors.keys()
            assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_equal_tensors_and_facts_give_equal_files(tmp_path):
    written = set()
    for number in range(8):
        write_tensors(tmp_path / f"{number}", TENSORS, FACTS)
        written.add((tmp_path / f"{number}").read_bytes())
    assert len(written) == 1


def test_a_file_from_before_there_were_seals_is_read(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "old.safetensors", metadata={"facts": "{}"})
    assert read_tensors(tmp_path / "old.safetensors")[1] == {}


def test_a_file_of_other_origin_or_none_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    for name in ("other.safetensors", "absent.safetensors"):
        with pytest.raises(InputError, match="holds no weights of a training"):
            read_tensors(tmp_path / name)


def test_a_module_takes_its_own_weights_back_and_no_others():
    first, second = nn.Linear(2, 3), nn.Linear(2, 3)
    held = module_state(first, "fusion.") | {"backbone.weight": torch.zeros(9)}
    load_module(second, held, "fusion.")
    assert torch.equal(first.weight, second.weight)
    for wrong in ({}, module_state(nn.Linear(2, 4), "fusion."), held | {"fusion.more": torch.ones(1)}):
        with pytest.raises(InputError, match="saved weights do not fit the method"):
            load_module(second, wrong, "fusion.")


def test_an_optimizer_goes_on_as_if_nothing_had_happened():
    def made():
        torch.manual_seed(0)
        model = nn.Linear(2, 3)
        return model, torch.optim.AdamW([{"params": [model.weight], "lr": 0.1}, {"params": [model.bias]}])

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(1, 2)).square().sum().backward()
        optimizer.step()

    model, optimizer = made()
    for _ in range(3):
        step(model, optimizer)
    other, another = made()
    other.load_state_dict(model.state_dict())
    held = {name: value.clone() for name, value in optimizer_state(optimizer, "o.").items()}
    load_optimizer(another, held, "o.")
    for pair in ((model, optimizer), (other, another)):
        step(*pair)
    assert torch.equal(model.weight, other.weight)
    assert another.param_groups[0]["lr"] == 0.1
