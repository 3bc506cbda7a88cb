"""Checkpoints with orbax: the training state, and the text of the experiment that made it."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp


class Checkpoints:
    """The last two checkpoints of one run, saved in the background."""

    def __init__(self, directory: pathlib.Path, experiment_text: str):
        """Opens or creates `directory`."""
        self._text = experiment_text
        self._manager = ocp.CheckpointManager(
            directory.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2)
        )

    def save(self, step: int, state: Any) -> None:
        """Starts to save the state; does nothing when this step is saved already."""
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            experiment=ocp.args.JsonSave({"expression": self._text}),
        )
        self._manager.save(step, args=args)

    def restore(self, abstract: Any) -> tuple[int, Any] | None:
        """The newest step and its state, or None without a checkpoint.

        Args:
          abstract: the state as jax.ShapeDtypeStruct leaves, with shardings.

        Raises ValueError when the checkpoint belongs to another experiment.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        saved = self._manager.restore(
            step, args=ocp.args.Composite(experiment=ocp.args.JsonRestore())
        )
        if saved["experiment"]["expression"] != self._text:
            raise ValueError(
                f"{self._manager.directory}: holds checkpoints of another experiment; "
                "compare experiment.txt, or choose another workdir"
            )
        found = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        )
        return step, found["state"]

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def abstract(state: Any) -> Any:
    """The shapes, dtypes and shardings of a state."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), state
    )
