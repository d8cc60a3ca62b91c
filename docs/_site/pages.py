"""What MkDocs does to each page beside Markdown: equations become MathML, and the foot links the glossary.

Browsers set MathML themselves, with no script and no network. Pages write equations between dollars, which GitHub
shows too: ``$x$`` in a line, ``$$ ... $$`` on their own.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert
from mkdocs.utils import get_relative_url

EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def typeset(html: str) -> str:
    """A page in which the equations are MathML."""

    def one(found: re.Match[str]) -> str:
        block = found[2] == "["
        math = convert(unescape(found[3]).strip(), display="block" if block else "inline")
        return f'<div class="equation">{math}</div>' if block else math

    return EQUATION.sub(one, html)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """MkDocs calls this for every page."""
    if page.url == "glossary.html":
        return typeset(html)
    link = f'<a href="{get_relative_url("glossary.html", page.url)}">glossary</a>'
    return f'{typeset(html)}<p class="words">Words such as theta, train or digit: {link}.</p>'
