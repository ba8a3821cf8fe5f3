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
"""Teachers and students whose encoder is of Hugging Face: stock models of NeMo, built here of configurations."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.modules.common.transformer import GreedySequenceGenerator
from transformers import BertConfig

from nemo_distill import DistilledMTEncDecModel, cli
from nemo_distill.archives.config import read_config
from nemo_distill.archives.reader import read_parts
from nemo_distill.archives.restore import restore_model
from nemo_distill.archives.weights import check_sizes
from nemo_distill.capture import CaptureSpec, ForwardCapture
from nemo_distill.data.encoders import longest_source
from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.decoding.opening import open_engine
from nemo_distill.errors import ArchiveError, CaptureError, ConversionError, InputError

BERT = {
    "library": "huggingface",
    "_target_": "transformers.BertConfig",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "attn_implementation": "eager",  # which has attention maps
}
ROBERTA = {**BERT, "_target_": "transformers.models.roberta.configuration_roberta.RobertaConfig", "pad_token_id": 1}
DISTILBERT = {
    "library": "huggingface",
    "_target_": "transformers.DistilBertConfig",
    **{"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64},
}
LAYERS = "encoder._encoder.encoder.layer[0]"


def build(tiny_model_config, kind=MTEncDecModel, encoder=None, **overrides):
    config = tiny_model_config(
        hidden_size=16, num_layers=1, shared_embeddings=False, max_generation_delta=3, **overrides
    )
    if encoder:
        config.encoder = encoder
    torch.manual_seed(0)
    model = kind(config).eval()
    model.log_softmax.mlp.layer0.bias.data[model.decoder_tokenizer.pad_id] = -1e4  # which stock NeMo may generate
    return model


def nemo_greedy(model) -> GreedySequenceGenerator:
    """Return NeMo's own greedy search in the place of its beam search, whose longest hypothesis has a token more."""
    search = model.beam_search
    return GreedySequenceGenerator(
        search.embedding,
        search.decoder,
        search.log_softmax,
        *(search.pad, search.bos, search.eos, search.max_seq_length, search.max_delta_len + 1),
    )


@pytest.fixture(scope="module")
def archives(tiny_model_config, tmp_path_factory) -> dict[str, Path]:
    """Archives that stock NeMo wrote, by the name of the encoder."""
    found, directory = {}, tmp_path_factory.mktemp("hugging_face")
    for name, encoder in (("bert", BERT), ("roberta", ROBERTA), ("distilbert", DISTILBERT)):
        found[name] = directory / f"{name}.nemo"
        build(tiny_model_config, encoder=dict(encoder)).save_to(str(found[name]))
    return found


@pytest.mark.parametrize(("name", "longest"), [("bert", 64), ("roberta", 62), ("distilbert", 64)])
def test_opened_without_trust_and_decoded_as_by_stock_nemo(archives, tiny_sources, name, longest):
    stock, model = MTEncDecModel.restore_from(str(archives[name])).eval(), restore_model(archives[name])
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in stock.state_dict().items())
    assert longest_source(model) == longest
    engine, sentences = NeMoEngine(model), sorted(tiny_sources, key=len)[:4]
    greedy = SearchSettings(search="greedy", max_length_delta=3)  # NeMo's beams rank by the lengths of others
    stock.beam_search = nemo_greedy(stock)
    found = dict(next(iter(engine.translate(sentences, greedy))))
    for place, sentence in enumerate(sentences[:2]):  # batches of one, where NeMo's own search is right
        assert found[place][0].text == stock.translate([sentence])[0]
        alone = next(iter(engine.translate([sentence], greedy)))[0][1][0]
        assert alone.text == found[place][0].text
        assert alone.score == pytest.approx(found[place][0].score, rel=1e-5)
    list(engine.translate([" ".join(tiny_sources)]))  # whose positions the encoder has not
    assert engine.truncated == [0]
    with pytest.raises((IndexError, RuntimeError)):
        ids = torch.full((1, longest + 1), 5)
        model.encoder(input_ids=ids, encoder_mask=torch.ones_like(ids))


