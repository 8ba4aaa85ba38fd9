"""What one process does for all."""

from collections.abc import Callable

from mmengine.dist import broadcast_object_list, is_main_process
from torch.utils.data import get_worker_info


def of_the_first(function: Callable):
    """What a function returns in the first process, in all of them. So do they raise what it raises.

    All must call this. In a worker of a DataLoader, which is alone, it is a plain call.
    """
    if get_worker_info() is not None:
        return function()
    done: list = [None]
    if is_main_process():
        try:
            done = [function()]
        except Exception as error:  # else the others would wait
            done = [error]
    broadcast_object_list(done)
    if isinstance(done[0], Exception):
        raise done[0]
    return done[0]
