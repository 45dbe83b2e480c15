"""Checks the built site: every link inside it leads somewhere, and nothing on a page comes from elsewhere.

python docs/check_site.py site

Sphinx checks the references that it knows; this looks at what came out, the theme's own files included. Links to other
sites are not fetched: they must be well-formed https addresses.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_STYLE_URL = re.compile(r"""(?:@import\s+|url\(\s*)["']?([^"')\s;]+)""")


class Page(HTMLParser):
    """What a page refers to.

    Attributes:
        ids: Names that a link to the page may end in.
        links: Where a reader may go.
        parts: What a browser fetches to show the page.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.parts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note an element's name and addresses."""
        values = {name: value for name, value in attributes if value}
        self.ids.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and "href" in values and values.get("rel") not in ("next", "prev", "search", "index"):
            self.parts.append(values["href"])
        self.parts += [values[name] for name in ("src", "data", "poster") if name in values and tag != "a"]
        self.parts += _STYLE_URL.findall(values.get("style", ""))


def problems(site: Path) -> Iterator[str]:
    """What is wrong, one line each."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site}: holds no pages"
    for path, page in pages.items():
        for part in page.parts:
            if urlsplit(part).scheme not in ("", "data") or part.startswith("//"):
                yield f"{path}: fetches {part}"
            elif not part.startswith("data:") and not _target(path, part).is_file():
                yield f"{path}: {part} is not there"
        for link in page.links:
            yield from (f"{path}: {problem}" for problem in _link_problems(link, path, pages))
    for style in sorted(site.rglob("*.css")):
        for url in _STYLE_URL.findall(style.read_text(encoding="utf-8")):
            if re.match(r"(https?:)?//", url):
                yield f"{style}: fetches {url}"


def _link_problems(link: str, path: Path, pages: dict[Path, Page]) -> Iterator[str]:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        if parts.scheme != "https" or not re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc):
            yield f"{link} is not a well-formed https address"
        return
    target = _target(path, link)
    if not target.is_file():
        yield f"{link} leads nowhere"
    elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        yield f"{link}: that page has no {parts.fragment}"


def _target(path: Path, link: str) -> Path:
    name = unquote(urlsplit(link).path)
    return (path.parent / name).resolve() if name else path


def main() -> int:
    """Print what is wrong. Returns the exit code."""
    found = list(problems(Path(sys.argv[1])))
    sys.stderr.writelines(f"{problem}\n" for problem in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
