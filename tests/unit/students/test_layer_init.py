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
"""Students that start from another model: which layer comes from where, and that all that belongs comes along."""

import copy

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.archives.restore import restore_model
from nemo_distill.config.layers import InitConfig
from nemo_distill.config.section import CaptureConfig
from nemo_distill.errors import ConfigurationError, InputError, TeacherError
from nemo_distill.students.layer_init import initialise

WIDE = {"hidden_size": 32}  # as wide as the tiny teacher


def random_batch(seed: int = 1) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(4, 100, (3, 7), generator=generator)
    target = torch.randint(4, 100, (3, 6), generator=generator)
    return source, torch.ones_like(source), target, torch.ones_like(target)


def log_probs(model: MTEncDecModel) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(*random_batch())


def source_layers(student: MTEncDecModel, source: MTEncDecModel, side: str) -> list[int | None]:
    """Return, for each student layer, the source layer that equals it in every tensor."""
    stacks = [getattr(getattr(model, side), f"_{side}").layers for model in (student, source)]
    found = []
    for layer in stacks[0]:
        mine = layer.state_dict()
        equal = [
            index
            for index, other in enumerate(stacks[1])
            if all(torch.equal(tensor, mine[name]) for name, tensor in other.state_dict().items())
        ]
        found.append(equal[0] if equal else None)
    return found


def is_tied(model: MTEncDecModel, shared: bool = True) -> bool:
    table = model.decoder.embedding.token_embedding.weight
    sources = model.encoder.embedding.token_embedding.weight is table
    return model.log_softmax.mlp.layer0.weight is table and sources == shared


@pytest.mark.parametrize(
    ("layer_map", "encoder", "decoder"),
    [
        ("every_nth", [0, 8, 16], [0, 2, 4]),  # 24 to 3 and 6 to 3, as published
        ("every_nth_last", [7, 15, 23], [1, 3, 5]),
        ("first", [0, 1, 2], [0, 1, 2]),
        ("last", [21, 22, 23], [3, 4, 5]),
        ([[0, 1], [2, 5]], [1, None, 5], [1, None, 5]),
        ([0, 4, 5], [0, 4, 5], [0, 4, 5]),
    ],
)
def test_which_layers(random_model, layer_map, encoder, decoder):
    sizes = {"encoder.num_layers": 24, "decoder.num_layers": 6}
    teacher, student = random_model(1, hidden_size=8, **sizes), random_model(2, hidden_size=8, num_layers=3)
    report = initialise(student, teacher, InitConfig(from_teacher=layer_map))
    assert source_layers(student, teacher, "encoder") == encoder
    assert source_layers(student, teacher, "decoder") == decoder
    for side, wanted in (("encoder", encoder), ("decoder", decoder)):
        for index, source in enumerate(wanted):
            name = f"{side}._{side}.layers.{index}.layer_norm_1.weight"
            if source is None:
                assert report.kept[name] == "its layer is not in the map"
            else:
                assert report.copied[name] == f"{side}._{side}.layers.{source}.layer_norm_1.weight"


def test_encoder_and_decoder_apart(random_model):
    teacher, student = random_model(1, num_layers=4), random_model(2, num_layers=2)
    before = copy.deepcopy(student.decoder._decoder.layers.state_dict())
    initialise(student, teacher, InitConfig(from_teacher="every_nth", encoder="last", decoder=None))
    assert source_layers(student, teacher, "encoder") == [2, 3]
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in student.decoder._decoder.layers.state_dict().items()
    )


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("pre_ln", [True, False])
def test_equal_depth_reproduces_the_teacher_exactly(random_model, shared, pre_ln):
    sizes = {"shared_embeddings": shared, "encoder.pre_ln": pre_ln, "decoder.pre_ln": pre_ln}
    teacher, student = random_model(1, **sizes), random_model(2, **sizes)
    assert not torch.equal(log_probs(student), log_probs(teacher))
    report = initialise(student, teacher, InitConfig(from_teacher="every_nth"))
    assert torch.equal(log_probs(student), log_probs(teacher))
    assert report.copied.keys() == student.state_dict().keys()
    assert not report.kept
    assert is_tied(student, shared)
    mine = {id(parameter) for parameter in student.parameters()}
    assert not any(id(parameter) in mine for parameter in teacher.parameters())


def test_embeddings_norms_head_and_bias_come_along(random_model):
    teacher, student = random_model(1, num_layers=4), random_model(2, num_layers=1)
    initialise(student, teacher, InitConfig(from_teacher="every_nth"))
    theirs = teacher.state_dict()
    outside = [name for name in student.state_dict() if ".layers." not in name]
    for part in ("token_embedding", "position_embedding", "layer_norm", "final_layer_norm", "mlp.layer0.bias"):
        assert any(part in name for name in outside)
    assert all(torch.equal(student.state_dict()[name], theirs[name]) for name in outside)


def test_layers_alone(random_model):
    teacher, student = random_model(1), random_model(2)
    before = copy.deepcopy(student.state_dict())
    report = initialise(student, teacher, InitConfig(from_teacher="every_nth", embeddings=False))
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, (teacher.state_dict() if ".layers." in name else before)[name])
    assert set(report.kept.values()) == {"embeddings: false"}


