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
"""What Hydra cannot compose, with the name that was meant: Hydra's own advice is to add a misspelt key with `+`."""

from omegaconf import DictConfig

from nemo_distill.config.reading import name_faults, nearest
from nemo_distill.support.quoting import plain_text


def composition_fault(error: Exception) -> str:
    """Return in one line what is wrong with an override, and what would do.

    Args:
        error: of Hydra or OmegaConf, as `hydra.compose` raises it.

    Returns:
        Such as "Could not override 'data.tokeniser' (did you mean 'tokenizer'?); known keys are dir, source, target".
    """
    told = plain_text(str(error).splitlines()[0], 300).removesuffix(".")
    if override := getattr(error, "override", None):  # which is no override
        return f"'{plain_text(override)}': {told}; give key=value, and quote brackets and spaces"
    if options := getattr(error, "options", None):
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{told}; {name_faults(name, sorted(options), group)[0]}"
    section = getattr(error.__cause__, "parent_node", None)
    if told.startswith("Could not override") and isinstance(section, DictConfig):
        known = [str(each) for each in section if each != "hydra"]
        return (
            f"{told}{nearest(error.__cause__.key, known)}; known keys are {', '.join(known)}; + in front adds another"
        )
    return told