def test_what_cannot_be_converted_says_so(archives, tmp_path, capsys):
    message = "encoder.library: huggingface; only NeMo's own Transformers convert"
    with pytest.raises(ConversionError, match=message):
        open_engine(archives["bert"], "ctranslate2")
    assert cli.main(["export", "--model", str(archives["bert"]), "--output-dir", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_evaluated_measured_labelled_and_cached(archives, tiny_corpus, tiny_model_config, tmp_path, first_batch):
    teacher, texts = str(archives["bert"]), {}
    for language in ("de", "en"):
        lines = (tiny_corpus / f"train.{language}").read_text("utf-8").splitlines(True)
        texts[language] = tmp_path / f"t.{language}"
        texts[language].write_text("".join(lines[:6]), "utf-8")
    test = f"t:{texts['de']}:{texts['en']}"
    assert cli.main(["evaluate", "--model", teacher, "--test", test, "--output-dir", str(tmp_path / "scores")]) == 0
    speed = ["--test", test, "--output-dir", str(tmp_path / "speed"), "--engines", "nemo", "float32"]
    assert cli.main(["speed", "--model", teacher, *speed]) == 0
    assert "encoder.library: huggingface" in (tmp_path / "speed/speed.md").read_text("utf-8")
    labels = ["--input", str(texts["de"]), "--output-dir", str(tmp_path / "labels")]
    labels += [f"--max-{name}=off" for name in ("length-ratio", "repeats", "repeated")]
    labels += ["--keep-cut", "--keep-unknown"]
    assert cli.main(["pseudo-label", "--teacher", teacher, *labels]) == 0
    assert '"nemo"' in (tmp_path / "labels/manifest.json").read_text("utf-8")
    whole = [str(tiny_corpus / f"train.{language}") for language in ("de", "en")]
    cache = ["--source", whole[0], "--target", whole[1], "--output-dir", str(tmp_path / "cache"), "--top-k", "120"]
    cache += ["--source-lang", "ignore", "--target-lang", "ignore"]  # as the student reads it here
    assert cli.main(["cache", "--teacher", teacher, *cache]) == 0
    values, batch = [], None
    for section in ({"cache": str(tmp_path / "cache")}, {"model_path": teacher}):
        student = build(tiny_model_config, DistilledMTEncDecModel, data=True, distillation={"teacher": section})
        batch = batch or first_batch(student)
        values.append(student.distillation_terms(batch)["word_kd"].item())
    assert values[0] == pytest.approx(values[1], rel=1e-2)  # logits up to 10 are cached to 2**-11 of them


def test_live_terms_are_those_of_hugging_face_itself(archives, tiny_model_config, first_batch):
    """Hidden states and attention as transformers gives them out, against what is captured of inner modules."""
    paths = {"teacher_encoder_layers": LAYERS, "teacher_encoder_attention": "attention.self.dropout"}
    objective = {
        "hidden": {"weight": 1.0, "encoder": [[0, 0]], "decoder": None},
        "attention": {"weight": 1.0, "encoder": [[0, 1]], "decoder": None, "cross": None},
    }
    section = {"teacher": {"model_path": str(archives["bert"])}, "objective": objective, "capture": paths}
    student = build(tiny_model_config, DistilledMTEncDecModel, data=True, distillation=section)
    batch = first_batch(student)
    terms = student.distillation_terms(batch)
    source, source_mask, target, target_mask, labels = batch
    teacher, mask = student._teacher.model, source_mask.bool()
    inside = {"state": CaptureSpec("encoder._encoder.layers.0")}
    inside["maps"] = CaptureSpec("encoder._encoder.layers.0.first_sub_layer.attn_dropout", "input")
    with torch.no_grad(), ForwardCapture(student, inside) as mine:
        log_p = student(source, source_mask, target, target_mask)
    theirs = teacher.encoder._encoder(
        input_ids=source, attention_mask=source_mask, output_hidden_states=True, output_attentions=True
    )
    cosine = 1 - F.cosine_similarity(mine["state"], theirs.hidden_states[1], dim=-1)[mask].mean()
    assert terms["hidden"].item() == pytest.approx(cosine.item(), rel=1e-5)
    q, p = theirs.attentions[1].mean(1)[mask], mine["maps"].mean(1)[mask]
    logarithms = q.clamp_min(1e-12).log() - p.clamp_min(1e-12).log()
    assert terms["attention"].item() == pytest.approx((q * logarithms).sum(-1).mean().item(), rel=1e-4)
    log_q, real = teacher(source, source_mask, target, target_mask), labels != student.decoder_tokenizer.pad_id
    kd = (log_q.exp() * (log_q - log_p)).sum(-1)[real].mean()
    assert terms["word_kd"].item() == pytest.approx(kd.item(), rel=1e-5)
    student.distillation.capture.teacher_encoder_layers = LAYERS.removesuffix("[0]")
    student.setup_distillation(student.distillation)
    with pytest.raises(CaptureError, match=r"is a tuple, no tensor; .* or add \[0\] to the path of its list"):
        student.distillation_terms(batch)


def test_a_student_is_saved_as_the_stock_model_and_starts_from_its_teacher(
    archives, tiny_model_config, tmp_path, capsys
):
    both = {f"{owner}_encoder_layers": LAYERS for owner in ("student", "teacher")}
    section = {"teacher": {"model_path": str(archives["bert"])}, "init": {"from_teacher": "every_nth"}}
    student = build(tiny_model_config, DistilledMTEncDecModel, dict(BERT), distillation=section | {"capture": both})
    teacher = student._teacher.model.state_dict()
    weights = student.state_dict()
    assert all(torch.equal(weights[name], teacher[name]) for name in weights)
    student.save_to(str(tmp_path / "student.nemo"))
    stock = MTEncDecModel.restore_from(str(tmp_path / "student.nemo"))
    assert isinstance(stock.encoder._encoder.config, BertConfig)
    section["init"]["encoder"] = None  # another kind of encoder: from the decoder alone
    student = build(tiny_model_config, DistilledMTEncDecModel, distillation=section)
    assert torch.equal(student.decoder.embedding.layer_norm.weight, teacher["decoder._embedding.layer_norm.weight"])
    assert torch.equal(student.log_softmax.mlp.layer0.weight, teacher["log_softmax.mlp.layer0.weight"])
    del section["init"]["encoder"]
    with pytest.raises(CaptureError, match="no module 'encoder._encoder.layers' .* encoder._encoder.encoder.layer,"):
        build(tiny_model_config, DistilledMTEncDecModel, distillation=section)
    (tmp_path / "student.yaml").write_text("decoder: {num_layers: 1}\n")
    arguments = ["--teacher", str(archives["bert"]), "--student", str(tmp_path / "student.yaml"), "--output", "x.nemo"]
    assert cli.main(["init", *arguments]) == 2
    assert "has an encoder (library: huggingface) without a list of NeMo's layers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"_target_": "transformers.GPT2Config"},
            r"encoder._target_ is 'transformers.GPT2Config'; transformers.XConfig",
        ),
        ({"_target_": "os.mkdir"}, r"encoder._target_ is 'os.mkdir'"),
        ({"_target_": "transformers.BertConfig.from_pretrained"}, "encoder._target_ is"),
        (
            {"model_name": "bert-base-cased"},
            "encoder.model_name is 'bert-base-cased', whose configuration would be fet",
        ),
        ({"pretrained": True}, "encoder.pretrained is True; false or null is needed"),
        ({"checkpoint_file": "weights.pt"}, "encoder.checkpoint_file is 'weights.pt'"),
        ({"is_decoder": True}, "encoder.is_decoder is True"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "encoder.auto_map is not known of an encoder of Hugging Face"),
        ({"hidden_act": {"_target_": "os.mkdir"}}, "encoder.hidden_act._target_ names something to run"),
        ({"_convert_": "all"}, "encoder._convert_ is not known"),
        ({"hidden_size": "16"}, "encoder.hidden_size is '16'"),
        ({"attn_implementation": "flash_attention_2"}, "encoder.attn_implementation is 'flash_attention_2'"),
    ],
)
def test_more_than_a_known_model_needs_trust(archives, change, message):
    parts = read_parts(archives["bert"], weights=False)
    section = yaml.safe_load(parts.config)
    section["encoder"] |= change
    with pytest.raises(ArchiveError, match=message) as caught:
        read_config("t.nemo", replace(parts, config=yaml.safe_dump(section).encode()), trust=False)
    assert "trust_archive: true, or --trust-archive" in str(caught.value)
    assert read_config("t.nemo", replace(parts, config=yaml.safe_dump(section).encode()), trust=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 3}, r"with encoder._encoder.encoder.layer.2.* of \(16, 16\), which the weights"),
        ({"num_hidden_layers": 1024}, r"gives no encoder of Hugging Face \(1024 layers\)"),
        (
            {"intermediate_size": 1 << 18},
            r"with encoder._encoder.encoder.layer.0.intermediate.dense.weight of \(262144",
        ),
        ({"max_position_embeddings": 1 << 20}, "with encoder._encoder.embeddings.position_embeddings.weight"),
        ({"num_attention_heads": 3}, r"gives no encoder of Hugging Face \(.*hidden size"),
    ],
)
def test_sizes_that_the_weights_do_not_fill(archives, change, message):
    model = restore_model(archives["bert"])
    config = model.cfg.copy()
    config.encoder.update(change)
    sizes = dict.fromkeys(("encoder", "decoder"), model.encoder_tokenizer.vocab_size)
    check_sizes("t.nemo", model.cfg, model.state_dict(), sizes)
    with pytest.raises(ArchiveError, match=message):
        check_sizes("t.nemo", config, model.state_dict(), sizes)


