"""Where Hydra looks for plugins: the sweeper of segtrain's commands. Imports nothing heavy."""

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SegtrainSweeper(Sweeper):
    """Every combination of the values given, or a search with Optuna (`sweep=optuna`)."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        """Runs all jobs; ends the process with their exit code where it is not 0."""
        from segtrain.sweep.sweeping import sweep

        sweep(self.hydra_context, self.task_function, self.config, arguments)
