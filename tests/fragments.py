"""What a piece of HTML in a notebook holds."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"br", "img", "hr", "input", "meta", "link"}


class Fragment(HTMLParser):
    """Elements, texts, styles, pictures and rows of tables; refuses what is not well-formed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    @property
    def pictures(self) -> list[np.ndarray]:
        """(h, w, 3) uint8 of each picture."""
        sources = [values["src"] for tag, values in self.elements if tag == "img"]
        contents = [re.fullmatch(r"data:image/png;base64,(.*)", source)[1] for source in sources]
        return [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(content, validate=True))))
            for content in contents
        ]

    @property
    def swatches(self) -> list[str]:
        """The grounds of the fields of colour, in their order."""
        styles = [values.get("style", "") for _, values in self.elements]
        return [
            re.search(r"background:(.*)", style)[1] for style in styles if "width:12px" in style
        ]


def require_still(fragment: Fragment) -> None:
    """Nothing in it runs, is fetched, or has the colours of one theme alone."""
    assert fragment.tags <= {"div", "span", "b", "img", "table", "thead", "tbody", "tr", "th", "td"}
    for _, values in fragment.elements:
        assert values.keys() <= {"style", "src", "alt", "width"}
        style = values.get("style", "")
        assert "url(" not in style
        assert not re.search(r"(?<![-\w])color:(?!inherit)", style)
