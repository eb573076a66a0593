"""Every registered part keeps the contract, and the contract catches parts that do not."""

import numpy as np
import pytest
import torch

import fusebench.methods  # noqa: F401  registers the parts
from fusebench.methods.parts import Fusion, Guide, Sampler, Transform
from fusebench.methods.registry import cards
from fusebench.methods.states import LayerStates, Needs
from fusebench.testing import check_fusion, check_guide, check_sampler, check_transform

# Values that each parameter takes, one at a time; the backbone has 6 blocks, the vectors 12 dimensions.
VALUES = {
    "layer": (0, 3, -1, -7),
    "first": (0, 1, 3, -3),
    "k": (1, 3, 7),
    "d": (0, 3),
    "eps": (0.0, 1e-3),
    "window": (1, 3, 9),
    "edge": ("clipped", "released"),
    "temperature": (0.5,),
    "factor": (0.0, 1.0),
    "layers": ("1", "5,6"),
    "guide heads": ("0", "0,1"),
    "aggregate": ("received", "released"),
    "template": ("{text}: {mask}",),
    "group_size": (1, 3, 50),
    "top_k": (1, 5),
    "allow_same": (True,),
    "first_epoch": ("random",),
    "shingle_size": (2, 9),
    "clusters": (1, 4),
}


def variants(kind):
    for card in cards(kind):
        yield pytest.param(card.name, {}, id=card.name)
        for key in card.defaults:
            for value in VALUES.get(f"{kind} {key}", VALUES.get(key, ())):
                yield pytest.param(card.name, {key: value}, id=f"{card.name}({key}={value})")


@pytest.mark.parametrize(("name", "params"), variants("fusion"))
def test_every_fusion_keeps_the_contract(name, params):
    check_fusion(name, **params)


@pytest.mark.parametrize(("name", "params"), variants("transform"))
def test_every_transform_keeps_the_contract(name, params):
    check_transform(name, **params)


@pytest.mark.parametrize(("name", "params"), variants("guide"))
def test_every_guide_keeps_the_contract(name, params):
    check_guide(name, **params)


@pytest.mark.parametrize(("name", "params"), variants("sampler"))
def test_every_sampler_keeps_the_contract(name, params):
    check_sampler(name, **params)


class GoodFusion(Fusion):
    """A plain mean of the last state over real tokens, to be spoilt below."""

    needs = Needs.TOKENS

    def __init__(self, shape):
        super().__init__()
        self.layers = (shape.blocks,)
        self.out_dim = shape.dim

    def forward(self, states):
        weights = states.mask.to(states.hidden[-1].dtype).unsqueeze(-1)
        return (states.hidden[-1] * weights).sum(dim=1) / weights.sum(dim=1)


class IgnoresTheMask(GoodFusion):
    def forward(self, states):
        return states.hidden[-1].mean(dim=1)


class MaxWithZeros(GoodFusion):
    """Padding at 0 instead of -inf: wrong only where all real values are below 0."""

    def forward(self, states):
        return (states.hidden[-1] * states.mask.unsqueeze(-1)).amax(dim=1)


class TakesTheFirstColumn(GoodFusion):
    """Right only with padding on the right."""

    def forward(self, states):
        return states.hidden[-1][:, 0]


class WritesIntoItsInput(GoodFusion):
    def forward(self, states):
        states.hidden[-1].masked_fill_(~states.mask.unsqueeze(-1), 0)
        return super().forward(states)


class WritesIntoStoredMeans(GoodFusion):
    needs = Needs.MEANS

    def forward(self, states):
        mean = states.mean(self.layers[0])
        return mean.mul_(1.0 if mean.requires_grad else 1.01)


class ReadsAnUndeclaredLayer(GoodFusion):
    def forward(self, states):
        lowest = LayerStates(states.hidden[:1], states.mask)
        return super().forward(states) + 1e-3 * super().forward(lowest)


class ReadsAnUndeclaredMean(GoodFusion):
    needs = Needs.MEANS

    def forward(self, states):
        return states.mean(self.layers[0]) + 0 * states.mean(0)


class ReadsFirstsButDeclaresMeans(GoodFusion):
    needs = Needs.MEANS

    def forward(self, states):
        return states.first(self.layers[0])


class DeclaresTooManyLayers(GoodFusion):
    def __init__(self, shape):
        super().__init__(shape)
        self.layers = (0, shape.blocks)


class DeclaresTooManyNeeds(GoodFusion):
    needs = Needs.MEANS | Needs.FIRSTS

    def forward(self, states):
        return states.mean(self.layers[0])


class CountsFromTheEnd(GoodFusion):
    def __init__(self, shape):
        super().__init__(shape)
        self.layers = (-1,)


