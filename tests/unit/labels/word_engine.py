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
"""An engine without a model, whose every hypothesis is known; run as a script, it labels a text and can be killed.

python word_engine.py INPUT OUTPUT_DIR SHARD_LINES SECONDS_PER_BATCH
"""

import sys
import time

from nemo_distill.decoding.engine import Hypothesis, SearchSettings
from nemo_distill.errors import reported_errors
from nemo_distill.labels.labelling import label
from nemo_distill.support.share import Share


class WordEngine:
    """Turns each word round; hypothesis n lacks the last n words. Takes 12 words at most."""

    def __init__(self, name="words", seconds_per_batch=0.0):
        self.name, self.seconds_per_batch = name, seconds_per_batch
        self.truncated, self.calls = [], []

    def translate(self, sentences, settings, batch_tokens=4096):
        self.calls.append((list(sentences), settings.seed))
        self.truncated = [place for place, sentence in enumerate(sentences) if len(sentence.split()) > 12]
        order = sorted(range(len(sentences)), key=lambda place: -len(sentences[place]))
        for start in range(0, len(order), 8):
            time.sleep(self.seconds_per_batch)
            yield [(place, self.hypotheses(sentences[place], settings)) for place in order[start : start + 8]]

    def hypotheses(self, sentence, settings):
        words = [word[::-1] for word in sentence.split()][:12]
        if not words:
            return [Hypothesis("", 0.0, 0)]
        if settings.search.startswith("top"):
            words.append(str(settings.seed))
        return [
            Hypothesis(" ".join(words[: len(words) - number]), -1.1 * len(words) - number, len(words) - number + 1)
            for number in range(min(settings.num_hypotheses, len(words)))
        ]


if __name__ == "__main__":
    input_path, output_dir, shard_lines, seconds = sys.argv[1:]
    with reported_errors("word_engine"):
        label(
            lambda: WordEngine(seconds_per_batch=float(seconds)),
            input_path,
            output_dir,
            SearchSettings(num_hypotheses=3),
            teacher={"teachers": ["words"]},
            shard_lines=int(shard_lines),
            share=Share.from_environment(wait_minutes=0.5),
            progress=False,
        )
