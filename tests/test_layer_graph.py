"""The graphs are those of SL(2, Z_n), and the encoders equal their sums over nodes and neighbours."""

import itertools
import math

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.layer_graph import LayerGraph, SetEncoder, cayley_graph, smallest_cayley_graph
from fusebench.methods.states import StateShape
from tests.tiny_states import SHAPE, assert_equal, count, make, permuted, stirred


@pytest.mark.parametrize(("modulus", "size", "degree"), [(2, 6, 2), (3, 24, 4), (4, 48, 4), (5, 120, 4)])
def test_the_cayley_graph_has_the_size_of_its_group_and_is_regular(modulus, size, degree):
    graph = cayley_graph(modulus)
    determinants = ((a * d - b * c) % modulus for a, b, c, d in itertools.product(range(modulus), repeat=4))
    assert graph.shape == (size, size)
    assert sum(determinant == 1 for determinant in determinants) == size
    assert torch.equal(graph.sum(dim=0), torch.full((size,), float(degree)))
    assert torch.equal(graph, graph.T)
    assert not graph.diagonal().any()
    assert set(graph.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("modulus", [2, 3, 4, 5])
def test_the_cayley_graph_is_connected_and_ordered_by_distance_from_the_identity(modulus):
    graph = cayley_graph(modulus)
    distance, frontier = {0: 0}, [0]
    for node in frontier:
        for other in graph[node].nonzero().flatten().tolist():
            if other not in distance:
                distance[other] = distance[node] + 1
                frontier.append(other)
    assert len(distance) == len(graph)
    assert [distance[node] for node in range(len(graph))] == sorted(distance.values())


def test_the_cayley_graph_looks_the_same_from_every_node():
    """Every node has the same numbers of closed walks, as left multiplication moves any node to any other."""
    graph = cayley_graph(3)
    for length in range(2, 8):
        assert len(torch.linalg.matrix_power(graph, length).diagonal().unique()) == 1


@pytest.mark.parametrize(("nodes", "size"), [(1, 6), (6, 6), (7, 24), (24, 24), (25, 48), (48, 48), (49, 120)])
def test_the_smallest_graph_with_enough_nodes_is_taken(nodes, size):
    assert len(smallest_cayley_graph(nodes)) == size


def relu_of(linear, x):
    return (linear.weight @ x + linear.bias).clamp(min=0)


def pooled(vectors, pool):
    return sum(vectors) / (len(vectors) if pool == "mean" else 1)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("params", [{}, {"first": 2, "pool": "sum"}], ids=str)
def test_the_set_encoder_maps_pools_and_maps(params, side):
    states, texts = make(side)
    fusion = stirred(SetEncoder(SHAPE, hidden=5, **params))
    expected = []
    for text in texts:
        layers = text[params.get("first", 0) :].mean(dim=1)
        nodes = [relu_of(fusion.phi[0], relu_of(fusion.project[0], layer)) for layer in layers]
        expected.append(fusion.rho(pooled(nodes, params.get("pool", "mean"))))
    assert_equal(fusion(states), torch.stack(expected))


def messages(fusion, layers, graph, pool="mean"):
    """One text, `[layers, dim]`, node by node."""
    nodes = [relu_of(fusion.project[0], layer) for layer in layers]
    nodes += [torch.zeros_like(nodes[0])] * (len(graph) - len(nodes))
    for epsilon, (first, _, second, norm) in zip(fusion.epsilon, fusion.updates, strict=True):
        new = []
        for i, own in enumerate(nodes):
            received = sum((nodes[j] for j in range(len(nodes)) if graph[i, j]), torch.zeros_like(own))
            x = second(relu_of(first, (1 + epsilon) * own + received))
            new.append((x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * norm.weight + norm.bias)
        nodes = new
    return pooled(nodes[: len(layers)], pool)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("params", "nodes"),
    [
        ({}, 6),
        ({"steps": 2, "pool": "sum"}, 6),
        ({"first": 2}, 6),
        ({"graph": "full"}, 5),
        ({"graph": "full", "steps": 3, "first": 1}, 4),
    ],
    ids=str,
)
def test_the_layer_graph_passes_messages_between_neighbours(params, nodes, side):
    states, texts = make(side)
    fusion = stirred(LayerGraph(SHAPE, hidden=5, **params))
    graph = 1 - torch.eye(nodes) if params.get("graph") == "full" else cayley_graph(2)
    layers = [text[params.get("first", 0) :].mean(dim=1) for text in texts]
    expected = [messages(fusion, each, graph, params.get("pool", "mean")) for each in layers]
    assert_equal(fusion(states), torch.stack(expected))


def test_seven_states_pass_messages_on_24_nodes():
    shape = StateShape(blocks=6, dim=4)
    states, texts = make(shape=shape)
    fusion = stirred(LayerGraph(shape, hidden=5, steps=2))
    expected = [messages(fusion, text.mean(dim=1), cayley_graph(3)) for text in texts]
    assert_equal(fusion(states), torch.stack(expected))


def test_the_order_of_layers_matters_on_the_cayley_graph_alone():
    shape = StateShape(blocks=6, dim=4)
    states, _ = make(shape=shape)
    swapped = permuted(states, [6, 2, 0, 3, 5, 1, 4])
    for fusion in (SetEncoder(shape, hidden=5), LayerGraph(shape, hidden=5, graph="full")):
        assert_equal(stirred(fusion)(swapped), fusion(states))
    cayley = stirred(LayerGraph(shape, hidden=5))
    assert not torch.allclose(cayley(swapped), cayley(states))


def test_the_graph_is_no_weight():
    assert not any("adjacency" in name for name in LayerGraph(SHAPE).state_dict())


@pytest.mark.parametrize("kind", [SetEncoder, LayerGraph])
def test_dropout_acts_in_training_alone_and_leaves_the_expectation(kind):
    torch.manual_seed(0)
    states, _ = make()
    fusion = stirred(kind(SHAPE, hidden=8, dropout=0.25))
    nodes = fusion._nodes(states)
    dropped = torch.stack([fusion.train()._nodes(states) for _ in range(500)])
    share = (dropped == 0)[:, nodes > 0].double().mean()
    assert float(share) == pytest.approx(0.25, abs=0.02)
    kept = dropped[0][(dropped[0] != 0)]
    assert_equal(kept, nodes[dropped[0] != 0] / 0.75)


def test_weights_at_the_published_width():
    with torch.device("meta"):
        graph = LayerGraph(StateShape(24, 1024), steps=2)
        encoder = SetEncoder(StateShape(24, 1024))
    square = 256**2 + 256
    assert count(graph) == 1024 * 256 + 256 + 2 * (2 * square + 2 * 256 + 1)
    assert count(encoder) == 1024 * 256 + 256 + 2 * square
    assert graph.out_dim == encoder.out_dim == 256


def test_linear_maps_start_between_the_inverse_roots_of_their_inputs():
    fusion = SetEncoder(StateShape(blocks=2, dim=64), hidden=100)
    for linear in (fusion.project[0], fusion.phi[0], fusion.rho):
        bound = 1 / math.sqrt(linear.in_features)
        assert 0.98 * bound < float(linear.weight.detach().abs().max()) <= bound


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (SetEncoder, {"hidden": 0}),
        (SetEncoder, {"dropout": 1.0}),
        (LayerGraph, {"dropout": -0.1}),
        (LayerGraph, {"steps": 0}),
        (LayerGraph, {"first": 5}),
    ],
)
def test_sizes_that_leave_nothing_are_refused(kind, params):
    with pytest.raises(InputError):
        kind(SHAPE, **params)
