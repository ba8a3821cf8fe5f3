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
"""Models that read right to left (`r2l`): text in and out, and what they can teach."""

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.archives.restore import restore_model
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.exported_program import Model
from nemo_distill.decoding.exporting import export, open_export
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.errors import TeacherError
from nemo_distill.support import compat
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache

pytestmark = pytest.mark.skipif(
    compat.NEMO_2, reason="YouTokenToMe alone turns sentences round, and NeMo 2 dropped it"
)
BOTH = {f"{side}_tokenizer.r2l": True for side in ("encoder", "decoder")}


@pytest.fixture(scope="module")
def archive(tiny_model_config, tmp_path_factory) -> str:
    """A stock model that reads right to left on both sides."""
    torch.manual_seed(0)
    model = MTEncDecModel(tiny_model_config(16, 1, **BOTH)).eval()
    model.log_softmax.mlp.layer0.bias.data[model.decoder_tokenizer.pad_id] = -1e4  # which stock NeMo may generate
    path = tmp_path_factory.mktemp("r2l") / "r2l.nemo"
    model.save_to(str(path))
    return str(path)


def best(engine, sentences) -> list[str]:
    found = dict(pair for batch in engine.translate(sentences) for pair in batch)
    return [found[place][0].text for place in range(len(sentences))]


def test_text_in_and_out_is_that_of_stock_nemo(archive, tiny_sources, tmp_path):
    stock, model, sentences = MTEncDecModel.restore_from(archive).eval(), restore_model(archive), tiny_sources[:6]
    expected = [stock.translate([sentence])[0] for sentence in sentences]
    assert any(text != text[::-1] for text in expected)
    assert best(NeMoEngine(model), sentences) == expected
    assert best(CTranslate2Engine.from_model(model), sentences) == expected
    export(archive, tmp_path / "export")
    assert best(open_export(tmp_path / "export"), sentences) == expected
    program = Model(str(tmp_path / "export"))
    assert [program.translate(sentence) for sentence in sentences] == expected


def test_a_student_that_reads_the_other_way_is_told(archive, tiny_model_config, tiny_corpus, tmp_path, first_batch):
    """The same vocabulary, and no word of one at the place of a word of the other."""
    texts = [str(tiny_corpus / f"train.{language}") for language in ("de", "en")]
    write_cache([archive], [tuple(texts)], tmp_path / "cache", CacheSettings(top_k=8))
    live, cached = {"model_path": archive}, {"cache": str(tmp_path / "cache")}
    for given, side in (({}, "source"), ({"encoder_tokenizer.r2l": True}, "target")):
        for teacher, message in (
            (live, f"on the {side} side the student reads left to right against the teacher's right to left"),
            (cached, rf"made with another {side} tokenizer than the student has, or one that reads the other way"),
        ):
            config = tiny_model_config(16, 1, data=True, distillation={"teacher": teacher}, **given)
            with pytest.raises(TeacherError, match=message):
                DistilledMTEncDecModel(config)
    for teacher in (live, cached):
        config = tiny_model_config(16, 1, data=True, distillation={"teacher": teacher}, **BOTH)
        student = DistilledMTEncDecModel(config)
        assert student.distillation_terms(first_batch(student))["word_kd"].item() > 0
