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
from .allowed import setting as setting
from .costs import Plan as Plan
from .costs import StageCost as StageCost
from .graph import Graph as Graph
from .grid import Grid as Grid
from .grid import Objective as Objective
from .noted import Stage as Stage
from .planning import plan_job as plan_job
from .progress import Progress as Progress
from .progress import StageProgress as StageProgress
from .progress import read_progress as read_progress
from .recipe import Recipe as Recipe
from .recipe import read_recipe as read_recipe
from .recipe_sections import Cache as Cache
from .recipe_sections import Labels as Labels
from .recipe_sections import Run as Run
from .recipe_sections import Size as Size
from .recipe_sections import Student as Student
from .running import verb_command as verb_command
from .stages import run_stages as run_stages
from .trainings import train_plain as train_plain
from .trainings import train_student as train_student