class LetsRowsTalk(GoodFusion):
    def forward(self, states):
        vectors = super().forward(states)
        return vectors - 1e-3 * vectors.mean(dim=0)


class DependsOnThePlaceInTheBatch(GoodFusion):
    def forward(self, states):
        vectors = super().forward(states)
        return vectors * (1 + 1e-3 * torch.arange(len(vectors), dtype=vectors.dtype)[:, None])


class LiesAboutItsWidth(GoodFusion):
    def __init__(self, shape):
        super().__init__(shape)
        self.out_dim = 2 * shape.dim


class ReturnsFloat64(GoodFusion):
    def forward(self, states):
        return super().forward(states).double()


class AlwaysReturnsFloat32(GoodFusion):
    def forward(self, states):
        return super().forward(states).float()


class DividesByTheLengthLessOne(GoodFusion):
    """Infinite for a text of one token."""

    def forward(self, states):
        count = states.mask.sum(dim=1, keepdim=True)
        return super().forward(states) / (count - 1)


class IsRandom(GoodFusion):
    def forward(self, states):
        return super().forward(states) * (1 + 1e-6 * torch.rand(()))


class AddsUpInBfloat16(GoodFusion):
    """Loses small differences, as a running sum over layers in half precision does."""

    def forward(self, states):
        weights = states.mask.to(states.hidden[-1].dtype).unsqueeze(-1)
        big = (states.hidden[-1] * weights).sum(dim=1) + 300
        return (big - 300) / weights.sum(dim=1)


class CutsTheGradient(GoodFusion):
    def forward(self, states):
        return super().forward(states).detach() + 0 * states.hidden[-1].sum()


class DropsPrecision(GoodFusion):
    """Float32 in the middle of float64: its gradients cannot be checked by finite differences."""

    def forward(self, states):
        return super().forward(states).float().to(states.hidden[-1].dtype)


class GoodLearned(GoodFusion):
    """A learned scale of each dimension."""

    def __init__(self, shape):
        super().__init__(shape)
        self.scale = torch.nn.Parameter(torch.randn(shape.dim))

    def forward(self, states):
        return super().forward(states) * self.scale


class HasADeadWeight(GoodLearned):
    def __init__(self, shape):
        super().__init__(shape)
        self.dead = torch.nn.Parameter(torch.ones(3))


class KeepsAWeightOutOfItsState(GoodLearned):
    def __init__(self, shape):
        super().__init__(shape)
        self.hidden_scale = torch.randn(shape.dim)

    def forward(self, states):
        return super().forward(states) * self.hidden_scale.to(states.hidden[-1].dtype)


BAD_FUSIONS = [
    (IgnoresTheMask, "padding is invisible"),
    (MaxWithZeros, "padding is invisible|rows do not talk"),
    (TakesTheFirstColumn, "padding is invisible .left"),
    (WritesIntoItsInput, "input is untouched"),
    (WritesIntoStoredMeans, "input is untouched"),
    (ReadsAnUndeclaredLayer, "layers are truthful"),
    (ReadsAnUndeclaredMean, "needs and layers are truthful"),
    (ReadsFirstsButDeclaresMeans, "needs and layers are truthful"),
    (DeclaresTooManyLayers, "every declared state, but not state 0"),
    (DeclaresTooManyNeeds, "declared, but never read"),
    (CountsFromTheEnd, "layers are numbers of states from 0"),
    (LetsRowsTalk, "rows do not talk"),
    (DependsOnThePlaceInTheBatch, "rows do not talk|reordered texts"),
    (LiesAboutItsWidth, "out_dim is truthful"),
    (ReturnsFloat64, "dtype float32"),
    (AlwaysReturnsFloat32, "dtype bfloat16"),
    (DividesByTheLengthLessOne, "finite"),
    (IsRandom, "deterministic"),
    (AddsUpInBfloat16, "bfloat16 is close"),
    (CutsTheGradient, "every declared state"),
    (DropsPrecision, "finite differences"),
    (HasADeadWeight, "every weight, but not 'dead'"),
    (KeepsAWeightOutOfItsState, "equal parameters and loaded weights"),
]


@pytest.mark.parametrize("good", [GoodFusion, GoodLearned])
def test_an_unregistered_class_can_be_checked(good):
    check_fusion(good)


