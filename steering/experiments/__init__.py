"""The paper's experiments and further ones, each run by `steering reproduce NAME` or by one click on the page."""

from steering.experiments.bench import Bench, Stopped
from steering.experiments.registry import Experiment, Progress, experiment_named, experiments, reproduce
from steering.experiments.result import Result

__all__ = ["Bench", "Experiment", "Progress", "Result", "Stopped", "experiment_named", "experiments", "reproduce"]
