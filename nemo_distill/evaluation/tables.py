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
"""How tables show numbers, and Markdown tables themselves."""

from collections.abc import Sequence

from nemo_distill.support.quoting import markdown


def weights(parameters: int) -> str:
    """Return a number of weights as tables show it.

    Example:
        >>> weights(6_500_000)
        '6.5 M'
    """
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{parameters / 1e3:.1f} K"


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, the first column to the left and the others to the right.

    The cells are plain text: no markup in them is obeyed.

    Example:
        >>> print(markdown_table(["Model", "BLEU"], [["a|b", "34.6"]]))
        | Model | BLEU |
        | :--- | ---: |
        | a\\|b | 34.6 |
    """
    rule = [":---", *("---:" for _ in header[1:])]
    head, *rows = ([markdown(cell, inside=True) for cell in cells] for cells in (header, *lines))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def heading(text: str) -> str:
    """Return plain text as a Markdown heading of the second level."""
    return f"## {markdown(text, inside=True)}"
