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
"""Made-up text and models of the shipped sizes; or a real model and real text.

    BENCH_MODEL=teacher.nemo BENCH_SOURCE=test.de BENCH_TARGET=test.en make bench

takes these for the benchmarks of decoding; BENCH_SENTENCES=200 takes the first 200 sentences. Otherwise the sizes,
and the batches and precision of a training step, are those of

    BENCHMARK_TEACHER=teacher_24x6 BENCHMARK_STUDENT=wide_3x3 BENCHMARK_TOKENS=8192 BENCHMARK_PRECISION=bf16 make bench
"""

import itertools
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
VOCABULARY = 4000
PAIRS = int(os.environ.get("BENCHMARK_PAIRS", 6000))
SIZES = {
    "teacher": os.environ.get("BENCHMARK_TEACHER", "small_3x3"),
    "student": os.environ.get("BENCHMARK_STUDENT", "tiny_1x1"),
}


@pytest.fixture(scope="session")
def corpus(train_tokenizer: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of made-up words, enough of them for a BPE of 4,000 pieces, and that BPE."""
    directory = tmp_path_factory.mktemp("corpus")
    generator = random.Random(0)
    syllables = ["".join(parts) for parts in itertools.product("bdfgklmnprst", "aeiou", ["", "n", "r", "s"])]
    words = ["".join(generator.choices(syllables, k=generator.randint(1, 3))) for _ in range(6000)]
    for split, count in (("train", PAIRS), ("valid", 50)):
        for language in ("de", "en"):
            lines = [" ".join(generator.choices(words, k=generator.randint(5, 20))) for _ in range(count)]
            (directory / f"{split}.{language}").write_text("\n".join(lines) + "\n")
    shutil.copy(train_tokenizer([directory / "train.de"], VOCABULARY), directory / "bpe.model")
    return directory


@pytest.fixture(scope="session")
def model_config(corpus: Path) -> Callable:
    """A function from `teacher`, `student` or a name in configs/model to a `model` section over the made-up text."""
    from hydra import compose, initialize_config_dir

    from nemo_distill.support import compat

    def build(model: str):
        overrides = [
            f"model={SIZES.get(model, model)}",
            f"data.dir={corpus}",
            f"data.tokenizer={corpus / 'bpe.model'}",
        ]
        overrides.append(f"data.tokenizer_library={compat.DEFAULT_TOKENIZER_LIBRARY}")
        if "BENCHMARK_TOKENS" in os.environ:
            overrides.append(f"data.tokens_in_batch={os.environ['BENCHMARK_TOKENS']}")
        with initialize_config_dir(str(CONFIGS), version_base=None):
            return compose("train_nmt", overrides=[*overrides, "output_dir=unused"]).model

    return build


@pytest.fixture
def precision() -> Callable:
    """A function from a device to the context of a training step there: BENCHMARK_PRECISION, `bf16` or `fp32`."""
    import torch

    dtypes = {"bf16": torch.bfloat16, "fp32": None}
    dtype = dtypes[os.environ.get("BENCHMARK_PRECISION", "fp32")]
    return lambda device: torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@pytest.fixture(scope="module")
def translation_model(model_config: Callable):
    """The model of BENCH_MODEL; else the teacher with random weights that never ends a sentence by itself.

    Such a one says as many tokens as `max_generation_delta` allows: with 0, each hypothesis is as long as its source,
    which is what a trained model comes to, and no engine profits from chance.
    """
    import torch
    from nemo.collections.nlp.models import MTEncDecModel
    from omegaconf import open_dict

    from nemo_distill.archives.restore import restore_model

    if "BENCH_MODEL" in os.environ:
        return restore_model(os.environ["BENCH_MODEL"])
    config = model_config("teacher")
    with open_dict(config):
        config.max_generation_delta = 0
        del config["train_ds"], config["validation_ds"]
    torch.manual_seed(0)
    model = MTEncDecModel(config).eval().requires_grad_(False)
    model.log_softmax.mlp.layer0.bias[model.decoder_tokenizer.eos_id] = -30.0
    return model


@pytest.fixture(scope="session")
def sentences(corpus: Path) -> list[str]:
    """Those of BENCH_SOURCE, else 500 made-up ones; BENCH_SENTENCES of them."""
    path = os.environ.get("BENCH_SOURCE", corpus / "train.de")
    return Path(path).read_text("utf-8").splitlines()[: int(os.environ.get("BENCH_SENTENCES", 500))]


@pytest.fixture(scope="session")
def references(corpus: Path, sentences: list[str]) -> list[str]:
    """The translations of BENCH_TARGET, else other made-up sentences."""
    path = os.environ.get("BENCH_TARGET", corpus / "train.en")
    return Path(path).read_text("utf-8").splitlines()[: len(sentences)]
