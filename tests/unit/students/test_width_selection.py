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
"""Slim students of wide models: the units that are kept fit together."""

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.modules.common.transformer.transformer_modules import FixedPositionalEncoding

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.config.layers import InitConfig
from nemo_distill.errors import InputError
from nemo_distill.students.layer_init import initialise

SELECT = InitConfig(from_teacher="every_nth", width="select")


def log_probs(model: MTEncDecModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    source, target = (torch.randint(4, 100, (3, length), generator=generator) for length in (7, 6))
    with torch.no_grad():
        return model(source, torch.ones_like(source), target, torch.ones_like(target))


def layers(model: MTEncDecModel):
    return [*model.encoder._encoder.layers, *model.decoder._decoder.layers]


def attentions(model: MTEncDecModel):
    return [module for name, module in model.named_modules() if hasattr(module, "query_net")]


def feed_forwards(model: MTEncDecModel):
    return [module for name, module in model.named_modules() if hasattr(module, "dense_in")]


def test_equal_sizes_are_a_copy(random_model):
    teacher, student = random_model(1), random_model(2)
    initialise(student, teacher, SELECT)
    assert torch.equal(log_probs(student), log_probs(teacher))


def test_silent_neurons_are_the_ones_dropped(random_model):
    """A student with half the neurons computes what its teacher does where the other half is silent."""
    teacher, student = random_model(1, inner=64), random_model(2, inner=32)
    with torch.no_grad():
        for index, module in enumerate(feed_forwards(teacher)):
            silent = torch.randperm(64, generator=torch.Generator().manual_seed(index))[:32]
            module.dense_out.weight[:, silent] = 0
    initialise(student, teacher, SELECT)
    torch.testing.assert_close(log_probs(student), log_probs(teacher))


def grown(student: MTEncDecModel, wide: MTEncDecModel, units, head_units) -> MTEncDecModel:
    """Write the student into chosen rows and columns of a wide model of tiny weights."""
    slim, big = student.state_dict(), wide.state_dict()
    with torch.no_grad():
        for name, tensor in big.items():
            rows = columns = None
            if any(part in name for part in ("query_net", "key_net", "value_net")):
                rows, columns = head_units, units
            elif "out_projection" in name:
                rows, columns = units, head_units
            elif "dense_in" in name:
                rows, columns = torch.arange(slim[name].shape[0]), units
            elif "dense_out" in name or "layer_norm" in name:
                rows, columns = units, torch.arange(slim[name].shape[-1])
            else:
                rows, columns = torch.arange(slim[name].shape[0]), units
            tensor.mul_(1e-3)
            if tensor.ndim == 2:
                tensor[rows[:, None], columns[None]] = slim[name]
            else:
                tensor[rows] = slim[name]
    return wide


@pytest.mark.parametrize(("heads", "wide_heads"), [(2, 4), (2, 2), (1, 4)])
def test_finds_the_model_inside_a_wide_one(random_model, heads, wide_heads):
    """A slim model, hidden among tiny weights at units, heads and places in heads of no order, is taken out again."""
    hidden = random_model(1, hidden_size=8, heads=heads)
    size, wide_size = 8 // heads, 32 // wide_heads
    units = torch.tensor([1, 4, 9, 10, 17, 22, 30, 31])
    kept_heads = [wide_heads - 1] if heads == 1 else [wide_heads // 2 - 1, wide_heads - 1]
    places = torch.arange(wide_size)[-size:] if size < wide_size else torch.arange(size)
    head_units = torch.cat([head * wide_size + places for head in kept_heads])
    wide = grown(hidden, random_model(2, hidden_size=32, heads=wide_heads, inner=16), units, head_units)
    student = random_model(3, hidden_size=8, heads=heads)
    initialise(student, wide, SELECT)
    for name, tensor in student.state_dict().items():
        if name.endswith("pos_enc"):
            continue  # of the student's own width, see below
        # A student divides attention scores by the root of its own head size: the query projection makes up for it.
        scale = (size / wide_size) ** 0.5 if "query_net" in name else 1
        torch.testing.assert_close(tensor, hidden.state_dict()[name] * scale, msg=name)


def permuted(model: MTEncDecModel, units: torch.Tensor, head_order: torch.Tensor) -> None:
    """Renumber the residual units and the heads of a model, which changes nothing that it computes."""
    size = model.decoder.hidden_size // len(head_order)
    head_units = (head_order[:, None] * size + torch.arange(size)).flatten()
    done = set()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.data_ptr() in done:
                continue
            done.add(tensor.data_ptr())
            if any(part in name for part in ("query_net", "key_net", "value_net")):
                tensor.copy_(tensor[head_units][:, units] if tensor.ndim == 2 else tensor[head_units])
            elif "out_projection" in name:
                tensor.copy_(tensor[units][:, head_units] if tensor.ndim == 2 else tensor[units])
            elif "dense_out" in name or "layer_norm" in name:
                tensor.copy_(tensor[units])
            elif tensor.ndim == 2:  # embeddings, positions, dense_in
                tensor.copy_(tensor[:, units])


def test_the_choice_does_not_hang_on_the_numbering(random_model):
    """Units are chosen alike in every tensor: renumbering the teacher's leaves what the student computes.

    Without positions: those are the student's own, whichever units it was given.
    """

    def start() -> MTEncDecModel:
        student = random_model(2, hidden_size=16, heads=2)
        initialise(student, teacher, SELECT)
        for part in (student.encoder, student.decoder):
            part.embedding.position_embedding.pos_enc.zero_()
        return student

    teacher = random_model(1, hidden_size=32, heads=4)
    before, plain = log_probs(teacher), start()
    generator = torch.Generator().manual_seed(1)
    permuted(teacher, torch.randperm(32, generator=generator), torch.randperm(4, generator=generator))
    torch.testing.assert_close(log_probs(teacher), before, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(log_probs(start()), log_probs(plain), atol=1e-5, rtol=1e-4)


def test_positions_are_of_the_students_own_width(random_model):
    """Some of the teacher's columns would lack a sine here and a cosine there, and with them near words."""
    teacher, student = random_model(1, hidden_size=32, heads=4), random_model(2, hidden_size=16, heads=2)
    names = [f"{side}._embedding.position_embedding.pos_enc" for side in ("encoder", "decoder")]
    wanted = FixedPositionalEncoding(16, len(student.state_dict()[names[0]])).pos_enc
    report = initialise(student, teacher, SELECT)
    assert report.kept == dict.fromkeys(names, "sines and cosines of the student's own width")
    assert all(torch.equal(student.state_dict()[name], wanted) for name in names)


def test_learned_positions_are_selected(random_model):
    learned = {f"{side}.learn_positional_encodings": True for side in ("encoder", "decoder")}
    teacher = random_model(1, hidden_size=32, heads=4, **learned)
    student = random_model(2, hidden_size=16, heads=2, **learned)
    name = "encoder._embedding.position_embedding.weight"
    assert not initialise(student, teacher, SELECT).kept
    chosen, columns = student.state_dict()[name].T, teacher.state_dict()[name].T
    assert all(any(torch.equal(one, other) for other in columns) for one in chosen)


def test_ties_and_shapes_and_report(random_model):
    teacher, student = random_model(1, num_layers=4, heads=4), random_model(2, hidden_size=16, heads=2, num_layers=2)
    report = initialise(student, teacher, SELECT)
    table = student.decoder.embedding.token_embedding.weight
    assert student.log_softmax.mlp.layer0.weight is table
    assert student.encoder.embedding.token_embedding.weight is table
    assert set(report.kept) == {f"{side}._embedding.position_embedding.pos_enc" for side in ("encoder", "decoder")}
    wanted = "decoder._decoder.layers.1.first_sub_layer.query_net.weight <- "
    assert any(
        line.split()
        == f"{wanted} decoder._decoder.layers.2.first_sub_layer.query_net.weight ([16, 16], [32, 32])".split()
        for line in str(report).splitlines()
    )


def test_better_than_chance(tiny_teacher_path, tiny_model_config, student_config, first_batch):
    """After the same few steps the student made of a trained teacher is ahead of one made at random."""
    losses = {}
    for init in (None, {"from_teacher": "every_nth", "width": "select"}):
        torch.manual_seed(1)
        config = student_config(hidden_size=24, num_layers=2, objective={"nll": {"weight": 0}})
        config.distillation.init = init
        student = DistilledMTEncDecModel(config)
        batch = first_batch(student)
        optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
        for _ in range(20):
            loss = student.distillation_terms(batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[init is None] = loss.item()
    assert losses[False] < losses[True]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 64}, "only makes models slimmer, but hidden_size is 64 in the student and 32 in the source"),
        ({"inner": 128}, "only makes models slimmer, but inner_size is 128 in the student and 64 in the source"),
        ({"hidden_size": 16, "heads": 4}, "but num_attention_heads is 4 in the student and 2 in the source; give"),
        ({"heads": 1}, "but the size of a head is 32 in the student and 16 in the source"),
    ],
)
def test_a_wider_student_is_refused(random_model, sizes, message):
    with pytest.raises(InputError, match=message):
        initialise(random_model(2, **sizes), random_model(1), SELECT)


def test_foreign_modules_are_refused(random_model):
    teacher, student = random_model(1), random_model(2, hidden_size=16)
    for one in (teacher, student):
        one.encoder._encoder.layers[0].gate = torch.nn.Linear(4, 4)
    with pytest.raises(
        InputError, match=r"not encoder._encoder.layers.0.gate.weight, of a Linear; give the student the"
    ):
        initialise(student, teacher, SELECT)
