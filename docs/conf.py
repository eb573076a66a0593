"""Settings of the documentation; before it is built, the pages that follow from the code are written."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

# before anything imports huggingface_hub: building needs no network and shall not look for one
os.environ.update(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false"
)

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from sphinx.application import Sphinx  # noqa: E402

from docs.generator import command_page, method_pages, readme_section  # noqa: E402

project = "FuseBench"
author = "the FuseBench contributors"
html_title = "FuseBench"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
smartquotes = False  # --flag stays --flag

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["generator"]
default_role = "literal"  # docstrings put code between single backticks
pygments_style = "friendly"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_in_temp = True  # a run leaves its results folder there
nb_execution_raise_on_error = True
nb_output_stderr = "remove"  # progress bars, which differ from machine to machine

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the shapes of tensors stand in the text and are checked by the tests
napoleon_google_docstring = True
napoleon_numpy_docstring = False

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")


def _offer_files_of_the_repository(app: Sphinx, docname: str, source: list[str]) -> None:
    """Makes a download of each link to a file outside of docs, and of a link to a folder its bare name."""
    page = Path(app.env.doc2path(docname))

    def offered(match: re.Match[str]) -> str:
        text, target = match.groups()
        file = (page.parent / target).resolve()
        if file.is_relative_to(DOCS):
            return match.group()
        return f"{{download}}`{text.strip('`')} <{target}>`" if file.is_file() else text

    if page.suffix == ".md":
        source[0] = _OUTSIDE.sub(offered, source[0])


def setup(app: Sphinx) -> None:
    """Writes the generated pages and listens for sources that are read."""
    method_pages.write_all(DOCS / "methods", results=DOCS.parent / "results")
    command_page.write(DOCS / "reference" / "commands.md")
    readme_section.write(DOCS.parent / "README.md", "When to use something else", DOCS / "alternatives.md")
    app.connect("source-read", _offer_files_of_the_repository)
