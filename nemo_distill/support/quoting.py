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
"""Text from elsewhere (archives, records, file names) inside of Markdown, plots and messages: shown, never obeyed.

For the shell there is `shlex.quote`; no program is ever written with a value in it: programs read values as data.
"""

import os
import re
from pathlib import Path
from unicodedata import category

# What begins markup inside of a paragraph or a table cell; the rest of Markdown begins a line.
_MARKUP = re.compile(r"([\\`*\[\]>|~$&]|<(?! ))")
_EDGE_UNDERSCORE = re.compile(r"(?<![^\W_])_+|_+(?![^\W_])")  # inside of a word it is no markup
_LINE_START = re.compile(r"^(\s*)([#+=-]|\d+[.)])")
# Control and format characters, halves of surrogates, separators of lines and paragraphs.
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# No name or path has these: the same, but for format characters that do not turn the direction of others.
_HARMFUL = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What renderers make a link of without markup: addresses, mentions, mail addresses.
_ADDRESS = re.compile(r"(?i)(:)(?=//)|(?<=www)(\.)")
_AT = re.compile(r"(?<![^\W_])@(?=\w)|@(?=[\w-]+\.\w)")

# What str.splitlines() and other programs take for the end of a line.
LINE_BREAKS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def size_text(count: float) -> str:
    """Return a number of bytes in the unit that fits it.

    Example:
        >>> size_text(12), size_text(34_560_000)
        ('12 bytes', '34.6 MB')
    """
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= 0.99995 * size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float | None) -> str:
    """Return a time as a person says it.

    Example:
        >>> duration(7384), duration(84.2), duration(None)
        ('2 h 03 min', '1 min 24 s', '')
    """
    if seconds is None:
        return ""
    seconds = int(max(seconds, 0))
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"
    return f"{seconds // 60} min {seconds % 60:02} s" if seconds >= 60 else f"{seconds} s"


def one_line(text: str) -> str:
    """Return a text with every line break that Unicode knows as a space, so that no reader can lose the alignment.

    Example:
        >>> one_line("ein\\u2028Satz")
        'ein Satz'
    """
    return LINE_BREAKS.sub(" ", text)


def plain_text(text: object, limit: int = 200) -> str:
    """Return a text on one line, without characters that cannot be seen or that turn the direction of others.

    Example:
        >>> plain_text("a\\nb\\u202ec")
        'a b c'
    """
    shown = "".join(" " if category(each) in _UNSEEN else each for each in str(text)[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


def is_legible(text: str) -> bool:
    """Return whether a text is one line of UTF-8 without control characters or what turns the direction of others.

    Spaces of any width and joiners of letters are in names that people write.

    Example:
        >>> is_legible("a\\u3000b"), is_legible("a\\nb")
        (True, False)
    """
    return _HARMFUL.search(text) is None


def shown_names(*paths: str | os.PathLike) -> str:
    """Return the names of files as manifests have them: those on the disk may have bytes that are not UTF-8.

    Example:
        >>> shown_names("data/train.de", "data/more.de")
        'train.de, more.de'
    """
    return plain_text(", ".join(Path(path).name for path in paths), 300)


def error_line(error: Exception, limit: int = 300) -> str:
    """Return what an error says, on one line: of a library, and perhaps of what came from elsewhere.

    Example:
        >>> error_line(ValueError("no\\n  such key"))
        'no such key'
    """
    return plain_text(" ".join(str(error).split()), limit)


def markdown(text: object, limit: int = 200, inside: bool = False) -> str:
    """Return a text as Markdown shows it, in a paragraph, heading or table cell.

    Nothing of it becomes a link; for that, the `@` of a mention or mail address becomes a wide one.

    Args:
        text: to show.
        limit: most characters.
        inside: other text is in front of it on its line, as in a cell: what begins a list or a heading is none there.

    Example:
        >>> markdown("a|b <img> x_y _z_")
        'a\\\\|b \\\\<img\\\\> x_y \\\\_z\\\\_'
    """
    shown = _AT.sub("＠", plain_text(text, limit))  # a backslash is gone when these links are made
    shown = _MARKUP.sub(r"\\\1", shown)
    shown = _EDGE_UNDERSCORE.sub(lambda match: match[0].replace("_", "\\_"), shown)
    if not inside:
        shown = _LINE_START.sub(lambda match: f"{match[1]}{match[2][:-1]}\\{match[2][-1]}", shown)
    return _ADDRESS.sub(r"\\\1\2", shown)


def code(text: object, cell: bool = True) -> str:
    """Return a text as a code span of Markdown, with as many backticks as it takes.

    Args:
        text: to show.
        cell: it may stand in a table, where `|` is shown as another sign.

    Example:
        >>> code("a`b")
        '`` a`b ``'
    """
    shown = plain_text(text)
    if cell:
        shown = shown.replace("|", "¦")  # which would end a table cell even here
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    space = " " if longest or not shown.strip() else ""
    return f"{'`' * (longest + 1)}{space}{shown}{space}{'`' * (longest + 1)}"


def plot_text(text: object) -> str:
    """Return a text as matplotlib draws it: a pair of dollar signs would begin a formula.

    Example:
        >>> plot_text("$x$")
        '\\\\$x\\\\$'
    """
    return plain_text(text).replace("$", r"\$")
