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
"""A wheel in the shape of the real one, filled with made-up words; an engine without a model."""

import json
import random
import zipfile
from pathlib import Path

import pytest

from nemo_distill.data.corpora import wheel as wheels
from nemo_distill.support import files

SYLLABLES = ["ba", "ke", "lo", "mi", "nu", "ra", "se", "ti", "vo", "zu"]
ENDINGS = {"en": "", "de": "en", "fr": "eux", "nl": "je"}
COMPONENTS = 60
STRINGS = 8


def made_up_strings() -> dict[str, dict[str, dict]]:
    """Return component to language to nested strings; `nl` has every third component only."""
    maker = random.Random(5)
    result = {}
    for number in range(COMPONENTS):
        sentences = [
            ["".join(maker.choices(SYLLABLES, k=3)) for _ in range(maker.randint(3, 9))] for _ in range(STRINGS)
        ]
        result[f"component_{number}"] = {
            language: {
                "title": f"Brand{number}",
                "config": {
                    "step": {
                        f"key_{place}": " ".join(word + ending for word in words).capitalize() + "."
                        for place, words in enumerate(sentences)
                    }
                },
            }
            for language, ending in ENDINGS.items()
            if language != "nl" or number % 3 == 0
        }
    return result


@pytest.fixture
def strings() -> dict[str, dict[str, dict]]:
    return made_up_strings()


@pytest.fixture
def make_wheel(tmp_path):
    """Return a function that writes strings as a wheel that pip accepts and returns its path."""

    def make(strings: dict[str, dict[str, dict]], directory: Path = tmp_path / "cache") -> Path:
        directory.mkdir(exist_ok=True)
        path = directory / wheels.WHEEL_NAME
        info = f"homeassistant-{wheels.VERSION}.dist-info"
        with zipfile.ZipFile(path, "w") as archive:
            for component, languages in strings.items():
                for language, tree in languages.items():
                    name = f"homeassistant/components/{component}/translations/{language}.json"
                    archive.writestr(name, json.dumps(tree))
            archive.writestr("homeassistant/components/number/strings.json", '{"title": "not a translation"}')
            archive.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: homeassistant\nVersion: {wheels.VERSION}\n"
            )
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return path

    return make


@pytest.fixture
def wheel(make_wheel, strings, monkeypatch) -> Path:
    """A wheel of made-up strings in the cache, with its hash in the place of the pinned one."""
    path = make_wheel(strings)
    monkeypatch.setattr(wheels, "WHEEL_SHA256", files.sha256(path))
    return path
