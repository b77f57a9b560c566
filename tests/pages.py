"""Reads a report as a browser would: elements, scripts, texts, packed attempts."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser


def unpack(text):
    """The JSON value of a packed block."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def attempts(browser_index, blocks):
    """The attempts of a sample browser, each with its facts and its texts."""
    found, blocks = [], list(blocks)
    for values in browser_index["samples"]:
        facts = dict(zip(browser_index["facts"], values, strict=True))
        problem = browser_index["problems"][facts["problem"]]
        texts = blocks[facts["block"]][facts["place"]]
        found.append({**texts, **facts, "problem": problem})
    return found


class Page(HTMLParser):
    """What a browser would see: elements, scripts and the text outside them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.policy, self.words = [], [], "", []
        self.inside = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "script":
            self.scripts.append((dict(attributes).get("type"), ""))
        if dict(attributes).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attributes)["content"]

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)
        elif self.inside != "style":
            self.words.append(data)

    @property
    def index(self):
        """What the sample browser knows without unpacking a block."""
        return unpack(self.scripts[0][1])

    @property
    def attempts(self):
        return attempts(self.index, [unpack(text) for _, text in self.scripts[1:-1]])

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))
