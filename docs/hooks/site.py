"""The site's own touches: the version at the foot of each page, and captions below figures."""

import re

from mkdocs.config.defaults import MkDocsConfig

from decaymerge import __version__

FIGURE = re.compile(r'<p>((?:<a [^>]*>)?<img [^>]*alt="([^"]*)"[^>]*>(?:</a>)?)</p>')
"""A picture that is a paragraph of its own, which may be a link to itself."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Say the version at the foot of each page."""
    config.copyright = f"decaymerge {__version__}"
    return config


def on_page_content(content: str, **_: object) -> str:
    """Put its alternative text below each figure, too."""
    return FIGURE.sub(r"<figure>\1<figcaption>\2</figcaption></figure>", content)
