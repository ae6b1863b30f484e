"""Formulas between dollar signs become MathML while the site is built, so that no page loads a script for them."""

import html
import re

from latex2mathml.converter import convert

# What pymdownx.arithmatex leaves of them.
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
DISPLAY = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """MkDocs' event after a page's Markdown has become HTML."""
    content = DISPLAY.sub(lambda found: _mathml(found, "block"), content)
    return INLINE.sub(lambda found: _mathml(found, "inline"), content)


def _mathml(found: re.Match[str], display: str) -> str:
    return convert(html.unescape(found[1]).strip(), display=display)
