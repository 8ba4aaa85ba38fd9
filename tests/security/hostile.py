"""Damaged and hostile checkpoints, made from a sound one."""

import gzip
import json
import os
import pickle
import struct
import zipfile

import h5py
import numpy as np
import safetensors.torch
import torch

NAME = 'backbone.layers.1.attn.qkv.weight'


class Call:
    """Is stored as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class State:
    """Is stored as a numpy array with a state of its own."""

    def __init__(self, *state):
        self.state = state

    def __reduce__(self):
        reconstruct, args = np.ndarray(0).__reduce__()[:2]
        return reconstruct, args, self.state


def flip(data, at):
    """Another value of one bit."""
    changed = bytearray(data)
    changed[at] ^= 0x10
    return bytes(changed)


def weights_at(path, value):
    """Where in a file the bytes of a weight are."""
    at = path.read_bytes().find(value.numpy().tobytes())
    assert at > 0
    return at + 5


def save(change=lambda checkpoint: None):
    """As a file of `torch.save`, after a change of the content."""

    def make(checkpoint, folder):
        changed = change(checkpoint)
        torch.save(checkpoint if changed is None else changed, folder / 'a.pth')
        return folder / 'a.pth'

    return make


def weight(value):
    """With another weight; a function makes it of the sound one."""

    def change(checkpoint):
        state = checkpoint['state_dict']
        state[NAME] = value(state[NAME])

    return save(change)


def poisoned(number):
    def change(value):
        value = value.clone()
        value[3, 2] = number
        return value

    return weight(change)


def meta(**entries):
    return save(lambda checkpoint: checkpoint['meta'].update(entries))


def raw(change, make=None):
    """The bytes of a file, changed."""

    def made(checkpoint, folder):
        path = (make or save())(checkpoint, folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return made


def flipped_pth(checkpoint, folder):
    path = save()(checkpoint, folder)
    path.write_bytes(flip(path.read_bytes(), weights_at(path, checkpoint['state_dict'][NAME])))
    return path


def safetensors_file(checkpoint, folder):
    from deit_plugin.checkpoints.reading import DIGEST, digest

    weights = dict(checkpoint['state_dict'])
    safetensors.torch.save_file(weights, folder / 'a.safetensors', {DIGEST: digest(weights)})
    return folder / 'a.safetensors'


def flipped_safetensors(checkpoint, folder):
    path = safetensors_file(checkpoint, folder)
    path.write_bytes(flip(path.read_bytes(), weights_at(path, checkpoint['state_dict'][NAME])))
    return path


def index(*names, more=lambda folder: None):
    def make(checkpoint, folder):
        path = folder / 'model.safetensors.index.json'
        more(folder)
        path.write_text(json.dumps(dict(weight_map={f'{NAME}{i}': name for i, name in enumerate(names)})))
        return path

    return make


def other_index(folder):
    names = dict(weight_map=dict(a='model.safetensors.index.json'))
    (folder / 'b.json').write_text(json.dumps(names))


def keras(fill):
    def make(checkpoint, folder):
        with h5py.File(folder / 'tf_model.h5', 'w') as file:
            fill(file.create_group('deit/model'), folder)
        return folder / 'tf_model.h5'

    return make


def external(group, folder):
    (folder / 'secret').write_bytes(bytes(64))
    group.create_dataset('a:0', (16,), 'f4', external=[(str(folder / 'secret'), 0, 64)])


def declared(group, folder):
    group.create_dataset('a:0', (10**10,), 'f4', chunks=(2**20,))


def numbers(value):
    return save(lambda checkpoint: checkpoint.update(log=value))


def shrink_storage(checkpoint, folder):
    """Its shape says more than the file holds."""
    return weight(lambda value: torch.zeros(1).expand_as(value))(checkpoint, folder)


# Literals to Python, and more to mmengine.
BASE = "_base_ = ['precious/evil.py']\ncustom_imports = dict(imports=['no_such'])\n"
VARIABLE = r"""x = ['{{$NOPE_:.*\\}}', ', __import__("os").system("touch was_run")] #']"""
SOUND = dict(pth=save(), safetensors=safetensors_file)
HOSTILE = dict(
    code=save(lambda c: c.update(x=Call(os.system, 'touch was_run'))),
    code_in_an_old_pickle=lambda c, folder: (
        (folder / 'a.pth').write_bytes(pickle.dumps(Call(os.system, 'touch was_run'), 2)) and folder / 'a.pth'
    ),
    attribute_of_a_type=save(lambda c: c.update(x=Call(getattr, np.ndarray, 'tofile'))),
    array_of_objects=numbers(State(1, (1,), np.dtype('O'), False, [None])),
    array_beyond_its_bytes=numbers(State(1, (1 << 20,), np.dtype('f8'), False, bytes(8))),
    array_of_negative_size=numbers(State(1, (-1,), np.dtype('f8'), False, bytes(8))),
    array_over_other_memory=numbers(Call(np.ndarray, (4,), 'f8', None, -(1 << 40))),
    config_with_code=meta(config="import os\nos.system('touch was_run')\nx = os.system('touch was_run')\n"),
    config_with_code_as_mmengine_writes_it=meta(cfg="import os\nos.system('touch was_run')\n"),
    config_with_a_base=meta(config=BASE),
    config_with_a_variable=meta(config=VARIABLE),
    config_that_is_no_text=meta(config=3, cfg=['a']),
    best_checkpoint_elsewhere=save(
        lambda c: c['message_hub']['runtime_info'].update(best_ckpt='precious/best_a.pth')
    ),
    best_checkpoint_is_a_folder=save(lambda c: c['message_hub']['runtime_info'].update(best_ckpt='precious')),
    kept_checkpoints_elsewhere=save(
        lambda c: c['message_hub']['runtime_info'].update(keep_ckpt_ids=['/../../precious/epoch_1'] * 9)
    ),
    index_that_names_itself=index('model.safetensors.index.json'),
    indices_that_name_each_other=index('b.json', 'b.json', more=other_index),
    index_that_names_a_lost_file=index('lost.safetensors'),
    index_that_names_another_folder=index('../precious/best_a.pth'),
    index_that_is_a_list=raw(lambda data: b'{"weight_map": ["a"]}'),
    hdf5_in_another_file=keras(external),
    hdf5_that_declares_40_gb=keras(declared),
    sparse=weight(lambda value: value.to_sparse()),
    without_values=weight(lambda value: value.to('meta')),
    stretched=shrink_storage,
    int8=weight(lambda value: value.to(torch.int8)),
    int64=weight(lambda value: value.long()),
    bool=weight(lambda value: value > 0),
    complex=weight(lambda value: value.to(torch.complex64)),
    nan=poisoned(float('nan')),
    infinity=poisoned(float('inf')),
    a_list_for_a_weight=weight(lambda value: value.tolist()),
    no_state_dict=save(lambda c: c.update(state_dict=None)),
    list_of_weights=save(lambda c: c.update(state_dict=list(c['state_dict'].values()))),
    integer_names=save(lambda c: c.update(state_dict=dict(enumerate(c['state_dict'].values())))),
    flipped_bit_pth=flipped_pth,
    flipped_bit_safetensors=flipped_safetensors,
    truncated_pth=raw(lambda data: data[: len(data) // 2]),
    truncated_safetensors=raw(lambda data: data[: len(data) // 2], safetensors_file),
    header_of_safetensors_too_long=raw(lambda data: struct.pack('<Q', 10**7) + data[8:], safetensors_file),
    empty=raw(lambda data: b''),
    random_bytes=raw(lambda data: np.random.default_rng(0).bytes(5000)),
    gzip=raw(gzip.compress),
    too_large_for_single=weight(lambda value: value.double() * 1e300),
    zip_bomb=lambda c, folder: bomb(c, folder),
    zip_without_weights=lambda c, folder: zip_of(folder / 'a.pth'),
    web_page=raw(lambda data: b'<!DOCTYPE html><title>404</title>'),
    git_lfs_pointer=raw(lambda data: b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n'),
)


def bomb(checkpoint, folder):
    """A gigabyte of zeros in a megabyte."""
    save()(checkpoint, folder)
    with zipfile.ZipFile(folder / 'a.pth', 'a', zipfile.ZIP_DEFLATED) as archive:
        with archive.open('a/data/zeros', 'w') as file:
            for _ in range(64):
                file.write(bytes(1 << 24))
    return folder / 'a.pth'


def zip_of(path):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.txt', 'text')
    return path
