"""From the SVG that matplotlib writes to one that may stand in a page beside others, with hover titles."""

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from wsr.report.style import CRISP, CSS_COLORS, readable

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_DRAWN = frozenset(f"{{{_SVG}}}{tag}" for tag in ("path", "use", "image"))
# matplotlib writes "font-family: 'DejaVu Sans'; font-size: 9px", before 3.11 "font: bold 9px 'DejaVu Sans'".
_FONT_FAMILY = re.compile(r"font-family: [^;]*;? ?")
_FONT = re.compile(r"font: (?:(bold|[1-9]00) )?([\d.]+px) [^;]*")
# The identifier of the title of a whole figure, which screen readers read.
_TITLE = "title"
_NO_ROTATION = re.compile(r"rotate\(-?0 ")


def for_page(text: str, titles: Mapping[str, Sequence[str]], *, label: str, prefix: str) -> str:
    """Returns matplotlib's SVG ``text`` for use inside an HTML page.

    Identifiers get ``prefix``; colours become CSS variables; nothing refers to the outside.
    Each shape of the group called ``gid`` gets its title out of ``titles[gid]``.
    """
    root = _clean(text, titles, label)
    for element in root.iter():
        for name, value in element.attrib.items():
            value = value.replace("url(#", f"url(#{prefix}")
            if name in ("id", "aria-labelledby"):
                value = prefix + value
            elif name == "href" and value.startswith("#"):
                value = f"#{prefix}{value.removeprefix('#')}"
            elif name == "style":
                value = _themed(value)
            element.set(name, value)
    return _written(root)


def for_file(text: str, titles: Mapping[str, Sequence[str]], *, label: str) -> str:
    """Returns matplotlib's SVG ``text`` as a file of its own, with plain colours on white."""
    root = _clean(text, titles, label)
    root.insert(1, ElementTree.Element(f"{{{_SVG}}}rect", {"width": "100%", "height": "100%", "fill": "#ffffff"}))
    return "<?xml version='1.0' encoding='utf-8'?>\n" + _written(root) + "\n"


def _clean(text: str, titles: Mapping[str, Sequence[str]], label: str) -> ElementTree.Element:
    root = ElementTree.fromstring(text)  # drops the DOCTYPE and the comments
    parents = [(parent, child) for parent in root.iter() for child in parent]
    for parent, child in parents:
        # The style sheet inside would rule the whole page; the metadata hold addresses of vocabularies.
        if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
            parent.remove(child)
    for element in root.iter():
        target = element.attrib.pop(f"{{{_XLINK}}}href", None)
        if target is not None:
            element.set("href", target)
    box = root.get("viewBox", "").split()
    for name, value in {
        "width": box[2],
        "height": box[3],
        "role": "img",
        "aria-labelledby": _TITLE,
        "font-family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
        "stroke-linejoin": "round",
    }.items():
        root.set(name, value)
    root.attrib.pop("version", None)
    for element in root.iter():
        if "style" in element.attrib:
            style = _FONT_FAMILY.sub("", element.attrib["style"])
            element.set("style", _FONT.sub(_font, style))
        if _NO_ROTATION.match(element.get("transform", "")):
            del element.attrib["transform"]
        if element.get("id", "").startswith(CRISP):
            element.set("shape-rendering", "crispEdges")
    _insert_titles(root, titles)
    _tidy(root)
    title = ElementTree.Element(f"{{{_SVG}}}title", {"id": _TITLE})
    title.text = readable(label)
    root.insert(0, title)
    return root


def _font(match: re.Match[str]) -> str:
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}"


def _tidy(root: ElementTree.Element) -> None:
    """Takes out the identifiers that nothing refers to and the white space between elements."""
    used = {element.get("href", "").removeprefix("#") for element in root.iter()}
    used |= {
        name for element in root.iter() for v in element.attrib.values() for name in re.findall(r"url\(#(.*?)\)", v)
    }
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        if element.tag == f"{{{_SVG}}}path":
            element.set("d", " ".join(element.get("d", "").split()))
        if element.text is not None and not element.text.strip():
            element.text = None
        element.tail = None


def _insert_titles(root: ElementTree.Element, titles: Mapping[str, Sequence[str]]) -> None:
    groups = {element.get("id"): element for element in root.iter() if element.get("id") in titles}
    for gid, names in titles.items():
        shapes = _shapes(groups[gid]) if gid in groups else []
        assert len(shapes) == len(names), f"{gid}: {len(shapes)} shapes for {len(names)} titles"
        for shape, name in zip(shapes, names, strict=True):
            shape.set("class", "mark")
            ElementTree.SubElement(shape, f"{{{_SVG}}}title").text = name


def _shapes(element: ElementTree.Element) -> list[ElementTree.Element]:
    """Returns what is drawn by the element and those within, in order, without the templates in ``defs``."""
    if element.tag in _DRAWN:
        return [element]
    if element.tag == f"{{{_SVG}}}defs":
        return []
    return [shape for child in element for shape in _shapes(child)]


def _themed(style: str) -> str:
    for drawn, themed in CSS_COLORS.items():
        style = style.replace(drawn, themed)
    return style


def _written(root: ElementTree.Element) -> str:
    # Inside HTML an SVG has no prefixes: take the namespace off every tag and declare it once.
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
    root.set("xmlns", _SVG)
    return ElementTree.tostring(root, encoding="unicode")
