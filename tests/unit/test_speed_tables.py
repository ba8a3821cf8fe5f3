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
"""The tables of speeds in docs/speed.md are what their raw results say, of earlier versions and of this one."""

import json
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(DOCS / "speed_tables.py"))


def test_the_tables_of_the_documentation(script):
    page = (DOCS / "speed.md").read_text("utf-8")
    assert len(script["MARK"].findall(page)) >= 2
    assert script["filled"](page) == page


def test_what_was_measured_is_shown(script, tmp_path):
    row = {"model": "student", "engine": "ctranslate2 int8", "parameters": 9, "disk_bytes": 700_000, "beam_size": 4}
    row |= {"bleu": 19.94, "seconds": 1.0, "sentences_per_second": 2725.3, "latency_ms": 0.85, "latency_sentences": 9}
    more = {"words_per_second": 4321.4, "latency_p95_ms": 1.75, "memory_bytes": 88e6, "cores": "one", "threads": 1}
    path = tmp_path / "speed.json"
    path.write_text(json.dumps({"rows": [row | more, row | more | {"beam_size": 1, "memory_bytes": None}]}))
    assert script["table"](path).splitlines() == [
        "| model | engine | beam | BLEU | sentences/s | words/s | latency, p50 | p95 | memory | size on disk |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
        "| `student` | CTranslate2 int8 | 4 | 19.9 | 2,725 | 4,321 | 0.85 ms | 1.75 ms | 88 MB | 0.7 MB |",
        "| `student` | CTranslate2 int8 | 1 | 19.9 | 2,725 | 4,321 | 0.85 ms | 1.75 ms | – | 0.7 MB |",
    ]
