"""Formulas become MathML when the site is built, so a page fetches no script; `[@key]` links to the bibliography."""

import html
import re

from latex2mathml.converter import convert


def on_page_markdown(markdown, **_):
    return re.sub(r"\[@(\w+)\]", r"[[\1](references.bib)]", markdown)


def on_page_content(content, **_):
    def inline(found):
        return convert(html.unescape(found[1]))

    def block(found):
        return convert(html.unescape(found[1]), display="block")

    content = re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', inline, content, flags=re.DOTALL)
    return re.sub(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', block, content, flags=re.DOTALL)
