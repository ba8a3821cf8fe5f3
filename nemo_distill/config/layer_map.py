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
"""Which teacher layer belongs to which student layer, for hidden states, attention maps and initialisation.

A map is one of the names below, a list with the teacher layer of each student layer (`[0, 8, 16]`), or a list of pairs
(`[[0, 7], [2, 23]]`, student first). Layers count from 0; negative numbers count from the last layer, -1.

For a student of M layers and a teacher of N, student layer i gets the teacher layer

- `first`: i; `last`: N - M + i;
- `every_nth`: i * N / M, so 0, 8, 16 of 24, and rounded down where M does not divide N: 0, 2, 4 of 7;
- `uniform`, also called `every_nth_last`: (i + 1) * N / M - 1, so 7, 15, 23 of 24, and 1, 3, 6 of 7.

Sources: DistilBERT (Sanh et al. 2019, arXiv:1910.01108) starts from every n-th layer; TinyBERT (Jiao et al. 2020,
arXiv:1909.10351, section 4.4) compares uniform, top (here `last`) and bottom (here `first`) maps of hidden states.
"""

from nemo_distill.config.reading import name_faults
from nemo_distill.errors import ConfigurationError

LayerMap = str | list

MAP_NAMES = ("uniform", "first", "last", "every_nth", "every_nth_last")


def map_faults(layer_map: LayerMap, where: str) -> list[str]:
    """Return one line where `layer_map` can be no map, whatever the models are."""
    if isinstance(layer_map, str):
        return name_faults(layer_map, MAP_NAMES, where)
    if layer_map and (all(map(_is_index, layer_map)) or all(map(_is_pair, layer_map))):
        return []
    return [
        f"{where}: got {layer_map}; give one of {', '.join(MAP_NAMES)}, the teacher layer of each student layer, for "
        "example [0, 8, 16], or pairs of a student and a teacher layer, for example [[0, 7], [2, 23]]"
    ]


def layer_pairs(layer_map: LayerMap, students: int, teachers: int, where: str) -> list[tuple[int, int]]:
    """Return the pairs of a student layer and its teacher layer.

    Args:
        layer_map: a map without faults, see `map_faults`.
        students: layers of the student.
        teachers: layers of the teacher.
        where: the map's place in the configuration, for the message.

    Raises:
        ConfigurationError: the map does not fit the two numbers of layers; the message says what does.

    Example:
        >>> layer_pairs("every_nth", students=3, teachers=24, where="init.encoder")
        [(0, 0), (1, 8), (2, 16)]
    """
    if not isinstance(layer_map, str):
        return _explicit_pairs(layer_map, students, teachers, where)
    if students > teachers:
        raise ConfigurationError(
            f"{where}: {layer_map} needs a student of no more layers than the teacher, but {students} are more than "
            f"{teachers}; give the student fewer layers, or name the pairs, for example [[0, 0], [1, {teachers - 1}]]"
        )
    own = range(students)
    chosen = {
        "first": own,
        "last": range(teachers - students, teachers),
        "every_nth": [layer * teachers // students for layer in own],
    }.get(layer_map, [(layer + 1) * teachers // students - 1 for layer in own])
    return list(zip(own, chosen, strict=True))


def _explicit_pairs(layer_map: list, students: int, teachers: int, where: str) -> list[tuple[int, int]]:
    if _is_index(layer_map[0]):
        if len(layer_map) != students:
            raise ConfigurationError(
                f"{where}: got {len(layer_map)} teacher layers, {layer_map}, for {students} student layers; give one "
                "for each, or pairs, for example [[0, 0]]"
            )
        layer_map = list(enumerate(layer_map))
    for pair in layer_map:
        for layer, count, owner in zip(pair, (students, teachers), ("student", "teacher"), strict=True):
            if not -count <= layer < count:
                raise ConfigurationError(
                    f"{where}: the pair {list(pair)} is out of range: the {owner} has {count} layers, so give 0 to "
                    f"{count - 1}, or -{count} to -1 from the last"
                )
    return [(student % students, teacher % teachers) for student, teacher in layer_map]


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_index, value))
