"""Sphinx configuration: ``scripts/docs.sh FOLDER`` builds README.md, docs/ and results/ as one site.

The script copies these three with their relative paths, so that links between pages hold in the repository and on the
site alike. README.md becomes the start page ``index.md``.
"""

from __future__ import annotations

import base64
import io
import posixpath
import re
from html import escape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from PIL import Image

from mar.experiments.result import read_result
from mar.reports import plots, verdict
from mar.reports.columns import in_asked_unit
from mar.reports.page import headline
from scripts import reference_pages

project = "mar-orderings"
author = "mar-orderings contributors"
copyright = "mar-orderings contributors"
html_title = "mar-orderings"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
root_doc = "index"
exclude_patterns = ["README.md"]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["misc.highlighting_failure"]  # command lines with placeholders in python blocks
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"
pygments_style = "default"  # its colours have the contrast of WCAG AA
pygments_dark_style = "monokai"
copybutton_exclude = ".linenos, .gp, .go"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_ivar = True

# The side bar: captions and pages, in reading order.
PAGES = {
    "Start": [
        "installation",
        "quickstart",
        "concepts",
        "gallery",
        "from-the-command-line",
        "from-python",
        "demo",
        "own-data",
        "ablate-my-ordering",
        "recipes",
        "troubleshooting",
        "trust",
        "compared",
        "glossary",
    ],
    "Models": [
        "data",
        "conditions",
        "latents",
        "video",
        "networks",
        "choosing-a-network",
        "training",
        "published-models",
        "released-models",
        "imagenet",
    ],
    "Likelihood": ["likelihood", "estimators", "continuous-heads", "matrix", "sets-and-exposure", "consistency"],
    "Orders": ["orderings", "order-search", "learned-order"],
    "Generation": ["evaluation", "fast-sampling", "guidance", "remasking", "speculation"],
    "Experiments": ["ablations", "tables"],
    "Extending": [
        "architecture",
        "adding-an-ordering",
        "adding-a-network",
        "adding-a-head",
        "adding-a-tokenizer",
        "adding-a-data-set",
        "adding-a-metric",
    ],
    "Reference": ["commands", "reference", "index", "/CONTRIBUTING", "/CHANGELOG"],
}


def _toctree(entries: list[str], caption: str = "") -> str:
    head = f":caption: {caption}\n" if caption else ""
    return "\n\n```{toctree}\n:hidden:\n" + head + "\n" + "\n".join(entries) + "\n```\n"


def _add_navigation(app: Any, page: str, source: list[str]) -> None:
    """Append the side bar to the start page, the list of results to theirs, and the interactive report of a folder."""
    here = Path(app.srcdir) / posixpath.dirname(page)
    if page.startswith("results/") and not source[0].startswith("# "):
        source[0] = f"# {page.removeprefix('results/')}\n\n{source[0]}"
    if page == "index":
        for caption, names in PAGES.items():
            source[0] += _toctree([name if name.startswith("/") else f"/docs/{name}" for name in names], caption)
        source[0] += _toctree(["/results/README", "/results/LOG", "/results/speed"], "Results")
    elif page == "docs/gallery":
        source[0] += _gallery(Path(app.srcdir))
    elif page == "docs/recipes":
        source[0] = source[0].replace("% table of recipes", reference_pages.recipes())
    elif page == "docs/commands":
        source[0] = source[0].replace("% reference of commands", reference_pages.commands())
    elif page == "results/README":
        found = sorted(here.glob("*/**/*.md"))
        source[0] += _toctree([f"/{path.relative_to(app.srcdir).with_suffix('')}" for path in found])
    elif page.startswith("results/") and any(here.glob("result.json*")):
        source[0] += '\n\n<p><a href="index.html">Open the interactive report of this table.</a></p>\n'


def _gallery(root: Path) -> str:
    """Return a card for each interactive report: its question, the first sentence of its answer, and a plot."""
    cards = []
    folders = {path.parent for path in root.glob("results/**/result.json*")}
    for folder in sorted(folders, key=lambda each: (each.name != "mar-table1", each)):
        result = in_asked_unit(read_result(folder))
        title, question = headline(result)
        answer = next(iter(verdict.answers(result)), title)
        thumbnail, content = plots.save(plots.thumbnail(result), folder / "thumbnail.png"), io.BytesIO()
        with Image.open(thumbnail) as image:
            fit = "cover" if image.height > image.width else "contain"
            image.convert("RGB").quantize(32).save(content, "PNG", optimize=True)
        picture = base64.b64encode(content.getvalue()).decode()
        cards.append(
            f'<a href="../{folder.relative_to(root)}/index.html">'
            f'<img style="object-fit:{fit}" src="data:image/png;base64,{picture}" alt="">'
            f"<strong>{escape(question)}</strong><span>{escape(title)}: {escape(answer)}</span></a>"
        )
    return f'\n\n<div class="gallery">{"".join(cards)}</div>\n'


def _mathml(formula: str, display: str) -> str:
    """Convert LaTeX, with a thin space between a named function and its argument."""
    return re.sub(r"(<mi>(?:log|div)</mi>)(?=<m)", r'\1<mspace width="0.17em"/>', convert(formula, display=display))


def _write_inline(self: Any, node: Any) -> None:
    self.body.append(_mathml(node.astext(), "inline"))


def _write_block(self: Any, node: Any) -> None:
    self.body.append(f'<div class="math-block">{_mathml(node.astext(), "block")}</div>')


def _leave(self: Any, node: Any) -> None:
    """Close nothing: the whole formula is written on entry."""


def _skip_visit(write: Any) -> Any:
    def visit(self: Any, node: Any) -> None:
        from docutils.nodes import SkipNode

        write(self, node)
        raise SkipNode

    return visit


def _escape_plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: keep |x| and *shape from being read as markup, outside ``literals``.

    Napoleon reads "text: more" on the first line of a property as a type.
    """
    if what in ("property", "attribute") and lines:
        lines[0] = lines[0].replace(": ", " — ", 1)
    for number, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        lines[number] = "``".join(parts)


def _make_accessible(app: Any, error: Exception | None) -> None:
    """Give headings of the side bar a level, and boxes that scroll the keyboard's focus."""
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text().replace('role="heading">', 'role="heading" aria-level="2">')
        text = re.sub(r'<(pre|div class="table-wrapper[^"]*")(?=[ >])(?! tabindex)', r'<\1 tabindex="0"', text)
        page.write_text(text)


def setup(app: Any) -> None:
    """Render formulas as MathML when the page is built: no script, no network, selectable text."""
    app.add_html_math_renderer("mathml", (_skip_visit(_write_inline), _leave), (_skip_visit(_write_block), _leave))
    app.connect("source-read", _add_navigation)
    app.connect("build-finished", _make_accessible)
    app.connect("autodoc-process-docstring", _escape_plain_text, priority=400)  # before napoleon, at 500
