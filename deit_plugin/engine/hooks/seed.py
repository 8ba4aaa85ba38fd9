"""Seeding, so that a resumed training repeats all random draws."""

from mmengine.dist import all_reduce, broadcast_object_list, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmpretrain.registry import HOOKS

from ...datasets.seeded import batch_size_of, place_draws
from ...draws import set_iteration
from ..resuming import fit_place
from ..utils import unwrap


@HOOKS.register_module()
class SeedHook(Hook):
    """Makes each random draw a function of its place in the training.

    - What the pipeline of a sample draws from Python's, numpy's and torch's
      global generators is a function of (seed, epoch, position in the epoch),
      on whichever worker.
    - RandAugment, erasing, mixing and drop path, on each device, are a
      function of (seed, step, virtual process, place in its batch); what else
      an iteration draws, of (seed, step, first virtual process in it).
    - The order of the samples is one of (seed, epoch): the sampler's ``seed``
      is set to the runner's, also where the config gave it another.

    The seed is that of ``randomness``, or the one that mmengine drew; a
    resumed training has it from its checkpoint. A training that is killed and
    resumed, with any number of workers, then ends with the weights of one
    that was not: bitwise on a CPU with the same number of threads, and on a
    GPU as far as its kernels repeat their results. So does one that is
    validated more or less often.

    Where the gradients of several iterations are accumulated and an epoch
    ends among them, they are in the checkpoint as ``gradients``; mmengine
    forgets them, and says so still. With several processes these are their
    mean, taken at the end of the epoch; a checkpoint of another iteration
    holds those of the first process.

    It holds for any sampler that follows its ``seed`` and ``epoch`` (all of
    mmengine's and mmpretrain's) and for any dataset that has indices,
    wrappers included, but not for a transform with a generator of its own.
    ``IterBasedTrainLoop`` loads all that it skips when it resumes, so it
    holds there too; its epochs are passes through the data, and
    ``InfiniteSampler`` makes a single one.
    """

    priority = 'VERY_HIGH'  # what other hooks draw is then repeated as well

    def __init__(self):
        self.gradients = {}

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Fit the place to this run, and keep the gradients until training starts.

        Raises:
            ValueError: If the checkpoint was saved amid a step, and here others make one.
        """
        if runner._resume:
            fit_place(checkpoint, runner)
        self.gradients = checkpoint.get('gradients', {})

    def before_run(self, runner) -> None:
        """Forget where an earlier training stopped."""
        set_iteration(None)

    def before_train(self, runner) -> None:
        """Give each sample its place, and the gradients to the model.

        Raises:
            ValueError: If the dataloader has no batches of indices, or no batch at all.
        """
        # Not the seed of each process, which `diff_rank_seed` sets apart.
        seed = [runner.seed]
        broadcast_object_list(seed)
        (self.seed,) = seed
        runner.logger.info(f'All random draws follow the seed {self.seed}')
        self.virtual = place_draws(runner.train_dataloader, self.seed).virtual
        # Not where a training starts from `load_from`.
        if runner.iter > 0 and _accumulating(runner):
            for name, parameter in _parameters(runner):
                if name in self.gradients:
                    parameter.grad = self.gradients[name].to(parameter)
        self.gradients = {}

    def before_train_epoch(self, runner) -> None:
        """Tell the sampler which epoch it is."""
        loader, loop = runner.train_dataloader, runner.train_loop
        loader.batch_sampler.sampler.epoch = runner.epoch
        if hasattr(loop, 'dataloader_iterator'):
            # Its workers were started, with another seed, when the loop was.
            loader._iterator = None
            loop.dataloader_iterator = type(loop.dataloader_iterator)(loader)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Seed what this iteration draws."""
        set_iteration(self.virtual.at(self.seed, runner.iter, batch_size_of(runner.train_dataloader)))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """What comes between two iterations belongs to none."""
        set_iteration(None)

    def after_train_epoch(self, runner) -> None:
        """Share the gradients, so that one process can save those of all."""
        if get_world_size() > 1 and _accumulating(runner):
            for _, parameter in _parameters(runner):
                if parameter.grad is not None:
                    all_reduce(parameter.grad, 'mean')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Save gradients that no step has used yet."""
        if _accumulating(runner):
            checkpoint['gradients'] = {
                name: parameter.grad.cpu()
                for name, parameter in _parameters(runner)
                if parameter.grad is not None
            }


def _accumulating(runner) -> bool:
    wrapper = runner.optim_wrapper
    return isinstance(wrapper, OptimWrapper) and not wrapper.should_update()


def _parameters(runner):
    return unwrap(runner.model).named_parameters()
