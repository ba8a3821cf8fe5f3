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
"""Whether two models mean the same by every token id."""

from collections.abc import Iterator

from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.errors import TeacherError
from nemo_distill.support.quoting import plain_text

SIDES = {"encoder": "source", "decoder": "target"}


def check_vocabularies(student: MTEncDecModel, teacher: MTEncDecModel) -> None:
    """Make sure that every token id means the same to both models, on the source and on the target side.

    Raises:
        TeacherError: the vocabularies differ; the message names the first difference.
    """
    for side, difference in vocabulary_differences(student, teacher):
        if difference.startswith("reads "):
            raise TeacherError(
                f"on the {SIDES[side]} side the student {difference}, so their words cannot be compared one by one. "
                f"Give the student the teacher's {side}_tokenizer.r2l, or train it on the teacher's pseudo-labels, "
                "which are text"
            )
        raise TeacherError(
            f"student and teacher have different {SIDES[side]} vocabularies: {difference}. Train the student with the "
            f"teacher's {side} tokenizer (it lies inside the teacher's .nemo file, which is a tar archive)"
        )


def reads_right_to_left(tokenizer) -> bool:
    """Return whether a tokenizer turns every sentence round; NeMo's YouTokenToMe alone does, where `r2l` says so."""
    return bool(getattr(tokenizer, "r2l", False))


def vocabulary_differences(
    model: MTEncDecModel, reference: MTEncDecModel, owner: str = "the teacher's"
) -> Iterator[tuple[str, str]]:
    """Yield (`encoder` or `decoder`, the first difference of the vocabularies there) where two models differ.

    Args:
        model: a model.
        reference: the model to compare with.
        owner: how the words call the reference.
    """
    for side in SIDES:
        difference = vocabulary_difference(*(getattr(each, f"{side}_tokenizer") for each in (model, reference)), owner)
        if difference:
            yield side, difference


def vocabulary_difference(tokenizer, reference, owner: str = "the teacher's") -> str | None:
    """Return in words the first difference of a tokenizer's ids and tokens from another's, or None if there is none.

    Args:
        tokenizer: any tokenizer of NeMo.
        reference: the tokenizer to compare with.
        owner: how the words call the reference.
    """
    directions = [reads_right_to_left(each) for each in (tokenizer, reference)]
    if directions[0] != directions[1]:
        ways = ["right to left" if each else "left to right" for each in directions]
        return f"reads {ways[0]} against {owner} {ways[1]}"
    sizes = tokenizer.vocab_size, reference.vocab_size
    if sizes[0] != sizes[1]:
        return f"{sizes[0]} tokens against {owner} {sizes[1]}"
    for name in ("bos_id", "eos_id", "pad_id", "unk_id"):
        ids = getattr(tokenizer, name, None), getattr(reference, name, None)
        if ids[0] != ids[1]:
            return f"{name} {ids[0]} against {owner} {ids[1]}"
    every_id = list(range(sizes[0]))
    tokens = tokenizer.ids_to_tokens(every_id), reference.ids_to_tokens(every_id)
    for token_id, (token, reference_token) in enumerate(zip(*tokens, strict=True)):
        if token != reference_token:
            return f"token {token_id} is '{plain_text(token)}' against {owner} '{plain_text(reference_token)}'"
    return None
