"""Disk space."""

import os.path as osp
import shutil


def free_bytes(folder: str) -> int:
    """Free bytes on the disk where a folder is, or will be."""
    folder = osp.abspath(folder)
    while not osp.isdir(folder):
        folder = osp.dirname(folder)
    return shutil.disk_usage(folder).free