@pytest.mark.parametrize(("bad", "promise"), BAD_FUSIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_fusion_is_caught(bad, promise):
    with pytest.raises(AssertionError, match=f"broken promise: .*({promise})"):
        check_fusion(bad)


class GoodTransform(Transform):
    """Takes the mean away, to be spoilt below."""

    scale_free = True

    def out_dim(self, texts, dim):
        return dim

    def fit(self, X):
        self.mean = X.mean(axis=0)
        return self

    def __call__(self, X):
        return (X - self.mean).astype(np.float32)

    def state(self):
        return {"mean": self.mean}

    def load_state(self, state):
        self.mean = state["mean"]
        return self


class CentresEachBatch(GoodTransform):
    def __call__(self, X):
        return X - self.mean - 1e-2 * X.mean(axis=0)


class WritesIntoTheVectors(GoodTransform):
    def __call__(self, X):
        X -= self.mean
        return X


class FitsTheFirstTextOnly(GoodTransform):
    def fit(self, X):
        self.mean = X[0]
        return self


class ForgetsItsState(GoodTransform):
    mean = 0.0

    def state(self):
        return {}

    def load_state(self, state):
        return self


class IsNotFittedAtAll(GoodTransform):
    def fit(self, X):
        self.mean = np.zeros(X.shape[1], dtype=np.float32)
        return self


class LiesAboutScale(GoodTransform):
    def __call__(self, X):
        return (X - self.mean + 1).astype(np.float32)


class CutsDimensions(GoodTransform):
    def __call__(self, X):
        return super().__call__(X)[:, :5]


class ReturnsDoubles(GoodTransform):
    def __call__(self, X):
        return super().__call__(X).astype(np.float64)


BAD_TRANSFORMS = [
    (CentresEachBatch, "rows do not talk"),
    (WritesIntoTheVectors, "untouched|deterministic"),
    (FitsTheFirstTextOnly, "order of the fit texts"),
    (ForgetsItsState, "loaded transform"),
    (IsNotFittedAtAll, "fitted is truthful"),
    (LiesAboutScale, "scale_free"),
    (CutsDimensions, "out_dim is truthful"),
    (ReturnsDoubles, "float32"),
]


def test_an_unregistered_transform_can_be_checked():
    check_transform(GoodTransform)


@pytest.mark.parametrize(("bad", "promise"), BAD_TRANSFORMS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_transform_is_caught(bad, promise):
    with pytest.raises(AssertionError, match=f"broken promise: .*({promise})"):
        check_transform(bad)


class GoodGuide(Guide):
    """Mean square of the real entries of the maps, text by text; to be spoilt below."""

    needs = Needs.ATTENTION
    factor = 1.0

    def forward(self, states):
        real = states.mask[:, None, :, None] & states.mask[:, None, None, :]
        squares = (torch.cat(list(states.attention.values()), dim=1) * real).square().sum(dim=(1, 2, 3))
        return (squares / states.mask.sum(dim=1)).mean()


class CountsPadding(GoodGuide):
    def forward(self, states):
        return torch.stack(list(states.attention.values())).square().mean()


class SumsOverRows(GoodGuide):
    def forward(self, states):
        return super().forward(states) * len(states.mask)


class IsSilentWithoutMaps(GoodGuide):
    def forward(self, states):
        return super().forward(states) if states.attention else states.hidden[0].new_zeros(())


class HasNoGradient(GoodGuide):
    def forward(self, states):
        return super().forward(states).detach() + 0 * states.attention[1].sum()


class ReturnsAVector(GoodGuide):
    def forward(self, states):
        return super().forward(states).expand(2)


class ReadsAnUndeclaredBlock(GoodGuide):
    blocks = (2, 3)


class NamesABlockThatIsNotThere(GoodGuide):
    blocks = (0, 1)


class HasNoUsableFactor(GoodGuide):
    factor = float("nan")


class ReadsTheSecondBlock(GoodGuide):
    blocks = (2,)

    def forward(self, states):
        only = LayerStates(states.hidden, states.mask, {2: states.attention[2]})
        return super().forward(only)


BAD_GUIDES = [
    (ReadsAnUndeclaredBlock, "blocks are truthful"),
    (NamesABlockThatIsNotThere, "blocks are numbers from 1 to 6"),
    (HasNoUsableFactor, "finite number of 0 or more"),
    (CountsPadding, "padding is invisible"),
    (SumsOverRows, "mean over the rows"),
    (IsSilentWithoutMaps, "missing attention maps raise"),
    (HasNoGradient, "the gradient reaches"),
    (ReturnsAVector, "scalar"),
]


@pytest.mark.parametrize("good", [GoodGuide, ReadsTheSecondBlock])
def test_an_unregistered_guide_can_be_checked(good):
    check_guide(good)


@pytest.mark.parametrize(("bad", "promise"), BAD_GUIDES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_guide_is_caught(bad, promise):
    with pytest.raises(AssertionError, match=f"broken promise: .*({promise})"):
        check_guide(bad)


class GoodSampler(Sampler):
    """Rows by a random number and the first entry of their vectors, to be spoilt below."""

    def wants_embeddings(self, epoch):
        return True

    def order(self, epoch, texts, embeddings, *, seed):
        if embeddings is None:
            raise ValueError("no embeddings")
        return np.argsort(embeddings[:, 0] + np.random.default_rng((seed, epoch)).random(len(texts)))


class LeavesOutTheLastRow(GoodSampler):
    def order(self, epoch, texts, embeddings, *, seed):
        return super().order(epoch, texts, embeddings, seed=seed)[:-1]


class GivesARowTwice(GoodSampler):
    def order(self, epoch, texts, embeddings, *, seed):
        order = super().order(epoch, texts, embeddings, seed=seed)
        return np.where(order == 1, 0, order)


class CutsWholeGroups(GoodSampler):
    """Fails where there are fewer rows than a group has."""

    def order(self, epoch, texts, embeddings, *, seed):
        return super().order(epoch, texts, embeddings, seed=seed)[np.arange(3)]


class ForgetsRowsOfEqualTexts(GoodSampler):
    def order(self, epoch, texts, embeddings, *, seed):
        order = super().order(epoch, texts, embeddings, seed=seed)
        return order if len(set(texts)) > 1 else order[:1]


class IgnoresTheEpoch(GoodSampler):
    def order(self, epoch, texts, embeddings, *, seed):
        return super().order(0, texts, embeddings, seed=seed)


class DrawsOnFromCallToCall(GoodSampler):
    def __init__(self):
        self.calls = 0

    def order(self, epoch, texts, embeddings, *, seed):
        self.calls += 1
        return super().order(epoch + self.calls, texts, embeddings, seed=seed)


class RemembersTheEpochsItSaw(GoodSampler):
    """The same when asked again, but not after other epochs."""

    def __init__(self):
        self.seen = set()

    def order(self, epoch, texts, embeddings, *, seed):
        self.seen.add(epoch)
        return super().order(sum(self.seen), texts, embeddings, seed=seed)


class DrawsFromGlobalNumbers(GoodSampler):
    def order(self, epoch, texts, embeddings, *, seed):
        super().order(epoch, texts, embeddings, seed=seed)
        return np.random.permutation(len(texts))


class SortsTheTexts(GoodSampler):
    def order(self, epoch, texts, embeddings, *, seed):
        texts.sort()
        return super().order(epoch, texts, embeddings, seed=seed)


class CentresTheEmbeddings(GoodSampler):
    def order(self, epoch, texts, embeddings, *, seed):
        order = super().order(epoch, texts, embeddings, seed=seed)
        embeddings -= embeddings.max() + 1
        return order


class WantsNoneAndReadsThem(GoodSampler):
    def wants_embeddings(self, epoch):
        return False


class DoesWithout(GoodSampler):
    def order(self, epoch, texts, embeddings, *, seed):
        embeddings = np.zeros((len(texts), 1)) if embeddings is None else embeddings
        return super().order(epoch, texts, embeddings, seed=seed)


class ReturnsFloats(GoodSampler):
    def order(self, epoch, texts, embeddings, *, seed):
        return super().order(epoch, texts, embeddings, seed=seed).astype(float)


BAD_SAMPLERS = [
    (LeavesOutTheLastRow, "whole numbers"),
    (GivesARowTwice, "every row comes once"),
    (CutsWholeGroups, "there is an order of 1 rows"),
    (ForgetsRowsOfEqualTexts, "40 whole numbers"),
    (IgnoresTheEpoch, "changed by the epoch too"),
    (DrawsOnFromCallToCall, "deterministic"),
    (RemembersTheEpochsItSaw, "not on earlier calls"),
    (DrawsFromGlobalNumbers, "deterministic"),
    (SortsTheTexts, "untouched|deterministic"),
    (CentresTheEmbeddings, "untouched"),
    (WantsNoneAndReadsThem, "without embeddings, which it does not want"),
    (DoesWithout, "missing embeddings raise"),
    (ReturnsFloats, "whole numbers"),
]


def test_an_unregistered_sampler_can_be_checked():
    check_sampler(GoodSampler)


@pytest.mark.parametrize(("bad", "promise"), BAD_SAMPLERS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_sampler_is_caught(bad, promise):
    with pytest.raises(AssertionError, match=f"broken promise: .*({promise})"):
        check_sampler(bad)


def test_a_part_of_another_kind_is_refused():
    with pytest.raises(AssertionError, match="whiten is a Fusion"):
        check_fusion("whiten")
