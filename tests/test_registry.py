"""The registry knows each part by one name, takes in plugins, and says which one is broken."""

import importlib.metadata
import inspect
import sys
from types import SimpleNamespace

import pytest

import fusebench.methods  # noqa: F401  registers the parts
from fusebench.errors import InputError
from fusebench.methods import registry
from fusebench.methods.grammar import parse
from fusebench.methods.parts import Fusion, Guide, Objective, Sampler, Transform
from fusebench.methods.registry import card, cards, load_plugins, register
from fusebench.methods.states import StateShape

PLUGIN = '''
"""A fusion from elsewhere."""
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import Needs


@register("{name}", paper="https://example.org")
class Twice(Fusion):
    """Twice the mean of a layer. Departures: none."""

    needs = Needs.MEANS

    def __init__(self, shape, *, layer: int = -1):
        super().__init__()
        self.layers = (shape.index(layer),)
        self.out_dim = shape.dim

    def forward(self, states):
        return 2 * states.mean(self.layers[0])
'''


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """No installed plugins, and a registry that forgets what a test registers."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [])
    parts, modules = dict(registry._CARDS), set(sys.modules)
    yield
    registry._CARDS.clear()
    registry._CARDS.update(parts)
    for name in set(sys.modules) - modules:
        if name.startswith("fusebench_plugin"):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    def write(text, name="plugin.py", folder="a"):
        (tmp_path / folder).mkdir(exist_ok=True, parents=True)
        file = tmp_path / folder / name
        file.write_text(text)
        return file

    return write


class Silent(Guide):
    """Says nothing."""

    def forward(self, states):
        raise NotImplementedError


@pytest.mark.parametrize("kind", ["fusion", "objective", "guide", "sampler", "transform"])
def test_every_card_has_a_paper_a_summary_and_its_departures(kind):
    assert cards(kind)
    for one in cards(kind):
        text = inspect.getdoc(one.part) or ""
        assert "Departures:" in text, f"{one.name} does not say where it departs from its paper"
        assert one.paper.startswith(("arXiv:", "https://", "doi:")), one.name
        assert one.summary
        assert one.summary == text.split("\n")[0]


def test_every_card_has_a_type_for_each_of_its_parameters():
    for one in cards():
        assert set(one.types) == set(one.defaults)
        assert all(kind is not inspect.Parameter.empty for kind in one.types.values())


def test_cards_are_of_the_kind_of_their_class():
    kinds = {
        "fusion": Fusion,
        "objective": Objective,
        "guide": Guide,
        "sampler": Sampler,
        "transform": Transform,
    }
    for kind, base in kinds.items():
        assert all(issubclass(one.part, base) for one in cards(kind))
    assert sum(len(cards(kind)) for kind in kinds) == len(cards())


def test_a_card_tells_defaults_and_types():
    one = card("whiten")
    assert one.defaults == {"k": None, "eps": 1e-9}
    assert one.types == {"k": int | None, "eps": float}
    assert (one.kind, one.learned) == ("transform", False)


def test_a_name_that_is_taken_raises_and_names_the_owner():
    with pytest.raises(ValueError, match=r"'mean' is already registered by fusebench\.methods\.token_pooling"):
        register("mean", paper="none")(Silent)
    assert card("mean").part is not Silent


def test_a_class_of_no_kind_raises():
    with pytest.raises(ValueError, match="must derive from Fusion, Objective, Guide, Sampler or Transform"):
        register("no-kind", paper="none")(dict)
    with pytest.raises(InputError, match="no method 'no-kind'"):
        card("no-kind")


@pytest.mark.parametrize("name", ["", "My-Part", "two words", "a+b", "a(b)", "-a", "a@each", "a,b"])
def test_a_name_that_no_sentence_can_hold_raises(name):
    with pytest.raises(ValueError, match="is no name for a part"):
        register(name, paper="none")(Silent)


def test_a_parameter_without_a_default_raises():
    class Demanding(Silent):
        def __init__(self, *, weight: float, name: str):
            super().__init__()

    with pytest.raises(ValueError, match="'demanding': hyper-parameters need defaults: weight, name"):
        register("demanding", paper="none")(Demanding)


def test_an_unknown_name_is_answered_with_near_ones_or_the_list():
    with pytest.raises(InputError, match=r"no method 'las-token'\. Did you mean 'last-token'"):
        card("las-token")
    with pytest.raises(InputError, match="list methods"):
        card("qqqqqq")


def test_a_plugin_file_registers_its_fusion(write):
    load_plugins([write(PLUGIN.format(name="twice"))])
    (method,) = parse("twice(layer=2)+whiten").on(StateShape(2, 4))
    assert method.name == "twice+whiten"
    assert card("twice").paper == "https://example.org"


def test_a_plugin_given_twice_is_loaded_once(write):
    file = write(PLUGIN.format(name="twice"))
    load_plugins([file, file])
    load_plugins([file.parent / ".." / "a" / "plugin.py"])
    assert len([one for one in cards() if one.name == "twice"]) == 1


def test_plugins_of_the_same_name_in_different_folders_are_both_loaded(write):
    """Their paths agree in the last forty letters."""
    deep = "a-folder-with-quite-a-long-name/methods"
    files = [write(PLUGIN.format(name=f"twice-{i}"), folder=f"{i}/{deep}") for i in (1, 2)]
    load_plugins(files)
    assert card("twice-1").part is not card("twice-2").part


BROKEN = [
    ("def (", "SyntaxError"),
    ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named"),
    ("1 / 0", "ZeroDivisionError"),
    (PLUGIN.format(name="mean"), "ValueError: a part named 'mean' is already registered"),
]


@pytest.mark.parametrize(("text", "reason"), BROKEN)
def test_a_broken_plugin_is_named_with_the_reason(write, text, reason):
    file = write(text)
    with pytest.raises(InputError, match=rf"plugin .*plugin\.py cannot be imported: {reason}") as caught:
        load_plugins([file])
    assert str(file) in str(caught.value)


def test_a_plugin_that_breaks_half_way_leaves_nothing_behind_and_can_be_mended(write):
    before = cards()
    file = write(PLUGIN.format(name="twice") + "\n1 / 0\n")
    with pytest.raises(InputError):
        load_plugins([file])
    assert cards() == before
    write(PLUGIN.format(name="twice") + "\n# no longer divided by zero\n")
    load_plugins([file])
    assert card("twice").name == "twice"


def test_a_plugin_that_is_not_there_or_no_python_file_is_refused(write, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.py: no such file"):
        load_plugins([tmp_path / "nowhere.py"])
    with pytest.raises(InputError, match=r"must end in \.py"):
        load_plugins([write("", name="plugin.txt")])


def test_installed_plugins_are_loaded_by_their_entry_point(monkeypatch, write):
    asked = []

    def entry_points(*, group):
        asked.append(group)
        return [
            SimpleNamespace(name="twice", value="package:module", load=lambda: register("extra", paper="x")(Silent))
        ]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    load_plugins()
    assert asked == ["fusebench.methods"]
    assert card("extra").kind == "guide"


def test_a_broken_installed_plugin_is_named_with_the_reason(monkeypatch):
    def load():
        raise ImportError("it needs something else")

    broken = SimpleNamespace(name="twice", value="package.module", load=load)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [broken])
    with pytest.raises(InputError, match=r"plugin twice = package\.module cannot be imported: ImportError: it needs"):
        load_plugins()


def test_an_installed_plugin_that_takes_a_name_again_is_refused(monkeypatch):
    taken = SimpleNamespace(name="twice", value="package", load=lambda: register("mean", paper="x")(Silent))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [taken])
    with pytest.raises(
        InputError, match=r"plugin twice = package cannot be imported: .*'mean' is already registered"
    ):
        load_plugins()
