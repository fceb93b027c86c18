"""HTML that cannot be broken by what is put into it: every text is escaped unless it was built here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Union

Child = Union["Markup", str, float, None, Iterable["Child"]]

_VOID = frozenset({"img", "input", "meta", "br"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """<name attributes>children</name>.

    children: texts, which are escaped, numbers, Markup, or iterables of these; None is left out. attributes: `class_`
    is class, `data_x` data-x; None and False are left out, True has no value.
    """
    head = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{head}>")
    return Markup(f"<{head}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other."""
    return Markup("".join(map(_child, children)))


def table(head: Iterable[str], rows: Iterable[Child], class_: str, caption: str | None = None) -> Markup:
    """A table with a row of headings; rows: of `tag("tr", ...)`."""
    top = tag("thead", tag("tr", [tag("th", name, scope="col") for name in head]))
    return tag("table", caption and tag("caption", caption), top, tag("tbody", rows), class_=class_)


def terms(pairs: Iterable[tuple[str, Child]], class_: str) -> Markup:
    """A list of terms and what is said of them."""
    return tag("dl", [tag("div", tag("dt", term), tag("dd", said)) for term, said in pairs], class_=class_)


def bar(who: Child, middle: Child, value: str, row: str, **attributes: str) -> Markup:
    """A row of a drawing made of bars: a name, the bar, a figure. row: its class; attributes: of the bar."""
    shown = tag("span", middle, **{"class_": "stack"} | attributes)
    return tag("div", tag("span", who, class_="who"), shown, tag("span", value, class_="value"), class_=row)


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return escape(child)
    if isinstance(child, int | float):
        return escape(str(child))
    return join(child)


def _attribute(key: str, value: str | float | bool | None) -> str:
    key = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {key}" if value is True else f' {key}="{escape(str(value))}"'
