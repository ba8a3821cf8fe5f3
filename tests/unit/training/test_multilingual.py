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
"""Each data set of a multilingual model is of the language that its section says, also in stock NeMo's model."""

import pytest
import sacrebleu
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_model import MosesProcessor
from omegaconf import OmegaConf

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.data.checks import check_model_files
from nemo_distill.errors import InputError
from nemo_distill.training.multilingual import languages_of_sets, sets_of
from nemo_distill.training.repairs import repair_model
from nemo_distill.training.run import run_training
from nemo_distill.training.validation import check_monitor

TOKENS = {"de": 96, "es": 97, "fr": 98}


@pytest.fixture
def section_of(multilingual_config, multilingual_corpus):
    """A function that returns the section of a kind of model, with files of some languages, named or not."""

    def build(kind, languages, named=True, **sizes):
        def files(name):
            foreign, english = (
                [str(multilingual_corpus / f"{name}.{language}") for language in column]
                for column in (languages, ["en"] * len(languages))
            )
            sides = (english, foreign) if kind == "one_to_many" else (foreign, english)
            found = dict(zip(("src_file_name", "tgt_file_name"), sides, strict=True))
            found |= {"tokens_in_batch": 150, "clean": False, "num_workers": 0, "shuffle": False}
            return found | ({"languages": list(languages)} if named else {})

        return multilingual_config(kind, train_ds=files("train"), validation_ds=files("valid"), **sizes)

    return build


def build(config, model_class=MTEncDecModel):
    torch.manual_seed(0)
    with languages_of_sets():
        return repair_model(model_class(config)).eval()


def test_sets_are_of_the_languages_that_they_say(section_of):
    model = build(section_of("one_to_many", ["fr", "de"]))
    for number, language in enumerate(("fr", "de")):
        source = torch.as_tensor(model._validation_ds[number][0][0])
        assert (source[:, 0] == TOKENS[language]).all()
        assert (source[:, 1] == model.encoder_tokenizer.bos_id).all()
    assert {int(model._train_ds.datasets[number][0][0][0, 0]) for number in range(2)} == {TOKENS["fr"], TOKENS["de"]}
    assert [str(direction) for _, direction in sets_of(model, "validation_ds").values()] == ["en-fr", "en-de"]
    assert model.multilingual_ids == list(TOKENS.values())  # as NeMo's translate looks them up


def test_as_many_files_as_languages_are_taken_in_order(section_of):
    model = build(section_of("one_to_many", list(TOKENS), named=False))
    assert [int(data[0][0][0, 0]) for data in model._validation_ds] == list(TOKENS.values())


def test_student_without_mixture(section_of):
    config = section_of("one_to_many", ["es"])
    config.distillation = {"objective": {"word_kd": {"weight": 0}}}
    model = DistilledMTEncDecModel(config)
    assert int(model._train_ds[0][0][0, 0]) == TOKENS["es"]
    config.validation_ds.languages = ["fr"]
    model.setup_validation_data(config.validation_ds)  # another time, after the model was built
    assert int(model._validation_ds[0][0][0][0, 0]) == TOKENS["fr"]


@pytest.mark.parametrize("kind", ["one_to_many", "many_to_one"])
def test_validation_scores_each_language(
    section_of, tiny_trainer, multilingual_corpus, multilingual_teacher_paths, kind
):
    model = build(section_of(kind, ["fr", "de"], hidden_size=32, num_layers=2))
    model.load_state_dict(MTEncDecModel.restore_from(str(multilingual_teacher_paths[kind])).state_dict())
    scores = tiny_trainer(1).validate(model, verbose=False)[0]
    named = {name: value for name, value in scores.items() if name.endswith(("_fr", "_de"))}
    assert set(named) == {f"val_{score}_{name}" for score in ("loss", "sacreBLEU") for name in ("fr", "de")}
    assert scores["val_loss_fr"] == scores["val_loss"]
    assert scores["val_loss_de"] == scores["val_loss_dl_index_1"]
    for name in ("fr", "de"):
        pair = ("en", name) if kind == "one_to_many" else (name, "en")
        sources, references = (
            (multilingual_corpus / f"valid.{language}").read_text("utf-8").splitlines() for language in pair
        )
        # a data set is processed text already, which is joined by the processor of its language
        hypotheses = [translate_processed(model, source, TOKENS[name], pair[1], kind) for source in sources]
        references = [MosesProcessor(pair[1]).detokenize(line.split(" ")) for line in references]
        expected = sacrebleu.corpus_bleu(hypotheses, [references]).score
        assert scores[f"val_sacreBLEU_{name}"] == pytest.approx(expected, rel=1e-5)
        assert expected > 1
    check_monitor(model, "val_sacreBLEU_de")
    with pytest.raises(InputError, match="monitor: got 'val_sacreBLEU_es'; give one of .*val_sacreBLEU_de"):
        check_monitor(model, "val_sacreBLEU_es")