def test_an_encoder_and_tokenizer_by_name(tiny_model_config, tiny_sources, tmp_path, monkeypatch):
    """Of what transformers finds under the name, here in the current directory, and with trust alone."""
    name = "google-bert/bert-base-uncased"
    (tmp_path / name).mkdir(parents=True)
    letters = sorted(set("".join(tiny_sources).lower()) - {" "})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (tmp_path / name / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    sizes = {key: BERT[key] for key in BERT if key[0] != "_" and key not in ("library", "attn_implementation")}
    config = {"model_type": "bert", "vocab_size": len(pieces), **sizes}
    (tmp_path / name / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    section = {"encoder_tokenizer": {"library": "huggingface"}, "shared_tokenizer": False, "src_language": "ignore"}
    encoder = {"library": "huggingface", "model_name": name, "pretrained": False}
    model = build(tiny_model_config, encoder=encoder, **section)
    model.cfg.encoder.pretrained = True  # as NeMo's recipe has it: the weights come from the archive all the same
    model.save_to("teacher.nemo")
    with pytest.raises(ArchiveError, match="encoder.model_name is .*trust_archive: true"):
        restore_model("teacher.nemo")
    opened = restore_model("teacher.nemo", trust=True)
    assert all(torch.equal(value, opened.state_dict()[key]) for key, value in model.state_dict().items())
    greedy = SearchSettings(search="greedy", max_length_delta=3)
    [[(_, [hypothesis])]] = NeMoEngine(opened).translate(["Die Lampe"], greedy)
    model.source_processor, model.beam_search = None, nemo_greedy(model)
    assert hypothesis.text == model.translate(["Die Lampe"])[0]
    (tmp_path / name / "config.json").unlink()
    with pytest.raises(InputError, match=f"NeMo fetches the configuration of its encoder, {name}, from Hugging Face"):
        restore_model("teacher.nemo", trust=True)
