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
"""What a student leaves: archives of the plain model behind it, and checkpoints that hold what its terms learn."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nemo.utils.get_rank import is_global_rank_zero
from omegaconf import OmegaConf

from nemo_distill.support.files import atomic_path
from nemo_distill.support.warned import warn
from nemo_distill.training.attached import AttachedModel, check_learnt, is_model


class PlainArchive(AttachedModel):
    """Mixin for a student whose archives are of the model class behind it, so that NeMo opens them by itself.

    The `objective` and the configuration's `distillation` section are left out. Checkpoints hold what the objective's
    terms learn.
    """

    def save_to(self, save_path: str) -> None:
        """Write the `.nemo` archive of the plain model; an older file there is replaced only by a whole new one."""
        if is_global_rank_zero():
            kind = self.plain_class()
            if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
                warn(
                    f"'{save_path}' names {kind.__module__}.{kind.__qualname__}, which another program cannot "
                    "import: it would open the archive as a plain MTEncDecModel, or not at all. Define the class in a "
                    "module of its own, which the script imports"
                )
            with atomic_path(Path(save_path).expanduser()) as partial, self._without_objective():
                super().save_to(str(partial))

    @contextmanager
    def _without_objective(self) -> Iterator[None]:
        """The objective is no part of the module tree, nor what its terms learnt of the weights, inside the block."""
        objective = self._modules.pop("objective", None)
        try:
            yield
        finally:
            if objective is not None:
                self.objective = objective

    def to_config_file(self, path2yaml_file: str) -> None:
        """Write the configuration of the plain model: its own class as `target`, no `distillation` section."""
        config = OmegaConf.create(OmegaConf.to_container(self._cfg, resolve=True))
        config.pop("distillation", None)
        plain_class = self.plain_class()
        config.target = f"{plain_class.__module__}.{plain_class.__qualname__}"
        OmegaConf.save(config, path2yaml_file)

    @classmethod
    def plain_class(cls) -> type:
        """The model class behind the mixin, which saved archives name."""
        return next(base for base in cls.__mro__ if is_model(base))

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """A model opened for inference takes nothing that the terms learnt; one that trains needs all of it."""
        super().on_load_checkpoint(checkpoint)
        if self.distillation is not None:
            check_learnt(self.state_dict(), checkpoint["state_dict"])
        else:
            weights = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: weights[name] for name in weights if not name.startswith("objective.")}
