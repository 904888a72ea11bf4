"""Text that came from models, data and files, made fit to be shown.

Escaping is each format's own; what is done here is common to all: characters that a reader cannot see, or that reorder
what is around them, are shown by their code point, and length is limited.
"""

from __future__ import annotations

import unicodedata

LONGEST = 400
"""Characters of the longest text that a report shows whole."""

_JOINERS = "\u200c\u200d"
"""Needed to write Persian and several Indian scripts; they reorder nothing."""


def clean(text: str, longest: int = LONGEST) -> str:
    """One line of visible text.

    Control, bidirectional-override, private-use and unassigned characters and lone surrogates become their code point in
    brackets, line breaks and tabs become spaces, and what is longer than `longest` is cut with an ellipsis.
    """
    cut = text[: longest + 1]
    shown = "".join(_visible(character) for character in cut[:longest])
    return f"{shown}…" if len(cut) > longest else shown


def visible(text: str) -> str:
    """Text of any length whose line breaks stay and whose other unseen characters are shown as in `clean`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if character == "\n" else _visible(character) for character in text)


def short(digest: str) -> str:
    """The first twelve characters of a digest, enough to recognise it."""
    algorithm, separator, value = digest.rpartition(":")
    return clean(f"{algorithm}{separator}{value[:12]}", 40)


def _visible(character: str) -> str:
    if " " <= character <= "~":
        return character
    if character in "\n\r\t\u2028\u2029":
        return " "
    if unicodedata.category(character)[0] == "C" and character not in _JOINERS:
        return f"[U+{ord(character):04X}]"
    return character
