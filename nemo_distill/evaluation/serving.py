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
"""How much memory a process takes that does nothing but translate: with an export, CTranslate2 and a tokenizer.

It is measured in a process of its own (`serving_process`): NeMo and torch, which this one has in memory, are not what
a deployed model needs.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from nemo_distill.decoding import exported_program
from nemo_distill.decoding.exporting import export
from nemo_distill.errors import InputError, StageError
from nemo_distill.evaluation.inputs import ModelInput
from nemo_distill.evaluation.speed_results import MOST_SENTENCES
from nemo_distill.support import memory
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.temporary import TemporaryDirectory

_PROCESS = Path(__file__).with_name("serving_process.py")


class Serving:
    """Context that can start processes which translate with an export of one model; it is made when it is needed.

    Args:
        candidate: an archive, or an export; of other directories nothing is measured.
        quantization: of the export; `nemo`: nothing is measured.
        device: where to decode.
    """

    def __init__(self, candidate: ModelInput, quantization: str, device: str) -> None:
        self._candidate, self._quantization, self._device = candidate, quantization, device
        self._temporary: TemporaryDirectory | None = None
        self._directory: Path | None = None
        if candidate.foreign is not None and candidate.foreign.kind == "export":
            self._directory = candidate.path

    def __enter__(self) -> "Serving":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def peak_memory(self, sentences: Sequence[str], beam_size: int, batch_tokens: int) -> int | None:
        """Return the bytes of main memory that a process has at most while it translates; None: it is not measured.

        It has the cores and the `OMP_NUM_THREADS` of this thread.

        Args:
            sentences: raw text, of which up to `MOST_SENTENCES` are translated.
            beam_size: hypotheses while searching.
            batch_tokens: most source tokens in a batch.

        Raises:
            InputError: the archive has changed since it was read.
            StageError: the process failed.
        """
        if self._quantization == "nemo" or (self._candidate.foreign is not None and self._directory is None):
            return None
        languages = self._candidate.languages
        request = {
            "program": exported_program.__file__,
            "memory": memory.__file__,
            "directory": str(self._exported()),
            "texts": sentences[:MOST_SENTENCES],
            "languages": [languages.source, languages.target] if self._candidate.foreign else [None, None],
            "beam_size": beam_size,
            "batch_tokens": batch_tokens,
            "device": self._device,
        }
        command = [sys.executable, str(_PROCESS)]
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
        if done.returncode != 0:
            said = plain_text((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
            raise StageError(f"{self._candidate.label}: the process whose memory is measured failed: {said}")
        return json.loads(done.stdout)["memory_bytes"]

    def _exported(self) -> Path:
        candidate = self._candidate
        if self._directory is None:
            self._temporary = TemporaryDirectory()
            self._directory = self._temporary.path / "export"
            record = export(candidate.path, self._directory, self._quantization, languages=candidate.languages)
            if record["request"]["archive_sha256"] != candidate.sha256:
                raise InputError(f"'{candidate.path}' has changed while it was measured; run the same command again")
        return self._directory