def test_learned_positions_and_a_shorter_student(random_model):
    teacher = random_model(1, **{f"{side}.learn_positional_encodings": True for side in ("encoder", "decoder")})
    sizes = {f"{side}.learn_positional_encodings": True for side in ("encoder", "decoder")}
    student = random_model(2, **sizes, **{f"{side}.max_sequence_length": 20 for side in ("encoder", "decoder")})
    initialise(student, teacher, InitConfig(from_teacher="every_nth"))
    assert torch.equal(log_probs(student), log_probs(teacher))


def test_a_longer_student(random_model):
    """A table of sines goes on by itself; a learned one does not."""
    longer = {f"{side}.max_sequence_length": 80 for side in ("encoder", "decoder")}
    teacher, student = random_model(1), random_model(2, **longer)
    initialise(student, teacher, InitConfig(from_teacher="every_nth"))
    assert torch.equal(log_probs(student), log_probs(teacher))
    learned = {f"{side}.learn_positional_encodings": True for side in ("encoder", "decoder")}
    with pytest.raises(InputError, match=r"position_embedding.weight is \[80, 32\], but .* is \[64, 32\]"):
        student, teacher = random_model(2, **longer, **learned), random_model(1, **learned)
        initialise(student, teacher, InitConfig(from_teacher="every_nth"))


