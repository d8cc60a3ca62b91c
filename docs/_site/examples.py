"""Examples in docstrings become blocks of code on the site.

Our docstrings write an example as ``>>>`` lines, mostly without a heading. Markdown reads ``>`` as a quotation and runs
its lines together. Here every such block gets a fence before Markdown sees it, and so do the commands of the verbs.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

START = re.compile(r"( *)(>>>|transpike|torchrun) ")


def fenced(text: str) -> str:
    """A docstring in Markdown: a fence around each example, equations between dollars, no marks of other dialects."""
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    lines: list[str] = []
    indent: str | None = None  # of the fence that is open
    for line in [*text.rstrip().splitlines(), ""]:
        if indent is not None and not line.strip():
            lines.append(f"{indent}```")
            indent = None
        found = START.match(line)
        if indent is None and found and (found[2] == ">>>" or lines[-1:] in (["Examples:"], ["Example:"])):
            indent = found[1]
            if lines[-1:] == ["Examples:"]:
                lines[-1] = "Example:"  # "Examples:" is a section of Python alone
            lines.append(f"{indent}```{'pycon' if found[2] == '>>>' else 'bash'}")
        lines.append(line)
    return "\n".join(lines[:-1])


class Examples(griffe.Extension):
    """Fences the examples of every docstring that the site shows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
