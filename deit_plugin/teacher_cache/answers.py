"""A process's share of an epoch's answers, while the epoch runs."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.dist import all_gather

from ..draws import Iteration

NONE = -1  # in place of a class, where the last step has no image


class Answers:
    """The answers to a process's images of an epoch, as they are read or come in.

    Args:
        first_step (int): Of the epoch, counted from 0 over the whole training.
        processes (range): The virtual processes that this one carries.
        shape (tuple[int, ...]): Of the epoch's tensors: (steps, processes, images[, k]), of all processes.
        stored (Sequence[np.ndarray], optional): Of an epoch that is read, the classes and, with k, their
            probabilities. Defaults to None: they come in.
    """

    def __init__(
        self,
        first_step: int,
        processes: range,
        shape: tuple[int, ...],
        stored: Sequence[np.ndarray] | None = None,
    ):
        self.first_step, self.processes = first_step, processes
        self.shape = (shape[0], len(processes), *shape[2:])
        self.recorded = stored is not None
        self._missing = np.full(self.shape[:2], stored is None)
        self._tensors: list[torch.Tensor] = []
        if stored is not None:
            columns = slice(processes.start, processes.stop)
            classes, *probs = (array[:, columns] for array in stored)
            none = np.iinfo(classes.dtype).max
            classes = np.where(classes == none, NONE, classes.astype(np.int32))
            self._tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in (classes, *probs)]

    @property
    def whole(self) -> bool:
        """Whether all steps have come in."""
        return not self._missing.any()

    def _of(self, iteration: Iteration) -> tuple[int, slice]:
        step = iteration.step - self.first_step
        if not 0 <= step < self.shape[0]:
            raise IndexError(
                f'The step {iteration.step} is not in the epoch, which began at {self.first_step}'
            )
        start = iteration.processes.start - self.processes.start
        return step, slice(start, start + len(iteration.processes))

    def read(self, iteration: Iteration, number: int, device: torch.device) -> tuple[torch.Tensor, ...]:
        """Those to the images of an iteration.

        Args:
            iteration (Iteration): Of the epoch.
            number (int): Images, B.
            device (torch.device): Where to put them.

        Returns:
            tuple[torch.Tensor, ...]: Classes (B, ), int64; or (B, k), and their probabilities, float32.

        Raises:
            IndexError: If the iteration is of another epoch.
            ValueError: If there are fewer answers than images.
        """
        step, columns = self._of(iteration)
        classes, *probs = (tensor[step, columns].flatten(0, 1)[:number] for tensor in self._tensors)
        if len(classes) < number or (classes == NONE).any():
            raise ValueError(f'The step {iteration.step} has fewer recorded answers than the {number} images')
        found = [classes.long(), *(p.float() for p in probs)]
        return tuple(tensor.to(device, non_blocking=True) for tensor in found)

    def write(self, iteration: Iteration, *tensors: torch.Tensor) -> None:
        """Take those to the images of an iteration; they stay on their device, and nothing waits.

        Args:
            iteration (Iteration): Of the epoch.
            *tensors (torch.Tensor): As :meth:`read` gives them.

        Raises:
            IndexError: If the iteration is of another epoch.
        """
        step, columns = self._of(iteration)
        if not self._tensors:
            types = (torch.int32, torch.float16)
            self._tensors = [
                torch.full(self.shape, NONE, dtype=dtype, device=tensor.device)
                for tensor, dtype in zip(tensors, types)
            ]
        for whole, tensor in zip(self._tensors, tensors):
            whole[step, columns].flatten(0, 1)[: len(tensor)] = tensor
        self._missing[step, columns] = False

    def gathered(self, num_classes: int) -> list[np.ndarray]:
        """Those of all processes, as they are stored; to be called in each process."""
        found = []
        for tensor in self._tensors:
            # As bytes, which all ways between processes can send.
            parts = all_gather(tensor.cpu().view(torch.uint8))
            found.append(torch.cat(parts, dim=1).view(tensor.dtype).numpy())
        classes, *probs = found
        kind = np.uint16 if num_classes <= np.iinfo(np.uint16).max else np.int32
        stored = np.where(classes == NONE, np.iinfo(kind).max, classes).astype(kind)
        return [stored, *(p.clip(min=0) for p in probs)]