def translate_processed(model, text: str, token: int, target: str, kind: str) -> str:
    tokenizer = model.encoder_tokenizer
    ids = [tokenizer.bos_id, *tokenizer.text_to_ids(text), tokenizer.eos_id]
    source = torch.tensor([[token, *ids] if kind == "one_to_many" else ids])
    model.target_processor, model.source_processor = MosesProcessor(target), MosesProcessor("en")
    return model.batch_translate(source, torch.ones_like(source))[1][0]


FAULTS = [
    ("one_to_many", ["fr", "de"], {"validation_ds.languages": None}, "validation_ds.languages: is missing, and there"),
    (
        "one_to_many",
        ["fr"],
        {"train_ds.languages": ["it"]},
        "train_ds.languages: got 'it', and the model's are de, es",
    ),
    ("many_to_one", ["fr", "de"], {"train_ds.languages": ["de"]}, "train_ds.languages: got 1 for 2 files; give one"),
    ("one_to_many", ["de"], {"encoder_tokenizer.sentencepiece_legacy": False}, "sentencepiece_legacy: must be true"),
    ("one_to_many", ["de"], {"decoder_tokenizer.library": "yttm"}, "YouTokenToMe takes no tokens for the languages"),
    ("one_to_many", ["de"], {"src_language": ["en", "it"]}, "needs a list of languages .* and got one in both"),
    ("one_to_many", ["de"], {"tgt_language": "de"}, "needs a list of languages .* and got none"),
    ("many_to_one", ["de"], {"src_language": ["de", "de"]}, "src_language: got de, de; give each language once"),
]


@pytest.mark.parametrize(("kind", "languages", "changes", "message"), FAULTS)
def test_what_is_no_multilingual_section(section_of, kind, languages, changes, message):
    config = section_of(kind, languages)
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        (config[section] if section else config)[name] = value
    with pytest.raises(InputError, match=message):
        check_model_files(config)


def test_components_of_a_mixture(section_of, multilingual_corpus):
    config = section_of("one_to_many", ["de"])
    files = {"source": str(multilingual_corpus / "train.en"), "target": str(multilingual_corpus / "train.de")}
    section = {"components": {"gold": files}, "noise": {"word_swap": 3, "apply_to": ["gold"]}}
    config.distillation = {"objective": {"word_kd": {"weight": 0}}, "mixture": section}
    with pytest.raises(InputError, match="components.gold.language: is missing, and the model has several; give one"):
        DistilledMTEncDecModel(config)
    config.distillation.mixture.components.gold.language = "it"
    with pytest.raises(InputError, match="components.gold.language: got 'it', and the model's are de, es, fr"):
        DistilledMTEncDecModel(config)
    config.distillation.mixture.components.gold.language = "es"
    model = DistilledMTEncDecModel(config)
    source = model._train_ds[0][0]
    assert (source[:, 0] == TOKENS["es"]).all()  # noise leaves both of the first two where they are
    assert (source[:, 1] == model.encoder_tokenizer.bos_id).all()


@pytest.mark.parametrize("model_class", [MTEncDecModel, DistilledMTEncDecModel])
def test_a_run_of_a_many_to_one_model(section_of, tmp_path, multilingual_teacher_paths, model_class):
    """Stock NeMo raises an IndexError for the data of such a model."""
    model = section_of("many_to_one", ["fr", "de"])
    model.validation_ds.languages = ["fr", "fr"]
    if model_class is DistilledMTEncDecModel:
        model.distillation = {"teacher": {"model_path": str(multilingual_teacher_paths["many_to_one"])}}
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": 2, "val_check_interval": 2, "logger": False}
    trainer |= {"check_val_every_n_epoch": None, "enable_progress_bar": False, "enable_model_summary": False}
    manager = {"create_tensorboard_logger": False, "create_preemption_callback": False, "log_step_timing": False}
    manager["checkpoint_callback_params"] = {"monitor": "val_sacreBLEU_fr", "mode": "max", "save_top_k": 1}
    config = {"name": "student", "output_dir": str(tmp_path / "run"), "overwrite": False, "seed": 1, "keep": "best"}
    config |= {"model": model, "trainer": {**trainer, "enable_checkpointing": False}, "exp_manager": manager}
    archive = run_training(OmegaConf.create(config), model_class)
    student = MTEncDecModel.restore_from(str(archive))
    assert type(student) is MTEncDecModel
    assert student.multilingual
    assert list(student.src_language) == list(TOKENS)