def test_the_report_names_every_tensor(random_model):
    teacher, student = random_model(1, num_layers=4), random_model(2)
    report = initialise(student, teacher, InitConfig(from_teacher="every_nth", decoder=[[1, 3]]))
    assert report.copied.keys() | report.kept.keys() == student.state_dict().keys()
    lines = str(report).splitlines()
    assert lines[0] == f"{len(report.copied)} of {len(student.state_dict())} tensors of the student are set " + (
        "(student <- source):"
    )
    assert len(lines) == 1 + len(student.state_dict())
    (line,) = [
        line for line in lines if line.startswith("  decoder._decoder.layers.1.third_sub_layer.dense_in.weight ")
    ]
    assert line.endswith("<- decoder._decoder.layers.3.third_sub_layer.dense_in.weight  [64, 32]")
    (line,) = [
        line for line in lines if line.startswith("  decoder._decoder.layers.0.third_sub_layer.dense_in.weight ")
    ]
    assert line.endswith("as it was: its layer is not in the map")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"hidden_size": 16},
            r"layer_norm_1.weight is \[16\], but .* is \[32\](.|\n)*and \d+ more\n.*`width: project` \(`init --width",
        ),
        (
            {"encoder.inner_size": 48},
            r"dense_in.weight is \[48, 32\], but encoder.*dense_in.weight is \[64, 32\] in the source",
        ),
        ({"encoder.num_attention_heads": 4}, "encoder.num_attention_heads is 4 in the student and 2 in the source"),
        ({"decoder.pre_ln": False}, "decoder.pre_ln is False in the student and True in the source"),
        ({"encoder.mask_future": True}, "encoder.mask_future is True in the student and False in the source"),
        (
            {"decoder.learn_positional_encodings": True},
            "decoder.learn_positional_encodings is True in the student and False in the source",
        ),
        ({"encoder.hidden_act": "gelu"}, "encoder.hidden_act is gelu in the student and relu in the source"),
        ({"encoder.pre_ln_final_layer_norm": False}, "final_layer_norm.bias is in one of the two models only"),
        ({"num_layers": 6}, r"init.encoder: every_nth needs .* but 6 are more than 4"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(random_model, sizes, message):
    teacher, student = random_model(1, num_layers=4), random_model(2, **sizes)
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(InputError, match=message):
        initialise(student, teacher, InitConfig(from_teacher="every_nth"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_a_layer_given_twice(random_model):
    with pytest.raises(InputError, match="encoder: student layer 0 is given two layers; give it one"):
        initialise(random_model(2), random_model(1), InitConfig(from_teacher="every_nth", encoder=[[0, 0], [0, 1]]))


def test_two_tables_do_not_fit_into_a_shared_one(random_model):
    teacher, student = random_model(1, shared_embeddings=False), random_model(2)
    message = "encoder._embedding.token_embedding.weight and .* are one tensor in the student and two in the source"
    with pytest.raises(InputError, match=message):
        initialise(student, teacher, InitConfig(from_teacher="every_nth"))


def test_layers_with_other_names(random_model):
    teacher, student = random_model(1), random_model(2)
    student.encoder._encoder.blocks = student.encoder._encoder._modules.pop("layers")
    capture = CaptureConfig(student_encoder_layers="encoder._encoder.blocks")
    report = initialise(student, teacher, InitConfig(from_teacher="every_nth"), capture)
    wanted = "encoder._encoder.layers.1.layer_norm_2.bias"
    assert report.copied["encoder._encoder.blocks.1.layer_norm_2.bias"] == wanted
    assert torch.equal(student.encoder._encoder.blocks[1].layer_norm_2.bias, teacher.state_dict()[wanted])


def test_a_student_of_the_teachers_size_starts_as_the_teacher(student_config, tiny_trainer, tmp_path):
    """Through the configuration; tied weights stay tied through training, saving and opening."""
    config = student_config(num_layers=2, **WIDE)
    config.distillation.init = {"from_teacher": "every_nth"}
    trainer = tiny_trainer(2, limit_val_batches=0)
    student = DistilledMTEncDecModel(config, trainer=trainer)
    assert torch.equal(log_probs(student), log_probs(student._teacher.model))
    trainer.fit(student)
    assert is_tied(student)
    student.save_to(str(tmp_path / "student.nemo"))
    restored = MTEncDecModel.restore_from(str(tmp_path / "student.nemo"))
    assert is_tied(restored)
    assert torch.equal(log_probs(restored), log_probs(student))
    assert not torch.equal(log_probs(restored), log_probs(student._teacher.model))


def test_init_leaves_the_random_state_alone(student_config):
    states = []
    for init in (None, {"from_teacher": "every_nth"}):
        torch.manual_seed(3)
        config = student_config(**WIDE)
        config.distillation.init = init
        DistilledMTEncDecModel(config)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_a_teacher_that_only_lends_its_layers_is_let_go(student_config, tiny_teacher_path):
    config = student_config(objective={"word_kd": {"weight": 0}}, **WIDE)
    config.distillation.init = {"from_teacher": "last"}
    student = DistilledMTEncDecModel(config)
    assert student._teacher is None
    assert source_layers(student, restore_model(tiny_teacher_path), "encoder") == [1]


def test_a_teacher_in_half_precision_lends_its_weights_unrounded(student_config, tiny_teacher_path):
    config = student_config(num_layers=2, **WIDE)
    config.distillation.teacher.precision = "bf16"
    config.distillation.init = {"from_teacher": "every_nth"}
    student, teacher = DistilledMTEncDecModel(config), restore_model(tiny_teacher_path)
    assert torch.equal(log_probs(student), log_probs(teacher))
    assert {parameter.dtype for parameter in student._teacher.model.parameters()} == {torch.bfloat16}


def test_resuming_goes_on_from_the_checkpoint_not_from_the_teacher(student_config, tiny_trainer, tmp_path):
    config = student_config(**WIDE)
    config.distillation.init = {"from_teacher": "every_nth"}
    trainer = tiny_trainer(2, limit_val_batches=0)
    student = DistilledMTEncDecModel(config, trainer=trainer)
    trainer.fit(student)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    trainer = tiny_trainer(3, limit_val_batches=0)
    resumed, seen = DistilledMTEncDecModel(config, trainer=trainer), []
    resumed.register_forward_pre_hook(lambda *_: seen.append(copy.deepcopy(resumed.state_dict())))
    trainer.fit(resumed, ckpt_path=tmp_path / "two.ckpt")
    assert all(torch.equal(tensor, seen[0][name]) for name, tensor in student.state_dict().items())


def test_a_pretrained_student(student_config, tiny_model_config, tmp_path, monkeypatch):
    torch.manual_seed(5)
    pretrained = MTEncDecModel(tiny_model_config(hidden_size=16, num_layers=1)).eval()
    pretrained.save_to(str(tmp_path / "pretrained.nemo"))
    config = student_config()
    config.distillation.init = {"from_nemo": str(tmp_path / "pretrained.nemo")}
    said = []
    monkeypatch.setattr("nemo_distill.teachers.opening.warn", said.append)
    assert torch.equal(log_probs(DistilledMTEncDecModel(config)), log_probs(pretrained))
    assert not said
    MTEncDecModel(tiny_model_config(16, 1, src_language="ignore")).save_to(str(tmp_path / "pretrained.nemo"))
    DistilledMTEncDecModel(config)
    assert [each for each in said if "another form than the student's: it reads source raw text" in each]


def test_a_pretrained_student_that_is_not_there(student_config, tmp_path, tiny_corpus):
    """Found before the data are read."""
    config = student_config(**{"train_ds.src_file_name": str(tmp_path / "no.de")})
    config.distillation.init = {"from_nemo": str(tmp_path / "no.nemo")}
    with pytest.raises(ConfigurationError, match=r"distillation.init.from_nemo: \S+no.nemo' does not exist; give the"):
        DistilledMTEncDecModel(config)


def test_a_pretrained_student_of_another_vocabulary(
    student_config, tiny_model_config, tiny_corpus, train_tokenizer, tmp_path
):
    other = str(train_tokenizer([tiny_corpus / "train.en"], 120))
    keys = {f"{side}_tokenizer.tokenizer_model": other for side in ("encoder", "decoder")}
    MTEncDecModel(tiny_model_config(hidden_size=16, num_layers=1, **keys)).save_to(str(tmp_path / "pretrained.nemo"))
    config = student_config()
    config.distillation.init = {"from_nemo": str(tmp_path / "pretrained.nemo")}
    with pytest.raises(TeacherError, match="different source vocabularies"):
        DistilledMTEncDecModel(config)
