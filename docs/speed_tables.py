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
"""Write the tables of speeds in `docs/speed.md` anew, from the raw results that they name.

    python docs/speed_tables.py

A table stands behind a line `<!-- speed: results/FILE -->`; FILE is the `speed.json` of a `nemo-distill speed`. What
no row has measured, and a beam size or cores that are the same in all of them, are left out.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGE = DOCS / "speed.md"
MARK = re.compile(r"(<!-- speed: (results/[\w.]+) -->\n\n)((?:\|.*\n)+)")
_ENGINES = {"nemo": "NeMo engine", "ctranslate2": "CTranslate2"}
Row = dict[str, Any]
TOLD: dict[str, Callable[[Row], Any]] = {
    "model": lambda row: row["model"] if row["model"] == "teacher" else f"`{row['model']}`",
    "engine": lambda row: re.sub(r"^\w+", lambda name: _ENGINES[name[0]], row["engine"]),
    "beam": lambda row: row["beam_size"],
    "cores": lambda row: row.get("cores"),
}
"""What a row is of, by the heading of its column."""
MEASURED: dict[str, Callable[[Row], Any]] = {
    "BLEU": lambda row: f"{row['bleu']:.1f}",
    "sentences/s": lambda row: f"{row['sentences_per_second']:,.0f}",
    "words/s": lambda row: _shown(row, "words_per_second", 1, ",.0f"),
    "latency, p50": lambda row: _milliseconds(row, "latency_ms"),
    "p95": lambda row: _milliseconds(row, "latency_p95_ms"),
    "memory": lambda row: _shown(row, "memory_bytes", 1e6, ",.0f", " MB"),
    "size on disk": lambda row: f"{row['disk_bytes'] / 1e6:.1f} MB",
}


def _shown(row: Row, key: str, unit: float, form: str, suffix: str = "") -> str | None:
    return None if row.get(key) is None else f"{row[key] / unit:{form}}{suffix}"


def _milliseconds(row: Row, key: str) -> str | None:
    value = row.get(key)
    return None if value is None else f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} ms"


def table(path: Path) -> str:
    """Return the table of a measurement."""
    rows = json.loads(path.read_text("utf-8"))["rows"]
    told = {name: [of(row) for row in rows] for name, of in TOLD.items()}
    told = {name: cells for name, cells in told.items() if name in ("model", "engine") or len(set(cells)) > 1}
    measured = {name: [of(row) for row in rows] for name, of in MEASURED.items()}
    measured = {name: cells for name, cells in measured.items() if set(cells) != {None}}
    lines = [" | ".join([*told, *measured]), "|".join(["---"] * len(told) + ["---:"] * len(measured))]
    for cells in zip(*told.values(), *measured.values(), strict=True):
        lines.append(" | ".join("–" if cell is None else str(cell) for cell in cells))
    return "".join(f"|{line}|\n" if line.startswith("---") else f"| {line} |\n" for line in lines)


def filled(page: str) -> str:
    """Return a page with the tables that its marks ask for."""
    return MARK.sub(lambda found: found[1] + table(DOCS / found[2]), page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
