"""The commands of ``deit-plugin``: their arguments, and what is called.

None of these modules imports torch before its command runs, so that ``--help`` answers at once.
"""

from . import attention, convert, digits, evaluate, label, predict

COMMANDS = (predict, attention, evaluate, convert, label, digits)
