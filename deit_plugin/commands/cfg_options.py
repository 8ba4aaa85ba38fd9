"""The option that changes a config."""

import argparse


def add_cfg_options(parser, example: str):
    """``--cfg-options``, as mmpretrain's scripts have it: a dict, or None without it.

    Args:
        parser (argparse.ArgumentParser): Of the command.
        example (str): ``KEY=VALUE``, for the help.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_CfgOptions,
        metavar='KEY=VALUE',
        help=f'changes of the config, such as {example}',
    )


class _CfgOptions(argparse.Action):
    """mmengine's ``DictAction``, which is imported when it is needed."""

    def __call__(self, parser, namespace, values, option_string=None):
        from mmengine.config import DictAction

        for value in values:
            try:
                DictAction(self.option_strings, self.dest)(parser, namespace, [value], option_string)
            except (ValueError, AssertionError):  # no `=`, or a bracket without its other one
                raise argparse.ArgumentError(self, f'{value!r} is not KEY=VALUE') from None
