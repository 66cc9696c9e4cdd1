"""The layout of a result: its variables, its groups, and its files."""

from inference.results.build import assembled as assembled
from inference.results.build import converged as converged
from inference.results.build import names as names
from inference.results.build import objective_coords as objective_coords
from inference.results.build import on_grid as on_grid
from inference.results.build import population_tree as population_tree
from inference.results.build import provenance as provenance
from inference.results.build import recorded_steps as recorded_steps
from inference.results.build import task_mixture as task_mixture
from inference.results.build import training_tree as training_tree
from inference.results.build import two_mode as two_mode
from inference.results.schema import LAYOUT as LAYOUT
from inference.results.schema import attributes_of as attributes_of
from inference.results.schema import describe as describe
from inference.results.schema import register as register
from inference.results.store import check_complete as check_complete
from inference.results.store import foreign as foreign
from inference.results.store import open as open
from inference.results.store import save as save
