"""mmpretrain's script of this file's name, where `mim run deit_plugin NAME` looks for one.

Those of the same content are links to this one.
"""

import os.path as osp

from deit_plugin.apis.tools import run_tool

run_tool(osp.splitext(osp.basename(__file__))[0])
