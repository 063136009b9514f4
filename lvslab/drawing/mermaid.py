"""A drawing as a flowchart of Mermaid, which renders in Markdown on many sites."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from lvslab.drawing.content import Content
from lvslab.lab.model import Role

_COLOURS: Mapping[Role, str] = {
    "client": "#2563c9",
    "router": "#0f7c86",
    "director": "#c2410c",
    "real-server": "#1f7a3a",
    "name-server": "#7c3aa8",
}


def as_mermaid(content: Content) -> str:
    """Return a drawing as the text of a flowchart."""
    return "\n".join(_lines(content)) + "\n"


def _lines(content: Content) -> Iterator[str]:
    yield from ("---", f"title: {json.dumps(content.title, ensure_ascii=False)}", "---", "flowchart TD")
    names = {bar.name: f"net{number}" for number, bar in enumerate(content.bars)}
    for bar in content.bars:
        yield f"  {names[bar.name]}([{_quoted(f'<b>{_text(bar.name)}</b> {_text(bar.subnets)}')}])"
    for number, box in enumerate(content.boxes):
        rows = "<br/>".join(_text(row.text) for row in box.rows)
        yield f"  box{number}[{_quoted(f'<b>{_text(box.title)}</b><br/>{rows}')}]:::{box.role}"
        networks = list(dict.fromkeys(box.networks))
        # What stands before an arrow comes above it.
        first = content.bars[0].name
        if box.role == "client" and networks == [first]:
            yield f"  box{number} --- {names[first]}"
            continue
        top = min(networks, key=list(names).index)
        yield f"  {names[top]} --- box{number}"
        yield from (f"  box{number} --- {names[network]}" for network in networks if network != top)
    for role, colour in _COLOURS.items():
        if any(box.role == role for box in content.boxes):
            yield f"  classDef {role} stroke:{colour},stroke-width:2px,text-align:left"


def _quoted(text: str) -> str:
    return f'"{text}"'


def _text(text: str) -> str:
    """Write ``text`` with the entities of Mermaid."""
    return text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
