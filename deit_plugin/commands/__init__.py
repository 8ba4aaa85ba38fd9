"""The commands of ``deit-plugin``: their arguments, and what is called.

None of these modules imports torch before its command runs, so that ``--help`` answers at once.
"""

from . import attention, browse, cache, convert, digits, evaluate, export, label, predict, run

COMMANDS = (predict, attention, browse, evaluate, convert, export, label, cache, digits, run)
