"""mmpretrain's script, where `mim test deit_plugin CONFIG` looks for one."""

import os.path as osp
import runpy
from importlib.util import find_spec

package = osp.dirname(find_spec('mmpretrain').origin)
runpy.run_path(osp.join(package, '.mim', 'tools', 'test.py'), run_name='__main__')
