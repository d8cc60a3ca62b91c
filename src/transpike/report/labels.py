"""Labels that distinguish codings, as short as possible."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

__all__ = ["label_schemes"]

Scheme = Mapping[str, object]
Words = Mapping[str, str]


def label_schemes(schemes: Sequence[Scheme], words: Sequence[Words], places: Sequence[str] = ()) -> list[str]:
    """Return a label for each coding scheme from the differences between them. Equal schemes have equal labels.

    Args:
        schemes: each with its `name` and its settings.
        words: for each scheme, the words for its settings. A setting without words is shown by its name and value.
            Settings with the same words are shown once. If there are several schemes, the scheme's name comes first.
        places: for each scheme, the thing that it belongs to, such as a network. The label names it if these differ.

    Example:
        >>> rate, fine = {"name": "rate", "steps": 32}, {"name": "fine", "levels": [1, 2], "steps": 8}
        >>> label_schemes([rate, fine, fine | {"levels": [1]}], [{"name": "Rate"}, {}, {"levels": "ternary"}])
        ['Rate', 'fine, levels 1, 2', 'fine, ternary']
        >>> label_schemes([rate, rate | {"steps": 64}], [{}, {}])
        ['steps 32', 'steps 64']
        >>> label_schemes([fine, fine], [{}, {}], places=["resnet20", "vgg16"])
        ['resnet20, fine', 'vgg16, fine']
    """
    names = {scheme["name"] for scheme in schemes}
    labels = []
    for place, (scheme, spoken) in enumerate(zip(schemes, words, strict=True)):
        rivals = [other for other in schemes if other["name"] == scheme["name"]]
        differing = [name for name in scheme if any(_key(other.get(name)) != _key(scheme[name]) for other in rivals)]
        parts = list(dict.fromkeys(spoken.get(name) or _words(name, scheme[name]) for name in differing))
        if not parts or len(names) > 1:
            parts.insert(0, spoken.get("name") or str(scheme["name"]))
        if len(set(places)) > 1:
            parts.insert(0, places[place])
        labels.append(", ".join(parts))
    return labels


def _key(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _words(name: str, value: object) -> str:
    spoken = name.replace("_", " ")
    if value is None or value is False:
        return f"no {spoken}"
    if value is True:
        return spoken
    if isinstance(value, float):
        return f"{spoken} {value:g}"
    if isinstance(value, list | tuple):
        return f"{spoken} {', '.join(map(str, value))}"
    return f"{spoken} {value}"
