"""Config, classes and architecture that a checkpoint records; the config is parsed, never run."""

import ast
import io
import keyword
import math
import tokenize
from collections.abc import Iterator, Mapping, Sequence

from mmengine.logging import print_log
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from .names import Weights
from .pos_embed import position_tokens

_LONGEST, _DEEPEST = 500_000, 50  # characters; brackets
_OPEN, _CLOSE = ('(', '[', '{'), (')', ']', '}')


def meta_of(checkpoint: Mapping) -> Mapping:
    """mmengine's ``meta`` of a checkpoint, or {}."""
    meta = checkpoint.get('meta')
    return meta if isinstance(meta, Mapping) else {}


def config_of(meta: Mapping) -> dict:
    """The config of the run, which mmengine stores as the text of a Python file.

    Returns:
        dict: The assignments whose values are literals or calls of ``dict`` with literals.
    """
    text = meta.get('cfg')
    if not isinstance(text, str) or len(text) > _LONGEST:
        return {}
    values = {}
    for line in _literal_assignments(text):
        try:
            (node,) = ast.parse(line).body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                values[node.targets[0].id] = _value(node.value)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            pass  # more than a literal
    return values


def _literal_assignments(text: str) -> Iterator[str]:
    """The assignments in a Python file that are of names, numbers, texts and brackets alone.

    Python's own parser can be made to recurse until the process dies.
    """
    line: list[tuple[int, str]] = []
    known, depth = True, 0
    try:
        for kind, word, *_ in tokenize.generate_tokens(io.StringIO(text).readline):
            if kind in (tokenize.NEWLINE, tokenize.ENDMARKER):
                if known and len(line) > 2 and line[1][1] == '=':
                    yield tokenize.untokenize(line)
                line, known, depth = [], True, 0
            elif kind not in (tokenize.COMMENT, tokenize.NL):
                depth += (word in _OPEN) - (word in _CLOSE)
                before = line[-1][1] if line else ''
                known = known and depth < _DEEPEST and _is_literal(kind, word, before)
                line.append((kind, word))
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return


def _is_literal(kind: int, word: str, before: str) -> bool:
    if kind == tokenize.OP:
        if word in ('-', *_OPEN):  # not after another value, but for `dict(`
            return before in ('=', ',', ':', *_OPEN) or word == '(' and before == 'dict'
        return word in ('=', ',', ':', *_CLOSE)
    if kind == tokenize.NAME:  # not after another value, as in `a if b else c`, and no `lambda: `
        is_code = keyword.iskeyword(word) and word not in ('True', 'False', 'None')
        return not is_code and before in ('', '=', ',', ':', *_OPEN)
    return (
        kind == tokenize.NUMBER or kind == tokenize.STRING and not word.lower().startswith(('f', 'rf', 'fr'))
    )


def without_code(checkpoint):
    """A checkpoint without ``meta['config']``, a Python file that mmengine would run when it resumes.

    mmengine 0.10.7 does not write it (its own is ``cfg``), and reads the numbers of GPUs in it alone.
    """
    meta = checkpoint['meta'] if isinstance(checkpoint, dict) and 'meta' in checkpoint else None
    if isinstance(meta, dict):
        meta.pop('config', None)
    return checkpoint


def _value(node: ast.expr):
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict':
        found = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
        for argument in node.args:  # keys that are no names stand in a literal
            found.update(_value(argument))
        return found
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(k): _value(v) for k, v in zip(node.keys, node.values) if k is not None}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    return ast.literal_eval(node)


def section(config: Mapping, *names: str) -> Mapping:
    """The part of a config under these keys, or {}."""
    for name in names:
        found = config.get(name)
        config = found if isinstance(found, Mapping) else {}
    return config


def recorded_classes(meta: Mapping, number: int | None) -> list[str]:
    """The names of so many classes that a run recorded, or []."""
    recorded = meta.get('dataset_meta')
    recorded = recorded if isinstance(recorded, Mapping) else {}
    classes = recorded['classes'] if 'classes' in recorded else meta.get('CLASSES')
    if not isinstance(classes, (list, tuple)) or len(classes) != number:
        return []
    return [str(name) for name in classes]


def classes_of(meta: Mapping, weights: Weights) -> list[str]:
    """The class names, ImageNet's for a head of 1000 that records none, or [] if unknown."""
    head = weights.get('head.layers.head.weight')
    number = 0 if head is None else len(head)
    classes = recorded_classes(meta, number)
    return list(IMAGENET_CATEGORIES) if not classes and number == len(IMAGENET_CATEGORIES) else classes


def architecture(weights: Weights, config: Mapping) -> dict:
    """The architecture, from the shapes of the weights.

    Args:
        weights (dict): Weights by mmpretrain's names.
        config (Mapping): Of the run that saved them, as far as it is recorded. Its ``img_size`` tells
            whether a model with LayerScale has positions for its tokens; else a square grid does.

    Returns:
        dict: ``embed_dims``, ``num_layers``, ``feedforward_channels``,
        ``patch_size`` (height, width), ``in_channels``, ``distilled``,
        ``num_patches``, ``qkv_bias``, ``layer_scale``, ``tokens_have_positions``
        (a DeiT III has LayerScale and positions for the patches alone)
        and ``num_classes`` (None without a head).
    """
    patch = weights['backbone.patch_embed.projection.weight']
    positions = weights['backbone.pos_embed'].shape[1]
    distilled = 'backbone.dist_token' in weights
    head = weights.get('head.layers.head.weight')
    layer_scale = 'backbone.layers.0.attn.gamma1.weight' in weights
    tokens = 2 if distilled else 1
    if layer_scale:
        tokens = _position_tokens(positions, tokens, _recorded_patches(config, patch.shape[2:]))
    return dict(
        embed_dims=patch.shape[0],
        num_layers=sum(
            name.startswith('backbone.layers.') and name.endswith('ln1.weight') for name in weights
        ),
        feedforward_channels=weights['backbone.layers.0.ffn.layers.0.0.weight'].shape[0],
        patch_size=tuple(patch.shape[2:]),
        in_channels=patch.shape[1],
        distilled=distilled,
        num_patches=positions - tokens,
        qkv_bias='backbone.layers.0.attn.qkv.bias' in weights,
        layer_scale=layer_scale,
        tokens_have_positions=tokens > 0,
        num_classes=None if head is None else head.shape[0],
    )


def _recorded_patches(config: Mapping, patch: Sequence[int]) -> int | None:
    """How many patches an image of the recorded size has."""
    size = section(config, 'model', 'backbone').get('img_size')
    match size if isinstance(size, list) else [size, size]:
        case [int(height), int(width)]:
            return height // patch[0] * (width // patch[1])
    return None


def _position_tokens(positions: int, tokens: int, patches: int | None) -> int:
    if patches is not None and positions - patches in (0, tokens):
        return positions - patches
    found = position_tokens(positions, tokens)
    if found and (sides := _sides(positions)):
        print_log(
            f'The {positions} positions are taken for {tokens} of tokens and a square of patches, as of a '
            f'DeiT with LayerScale. If it is a DeiT III of a grid such as {sides[0]} x {sides[1]}, only the '
            'checkpoint of its training, which records the img_size, tells',
            logger='current',
        )
    return found


def _sides(number: int) -> tuple[int, int] | None:
    """Height and width of the grid nearest to a square, if it has more than a row."""
    return next(((h, number // h) for h in range(math.isqrt(number), 1, -1) if number % h == 0), None)
