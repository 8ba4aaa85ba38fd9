"""The libraries whose checkpoints are written."""

FORMATS = ('facebook', 'timm', 'transformers', 'mmpretrain')
