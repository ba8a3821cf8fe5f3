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
"""Which engine opens which model, and why."""

import shutil

import pytest
import safetensors
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel

from nemo_distill.archives.restore import read_archive_config, restore_model
from nemo_distill.decoding import cuda_libraries, opening
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.decoding.opening import choose_engine, open_engine
from nemo_distill.errors import ConversionError, InputError


@pytest.fixture(scope="module")
def masked(tiny_model_config, tmp_path_factory) -> str:
    """An archive that does not convert."""
    path = tmp_path_factory.mktemp("masked") / "masked.nemo"
    MTEncDecModel(tiny_model_config(num_layers=1, **{"encoder.mask_future": True})).save_to(str(path))
    return str(path)


@pytest.fixture(scope="module")
def bottleneck(tiny_model_config, tmp_path_factory) -> str:
    """An archive of a model whose decoder reads something else than the encoder's states."""
    path = tmp_path_factory.mktemp("bottleneck") / "latent.nemo"
    sides = {f"{side}.mask_future": False for side in ("encoder", "decoder")} | {"encoder.arch": "seq2seq"}
    MTBottleneckModel(tiny_model_config(num_layers=1, shared_embeddings=False, **sides)).save_to(str(path))
    return str(path)


def text(engine, sentence: str) -> str:
    [[(_, [hypothesis])]] = list(engine.translate([sentence]))
    return hypothesis.text


def test_the_fast_engine_where_the_model_converts(tiny_teacher_path, tiny_sources):
    expected = text(open_engine(tiny_teacher_path, "nemo"), tiny_sources[0])
    for arguments, name in (
        ((), "ctranslate2 float32"),
        (("ctranslate2",), "ctranslate2 float32"),
        (("auto", "int8"), "ctranslate2 int8"),
        (("nemo",), "nemo"),
    ):
        engine = open_engine(tiny_teacher_path, *arguments)
        assert engine.name == name
        assert "int8" in name or text(engine, tiny_sources[0]) == expected


def test_nemo_where_it_does_not(masked, tiny_sources):
    engine = open_engine(masked)
    assert engine.name == "nemo"
    assert text(engine, tiny_sources[0])


def test_nemo_where_only_the_model_shows_that_it_does_not(tiny_teacher_path, monkeypatch):
    def restore_with_a_deep_head(path, **arguments):
        model = restore_model(path, **arguments)
        model.log_softmax.mlp.layers = 3
        return model

    monkeypatch.setattr(opening, "restore_model", restore_with_a_deep_head)
    assert open_engine(tiny_teacher_path).name == "nemo"
    for arguments in (("ctranslate2",), ("auto", "int8")):
        with pytest.raises(ConversionError, match="head: 2 layers"):
            open_engine(tiny_teacher_path, *arguments)


def test_several_models_are_an_ensemble(tiny_teacher_path):
    assert open_engine([tiny_teacher_path, tiny_teacher_path]).name == "nemo, 2 models"
    for arguments in (("ctranslate2",), ("auto", "int8")):
        with pytest.raises(InputError, match="CTranslate2 decodes with one model, not with 2"):
            open_engine([tiny_teacher_path, tiny_teacher_path], *arguments)


def test_reasons(tiny_model_config):
    config = tiny_model_config()
    assert choose_engine(config) == ("ctranslate2 float32", "it converts")
    assert choose_engine(config, "nemo") == ("nemo", "as asked")
    assert choose_engine(config, "ctranslate2", device="cuda") == (
        "ctranslate2 float32",
        "as asked",
    )  # opening it looks
    name, reason = choose_engine(tiny_model_config(**{"encoder.mask_future": True}))
    assert name == "nemo"
    assert "encoder.mask_future: true" in reason


def test_a_gpu_that_the_fast_engine_does_not_find(tiny_model_config, monkeypatch):
    monkeypatch.setattr(cuda_libraries.ctranslate2, "get_cuda_device_count", lambda: 0)
    assert choose_engine(tiny_model_config(), device="cuda:0") == ("nemo", "CTranslate2 finds no device cuda:0")


def test_a_gpu_with_another_cuda(tiny_model_config, tiny_teacher_path, tmp_path, monkeypatch):
    """torch brings CUDA 13 where CTranslate2 asks for 12; NVIDIA's package for pip has it in a folder of its own."""
    monkeypatch.setattr(cuda_libraries.ctranslate2, "get_cuda_device_count", lambda: 1)
    monkeypatch.setattr(cuda_libraries, "CUBLAS", "libcublas_of_no_release.so")
    name, reason = choose_engine(tiny_model_config(), device="cuda")
    assert name == "nemo"
    assert "finds no libcublas_of_no_release.so, of CUDA 12, on cuda; `pip install nvidia-cublas-cu12`" in reason
    with pytest.raises(InputError, match=r"finds no libcublas_of_no_release\.so, .* can use the engine 'nemo'"):
        open_engine(tiny_teacher_path, "ctranslate2", device="cuda")
    folder = tmp_path / "nvidia/cublas/lib"
    folder.mkdir(parents=True)
    shutil.copy(
        safetensors._safetensors_rust.__file__, folder / "libcublas_of_no_release.so"
    )  # any library that opens
    monkeypatch.syspath_prepend(tmp_path)
    assert choose_engine(tiny_model_config(), device="cuda") == ("ctranslate2 float32", "it converts")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("warp",), "engine is 'warp'; give one of auto, ctranslate2, nemo"),
        (("auto", "int3"), "quantization is 'int3'; give one of float32"),
        (("nemo", "int8"), "the engine 'nemo' has none; leave one of them out"),
        (("ctranslate2",), "does not convert to CTranslate2: encoder.mask_future: true"),
        (("auto", "int8"), "quantization is 'int8', but the model does not convert"),
    ],
)
def test_bad_requests(masked, arguments, message):
    with pytest.raises(InputError, match=message):
        open_engine(masked, *arguments)


def test_bottleneck_models_are_refused_before_work(bottleneck, monkeypatch):
    """By CTranslate2; NeMo's modules decode them."""
    message = "does not convert to CTranslate2: target: a bottleneck model, whose decoder reads a latent"
    with pytest.raises(ConversionError, match=message):
        CTranslate2Engine.from_model(restore_model(bottleneck))
    assert choose_engine(read_archive_config(bottleneck))[0] == "nemo"
    monkeypatch.setattr(opening, "restore_model", None)
    for arguments in (("ctranslate2",), ("auto", "int8")):
        with pytest.raises(ConversionError, match="target: a bottleneck model"):
            open_engine(bottleneck, *arguments)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308, -11, True, "1"])
def test_length_penalties_that_no_score_survives(value):
    with pytest.raises(InputError, match="length_penalty: got .*; give a number from -10 to 10"):
        SearchSettings(length_penalty=value)
    with pytest.raises(InputError, match="max_length_delta: got .* at most 1048576"):
        SearchSettings(max_length_delta=10**30)
