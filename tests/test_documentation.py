"""What the README and the written pages show is so: Python runs, commands parse, links lead somewhere."""

from __future__ import annotations

import doctest
import json
import re
import shlex
from pathlib import Path

import matplotlib as mpl
import pytest
from markdown_it import MarkdownIt

from docs.generator.command_page import parser_of
from docs.generator.method_pages import page
from docs.generator.notes import read_notes
from docs.generator.readme_section import write
from fusebench.benchmarks import embedded
from fusebench.errors import InputError
from fusebench.methods import registry
from fusebench.methods.grammar import parse, split
from fusebench.methods.registry import cards
from fusebench.run_bench import COMMANDS
from fusebench.study.catalogue import expand
from tests.conftest import TinyData

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = sorted(
    path.relative_to(ROOT)
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/guide/*.md"),
        ROOT / "docs" / "index.md",
        *ROOT.glob("docs/*.md"),
    ]
    if path != ROOT / "docs" / "alternatives.md"  # made from the README
)
NOTEBOOK = ROOT / "docs" / "notebooks" / "depth_curves.ipynb"
OF_READERS = ("mid-layer", "mid-mean", "upper-half")  # parts that the pages show how to write


def blocks(path, language):
    """The fenced blocks of a page in this language."""
    tokens = MarkdownIt().parse((ROOT / path).read_text(encoding="utf-8"))
    return [token.content for token in tokens if token.type == "fence" and token.info.strip() == language]


WITH_PYTHON = [path for path in WRITTEN if blocks(path, "python")]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder as readers have it, a registry that forgets, and fewer texts to fit on, which is quick."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    few = sorted(embedded.fit_sentences(), key=len)[:300]
    monkeypatch.setattr(embedded, "fit_sentences", lambda: few)
    tiny = TinyData(tmp_path / "DATA")
    tiny.write_sts("STSBenchmark", tiny.pairs())
    return tmp_path


def run_examples(path):
    """Runs the Python blocks of a page in order, in one namespace; prompts are examples with an expected result."""
    names = {"__name__": "page"}
    for block in blocks(path, "python"):
        if ">>>" not in block:
            exec(compile(block, str(path), "exec"), names)
            continue
        test = doctest.DocTestParser().get_doctest(block, names, str(path), None, None)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.REPORT_NDIFF)
        said = []
        runner.run(test, out=said.append, clear_globs=False)
        assert runner.failures == 0, "".join(said)
        names = test.globs
    return names


@pytest.mark.parametrize("path", WITH_PYTHON, ids=str)
def test_the_python_of_a_page_runs_and_gives_what_it_shows(path, workplace):
    run_examples(path)


def test_an_example_that_gives_something_else_is_caught(workplace, tmp_path):
    (tmp_path / "page.md").write_text("```python\n>>> 1 + 1\n3\n\n```\n")
    with pytest.raises(AssertionError, match=r"1 \+ 1"):
        run_examples(tmp_path / "page.md")


def test_the_notebook_runs_and_draws_a_curve_of_each_pooling(workplace):
    mpl.use("agg")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []  # the site has them; in the repository they would grow old
            exec("".join(cell["source"]), names)
    lines = names["axes"].get_lines()
    assert [line.get_label() for line in lines] == ["cls", "mean"]
    assert names["curves"]["mean"].notna().all()
    assert names["curves"].index.tolist() == [0, 1, 2, 3, 4, 5, 6]


def commands(text):
    """The fusebench commands in the shell blocks of a page, as lists of words."""
    for block in text:
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for start, word in enumerate(words):
                if word in ("fusebench", "run_bench.py") and words[max(0, start - 1)] not in ("-m", "install"):
                    yield words[start + 1 :]
                    break


def check(words):
    """Parses a command as the command line would, and every method in it that is no placeholder."""
    named = words[:1] if words[0] in COMMANDS else []
    flags = parser_of(COMMANDS[named[0] if named else "run"]).parse_args(words[len(named) :])
    asked = getattr(flags, "methods", None) or []
    written = [word for some in asked for word in ([some] if isinstance(some, str) else some)]
    for sentence in (one for word in written if word != "..." for one in split(word, ",")):
        if not sentence.startswith(OF_READERS) and not sentence.isupper() and sentence != "all":
            parse(expand(sentence, None).replace("native", "mean"))


@pytest.mark.parametrize("path", WRITTEN, ids=str)
def test_the_commands_of_a_page_are_ones_that_there_are(path):
    for words in commands(blocks(path, "bash")):
        check(words)


def test_the_commands_that_method_pages_show_are_ones_that_there_are():
    notes = read_notes()
    shown = [
        words
        for card in cards()
        if card.name in notes
        for words in commands(re.findall(r"```bash\n(.*?)```", page(card, notes[card.name], ""), re.DOTALL))
    ]
    assert len(shown) >= len(notes)
    for words in shown:
        check(words)


@pytest.mark.parametrize("line", ["fusebench --methods meen", "run_bench.py compare --taks A", "fusebench reports"])
def test_a_command_that_there_is_not_is_caught(line):
    (words,) = commands([line])
    with pytest.raises((InputError, SystemExit)):
        check(words)


@pytest.mark.parametrize("path", WRITTEN, ids=str)
def test_links_to_files_lead_to_files(path):
    text = re.sub(r"```.*?```", "", (ROOT / path).read_text(encoding="utf-8"), flags=re.DOTALL)
    made = (ROOT / "docs" / "methods", ROOT / "docs" / "reference" / "commands.md")  # when the site is built
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith("http"):
            file = (ROOT / path).parent / target
            resolved = file.resolve()
            name = resolved.stem
            assert resolved.exists() or resolved in made or (resolved.parent == made[0] and is_page(name)), target


def is_page(name):
    """Whether a page of this name is made of a part."""
    return name == "index" or name in {card.name for card in cards()}


def test_a_section_of_the_readme_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="has no section 'Nowhere'"):
        write(ROOT / "README.md", "Nowhere", tmp_path / "page.md")
    write(ROOT / "README.md", "When to use something else", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text().startswith("# When to use something else\n")
