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
from mmengine.logging import HistoryBuffer

from deit_plugin.checkpoints.reading import DIGEST, digest

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


def unfolding():
    """Small in the file, 2 ** 60 values for whoever goes through it."""
    value = [0]
    for _ in range(60):
        value = [value, value]
    return value


def deep(checkpoint, folder):
    """Lists within lists, written by hand: ``pickle`` itself cannot write so many."""
    pickled = b'\x80\x02}X\x01\x00\x00\x00x' + b']' * 20_000 + b'a' * 19_999 + b's.'
    return archive(folder / 'a.pth', {'a/data.pkl': pickled, 'a/version': b'3'})


def archive(path, parts):
    with zipfile.ZipFile(path, 'w') as file:
        for name, data in parts.items():
            file.writestr(name, data)
    return path


def parts_of(checkpoint, folder):
    with zipfile.ZipFile(save()(checkpoint, folder)) as file:
        return {name: file.read(name) for name in file.namelist()}


def rezipped(change):
    """With other parts, whose checksums are right."""

    def make(checkpoint, folder):
        parts = parts_of(checkpoint, folder)
        change(parts)
        return archive(folder / 'a.pth', parts)

    return make


def number_of_billions(parts):
    """By which what is stored last could be named again; Python's C reader makes a list as long."""
    parts['a/data.pkl'] = parts['a/data.pkl'][:-1] + b'r\xff\xff\xff\x7f.'


def shorten(parts):
    name = max((n for n in parts if '/data/' in n), key=lambda n: len(parts[n]))
    parts[name] = parts[name][:8]


def signed(checkpoint):
    checkpoint['meta'][DIGEST] = digest(checkpoint['state_dict'])


def exchanged(checkpoint):
    """Another weight; the checksum of the zip is right, that of the weights is not."""
    signed(checkpoint)
    checkpoint['state_dict'][NAME] = checkpoint['state_dict'][NAME] * 1.01


def two_archives(checkpoint, folder):
    """One for who reads from the start, one for who reads from the end."""
    first = save()(checkpoint, folder).read_bytes()
    return raw(lambda data: first + data, poisoned(1.0))(checkpoint, folder)


def part_twice(checkpoint, folder):
    path = save()(checkpoint, folder)
    with zipfile.ZipFile(path, 'a') as file:
        file.writestr('A/DATA.PKL', b'N.')
    return path


def old_format(change):
    """As before torch 1.6."""

    def make(checkpoint, folder):
        path = folder / 'a.pth'
        torch.save(checkpoint, path, _use_new_zipfile_serialization=False)
        path.write_bytes(change(path.read_bytes(), checkpoint))
        return path

    return make


def without_keys(data, checkpoint):
    """The storages are declared, and stay as the memory was."""
    at = data.rfind(b'\x80\x02]', 0, len(data))
    return data[:at] + pickle.dumps([], 2)


def twice_in_shards(checkpoint, folder):
    path = index('a.safetensors', 'b.safetensors')(checkpoint, folder)
    for name in 'ab':
        weights = dict(checkpoint['state_dict'], **{f'{NAME}{i}': torch.ones(1) for i in (0, 1)})
        safetensors.torch.save_file(weights, folder / f'{name}.safetensors')
    return path


def average(value):
    """A moving average beside the weights."""

    def change(checkpoint):
        state = {f'module.{k}': v.clone() for k, v in checkpoint['state_dict'].items()}
        state[f'module.{NAME}'] = value(state[f'module.{NAME}'])
        checkpoint['ema_state_dict'] = dict(state, steps=torch.tensor(0))

    return save(change)


def optimizer(**entries):
    def change(checkpoint):
        state = checkpoint['optimizer']['state']
        state[max(state)].update(entries)

    return save(change)


def groups(**entries):
    return save(lambda checkpoint: checkpoint['optimizer']['param_groups'][0].update(entries))


def schedule(**entries):
    return save(lambda checkpoint: checkpoint.update(param_schedulers=[entries]))


def logs(value):
    def change(checkpoint):
        log = HistoryBuffer()
        log.__dict__.update(value)
        checkpoint['message_hub']['log_scalars']['train/loss'] = log

    return save(change)


def integer_head(checkpoint):
    for name in checkpoint['state_dict']:
        if name.startswith('head.'):
            checkpoint['state_dict'][name] = checkpoint['state_dict'][name].long()


