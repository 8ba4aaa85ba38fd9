"""Read checkpoints of any library, as weights under this package's names.

``reading`` opens files as data (those of PyTorch by ``pytorch_file``, which has ``pickles`` look at them
first), ``downloads`` fetches them, ``names`` translates what the weights are
called, ``loaders`` makes mmengine's ``CheckpointLoader`` use these, ``atomic`` writes files.
"""
