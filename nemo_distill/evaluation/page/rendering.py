# Copyright 2026 The nemo_distill Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The template of the page, and what makes any text safe to show in it.

jinja2 escapes all that is put in. What HTML itself cannot hold, or what would turn the text around it, is shown by its
number. The page may load nothing and run its own script alone: its policy says so to the browser.
"""

import base64
import hashlib
import re
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from nemo_distill.evaluation.page.bootstrap import Estimate

_PLACE = Path(__file__).parent
# control characters, halves of pairs and what is no character; embeddings, overrides and isolates of direction
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def shown(text: object) -> str:
    """Return a text with each character that HTML cannot hold, or that turns the direction of others, by its number.

    Example:
        >>> shown("a\\x00b\\u202ec")
        'a⟦0000⟧b⟦202E⟧c'
    """
    return _UNSHOWN.sub(lambda match: f"⟦{ord(match[0]):04X}⟧", str(text))


def render(**content: Any) -> str:
    """Return the page.

    Args:
        **content: what `page.html` names.
    """
    style, script = ((_PLACE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'"
    )
    template = _environment().get_template("page.html")
    return template.render(style=Markup(style), script=Markup(script), policy=policy, **content)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PLACE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) or callable(value) else shown(value),
    )
    environment.filters |= {"estimate": _estimate, "change": _change, "drawing": Markup}
    return environment


def _estimate(found: Estimate) -> Markup:
    if found.value is None:
        return Markup("–")
    return _with_interval(*(None if value is None else f"{value:.1f}" for value in astuple(found)))


def _change(found: Estimate) -> Markup:
    if found.value is None:
        return Markup("–")
    values = (None if value is None else f"{value:+.1f}".replace("-", "−") for value in astuple(found))
    return _with_interval(*values)


def _with_interval(value: str, low: str | None, high: str | None) -> Markup:
    if low is None:
        return Markup("{}").format(value)
    return Markup('{} <span class="interval">{} to {}</span>').format(value, low, high)
