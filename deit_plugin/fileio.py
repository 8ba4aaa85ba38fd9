"""Files that are written whole or not at all."""
import os
import os.path as osp

from mmengine.fileio import LocalBackend, register_backend

PARTIAL = '.part'  # what a killed write leaves, until the next run


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """Local files that are written whole or not at all."""

    def put(self, obj: bytes, filepath: str) -> None:
        """Write bytes beside the file, then put them in its place."""
        filepath = os.fspath(filepath)
        os.makedirs(osp.dirname(osp.abspath(filepath)), exist_ok=True)
        partial = filepath + PARTIAL
        try:
            with open(partial, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, filepath)
        finally:
            if osp.exists(partial):
                os.remove(partial)
