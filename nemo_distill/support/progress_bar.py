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
"""How far a long piece of work is, and how long it will take: said in one way everywhere, by tqdm.

On a terminal it is a bar. In a log it is a whole line now and then, without what a terminal obeys; work that is done
before the first one is due says nothing.
"""

import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from tqdm import tqdm

from nemo_distill.support.quoting import duration, size_text

VARIABLE = "NEMO_DISTILL_PROGRESS"
"""Seconds between two lines in a log. A job asks its stages for more of them than a log gets by itself."""
_PAUSE = 30.0
LINE = re.compile(r"(?P<what>[^:\[\]]{1,200}): (?P<done>\d+) of (?P<total>\d+) (?P<rest>\D.*)")
"""A line that says how far something is that counts lines, steps or tokens."""


def progress_bar(
    what: str,
    total: int | None = None,
    unit: str = "lines",
    shown: bool = True,
    initial: int = 0,
    iterable: Iterable | None = None,
    leave: bool = True,
) -> tqdm:
    """Return a bar, on a terminal, or what writes lines to a log; both on standard error, with the time left.

    That is what the rest takes if it goes on as the whole has gone so far, pauses such as validations counted in.

    Args:
        what: is done.
        total: of it; None: it is not known, and so is the time left.
        unit: of what is counted, several of them; `B` for bytes.
        shown: False: nothing is.
        initial: done before.
        iterable: yielded by the bar, each item of which is one.
        leave: keep the bar on the terminal when it is full.

    Example:
        >>> with progress_bar("selecting", total=10, shown=False) as bar:
        ...     bar.update(10)
    """
    options: dict[str, Any] = {"desc": what, "total": total, "initial": initial, "smoothing": 0}
    options |= {"unit": unit, "unit_scale": True} if unit == "B" else {"unit": f" {unit}"}
    options["disable"] = not shown or sys.stderr is None  # it was closed
    if options["disable"] or sys.stderr.isatty():
        return tqdm(iterable, leave=leave, **options)
    pause = _pause()
    delay = pause if pause >= 1 else 0  # who asks for many times it, and wants to know when it begins
    return _LogLines(iterable, leave=False, delay=delay, mininterval=pause, miniters=1, **options)


class _LogLines(tqdm):
    """Progress in a log."""

    _said: tuple[Any, ...] = ()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line; tqdm asks for an empty one where a bar is to be wiped away."""
        if msg is None:
            self._said = self.n, self.postfix
            self.fp.write(f"{line_of(self.format_dict)}\n")
            self.fp.flush()

    def close(self) -> None:
        """Write a last line, if there was a first one."""
        if not self.disable and self._said not in ((), (self.n, self.postfix)):
            self.display()
        super().close()


def line_of(state: Mapping[str, Any]) -> str:
    """Return a state of tqdm's (`format_dict`) as one line.

    Example:
        >>> state = {"prefix": "training", "n": 30, "initial": 0, "total": 90, "elapsed": 60.0, "unit": " steps"}
        >>> line_of(state)
        'training: 30 of 90 steps (33 %), 2 min 00 s left, 2.0 s each'
    """
    done, total, elapsed, unit = state["n"], state["total"], state["elapsed"], state["unit"]
    rate = (done - state["initial"]) / elapsed if elapsed > 0 else 0.0
    text, word = (size_text, "") if unit == "B" else (str, unit)
    if not total:
        parts = [f"{state['prefix']}: {text(done)}{word}"]
    else:
        parts = [f"{state['prefix']}: {text(done)} of {text(total)}{word} ({math.floor(100 * done / total)} %)"]
        if done >= total:
            parts.append(f"in {duration(elapsed)}")
        elif rate > 0:
            parts.append(f"{duration((total - done) / rate)} left")
    if unit == "B":
        parts.append(f"{size_text(rate)}/s")
    elif rate > 0:
        parts.append(f"{rate:.1f}{unit}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
    return ", ".join([*parts, state.get("postfix") or ""]).removesuffix(", ")


def _pause() -> float:
    try:
        seconds = float(os.environ.get(VARIABLE, ""))
    except ValueError:
        return _PAUSE
    return seconds if 0 < seconds < math.inf else _PAUSE