# Literals to Python, and more to mmengine.
BASE = "_base_ = ['precious/evil.py']\ncustom_imports = dict(imports=['no_such'])\n"
VARIABLE = r"""x = ['{{$NOPE_:.*\\}}', ', __import__("os").system("touch was_run")] #']"""
SOUND = dict(pth=save(), signed=save(signed), safetensors=safetensors_file)
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
    two_archives_in_one=two_archives,
    part_twice=part_twice,
    storage_shorter_than_it_says=rezipped(shorten),
    other_weights_than_were_signed=save(exchanged),
    memory_that_nothing_fills=weight(lambda value: Call(torch.Tensor, *value.shape)),
    old_file_without_its_storages=old_format(without_keys),
    old_file_cut_off=old_format(lambda data, checkpoint: data[:-10]),
    view_beyond_its_storage=weight(
        lambda value: Call(
            torch._utils._rebuild_tensor_v2, torch.storage.TypedStorage(8), 0, (10**9,), (1,), False, None
        )
    ),
    bytearray_of_a_gigabyte=numbers(Call(bytearray, 10**9)),
    storage_of_a_gigabyte=numbers(Call(torch.FloatStorage, 10**9)),
    lists_that_hold_each_other=numbers(unfolding()),
    lists_too_deep=deep,
    number_of_billions=rezipped(number_of_billions),
    names_that_hold_each_other=save(lambda c: c['state_dict'].update({NAME: unfolding()})),
    method_of_a_log_exchanged=numbers(
        Call(torch._tensor._rebuild_from_type_v2, getattr, HistoryBuffer, (HistoryBuffer, 'mean'), {})
    ),
    log_of_a_type=numbers(Call(HistoryBuffer, [1.0] * 3, [1] * 3)),
    twice_in_shards=twice_in_shards,
    integers_in_a_head=save(integer_head),
    average_of_nan=average(lambda value: value * float('nan')),
    average_of_another_shape=average(lambda value: value[:1]),
    average_is_a_list=save(lambda c: c.update(ema_state_dict=[1])),
    no_place_in_a_training=save(lambda c: c.pop('meta') and None),
    no_logs=save(lambda c: c.pop('message_hub') and None),
    epoch_is_a_word=meta(epoch='last'),
    iteration_is_negative=meta(iter=-1),
    seed_too_large=meta(seed=2**40),
    log_is_no_array=logs(dict(_log_history=3)),
    log_has_no_methods=logs(dict(_statistics_methods=dict(mean=3))),
    best_score_is_a_word=save(lambda c: c['message_hub']['runtime_info'].update(best_score='good')),
    best_score_is_nan=save(lambda c: c['message_hub']['runtime_info'].update(best_score=float('nan'))),
    optimizer_is_a_list=save(lambda c: c.update(optimizer=[1])),
    optimizer_of_nan=optimizer(exp_avg=torch.tensor(float('nan'))),
    optimizer_of_another_shape=optimizer(exp_avg=torch.ones(3, 5)),
    optimizer_of_another_model=save(lambda c: c['optimizer']['state'].update({10**6: {}})),
    optimizer_without_a_rate=groups(lr='fast'),
    optimizer_with_a_rate_of_nan=groups(lr=float('nan')),
    optimizer_with_other_groups=save(lambda c: c['optimizer']['param_groups'].append({})),
    schedule_with_a_method=schedule(step=3),
    schedule_is_a_word=save(lambda c: c.update(param_schedulers='cosine')),
    gradients_of_nan=save(lambda c: c.update(gradients={NAME: torch.tensor(float('nan'))})),
    web_page=raw(lambda data: b'<!DOCTYPE html><title>404</title>'),
    git_lfs_pointer=raw(lambda data: b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n'),
)


def bomb(checkpoint, folder):
    """A quarter of a gigabyte of zeros in a quarter of a megabyte."""
    save()(checkpoint, folder)
    with zipfile.ZipFile(folder / 'a.pth', 'a', zipfile.ZIP_DEFLATED) as archive:
        with archive.open('a/data/zeros', 'w') as file:
            for _ in range(16):
                file.write(bytes(1 << 24))
    return folder / 'a.pth'


def zip_of(path):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.txt', 'text')
    return path
