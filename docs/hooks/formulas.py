"""Turn formulas between dollar signs into MathML while the site is built, so that pages need no script for them."""

import html
import re

from latex2mathml.converter import convert

# HTML that pymdownx.arithmatex makes of them.
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
DISPLAY = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """Convert the formulas of a page. MkDocs calls this after the page's Markdown has become HTML."""
    content = DISPLAY.sub(lambda formula: _mathml(formula, "block"), content)
    return INLINE.sub(lambda formula: _mathml(formula, "inline"), content)


def _mathml(formula: re.Match[str], display: str) -> str:
    return convert(html.unescape(formula[1]).strip(), display=display)
