"""The contract that every fusion keeps, and the one thing that is particular to this one."""

import pytest
from fusebench_midlayer import MidLayer

from fusebench.errors import InputError
from fusebench.methods.states import StateShape
from fusebench.testing import check_fusion


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_it_keeps_the_contract(depth):
    """Shapes, padding, gradients and all else that `check_fusion` looks at."""
    check_fusion("mid-layer", depth=depth)


@pytest.mark.parametrize(("depth", "layer"), [(0.0, 0), (0.5, 6), (0.7, 8), (1.0, 12)])
def test_it_reads_the_layer_at_that_depth(depth, layer):
    """Of twelve blocks."""
    assert MidLayer(StateShape(blocks=12, dim=8), depth=depth).layers == (layer,)


def test_a_depth_outside_of_the_network_is_refused():
    """With what to write instead."""
    with pytest.raises(InputError, match="0 to 1"):
        MidLayer(StateShape(blocks=12, dim=8), depth=1.5)
