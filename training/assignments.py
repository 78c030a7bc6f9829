"""Words of the form name=value, in which environments are given their arguments.

Values are YAML in which 1e-3 is a number too, and None is null.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    pass


EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
"""Numbers that YAML 1.1, which PyYAML reads, takes for text unless they have a point and a sign."""

for _cls in (_Loader, _Dumper):  # the dumper quotes text that would be read as something else
    _cls.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))
    _cls.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("None$"), ["N"])


def parse_assignments(words: Sequence[str]) -> dict[str, Any]:
    """{"max_length": 30} from ["max_length=30"]. Raises ValueError."""
    values: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise ValueError(f"{word!r} is not of the form name=value, as in max_length=30")
        if name in values:
            raise ValueError(f"{name} = {value} was given as {values[name]} before; leave one out")
        try:
            values[name] = yaml.load(value, _Loader)
        except (yaml.YAMLError, ValueError):
            raise ValueError(
                f"{word!r}: {value!r} is not YAML; close its brackets and quotes, or put quotes "
                "around all of it if it is text"
            ) from None
    return values


def assignments(values: dict[str, Any]) -> list[str]:
    """The words `name=value` that give `values` on the command line."""
    return [f"{name}={_in_list(value)}" for name, value in values.items()]


def _in_list(value: Any) -> str:
    """`value` as it stands in a list, where text with a comma has quotes."""
    text: str = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, width=10**6)
    return text.strip()[1:-1]


def parse_stages(words: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """({"n_rooms": 3}, {"n_rooms": 4}) from ["n_rooms=3", "n_rooms=4"]; a comma joins several."""
    return tuple(parse_assignments(_split(word)) for word in words)


def stage_words(stages: Sequence[dict[str, Any]]) -> list[str]:
    """The words that give `stages` on the command line."""
    return [",".join(assignments(stage)) for stage in stages]


def _split(word: str) -> list[str]:
    """Parts of a word between the commas that are in no brackets and no quotes."""
    parts, depth, quote, before = [""], 0, "", ""
    for letter in word:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and not before.isalnum():  # otherwise an apostrophe
            quote = letter
        else:
            depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not (quote or depth):
            parts.append("")
        else:
            parts[-1] += letter
        before = letter
    return parts
