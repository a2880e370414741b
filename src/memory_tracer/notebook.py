"""What values are in a notebook: small tables, of which nothing is markup of a target's or a file's."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

#: What is a number and read as an address.
_ADDRESSES = frozenset({"address", "start", "end", "caller", "stack", "arguments"})
#: Bytes and items of a value that are shown, and characters of a text.
_BYTES_SHOWN, _ITEMS_SHOWN, _TEXT_SHOWN = 32, 16, 500


def html_table(facts: Mapping[str, str]) -> str:
    """Return an HTML table with a row for each of ``facts``."""
    import html  # late: every recording imports the values

    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
        for name, text in facts.items()
    )
    return f"<table>{rows}</table>"


class Described:
    """Base of the values that a capture gives out: dataclasses, which Jupyter shows as tables."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Return the fields that are known, for a notebook."""
        assert dataclasses.is_dataclass(self)
        facts = {
            field.name: _text(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)
        }
        return html_table({name.replace("_", " "): text for name, text in facts.items() if text})


def _text(name: str, value: object) -> str:
    """Return a field as printable ASCII; nothing where it is not known."""
    if value is None or value is False or value == ():
        return ""
    if dataclasses.is_dataclass(value):
        known = {
            field.name: _text(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        return ", ".join(
            f"{key.replace('_', ' ')} {text}" for key, text in known.items() if text not in ("", "0")
        )
    if isinstance(value, tuple):
        items = [_text(name, item) for item in value[:_ITEMS_SHOWN]]
        return ", ".join([*items, "..."] if len(value) > _ITEMS_SHOWN else items)
    if isinstance(value, bytes):
        return f"{value[:_BYTES_SHOWN].hex(' ')}{' ...' if len(value) > _BYTES_SHOWN else ''}"
    if isinstance(value, int) and not isinstance(value, bool | enum.Enum):
        return f"{value:#x}" if name in _ADDRESSES else str(value)
    text = str(value)
    return ascii(text[:_TEXT_SHOWN])[1:-1] + ("..." if len(text) > _TEXT_SHOWN else "")
