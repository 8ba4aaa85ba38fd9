"""Pickles written by hand, as no pickler would, in a file of ``torch.save``."""

import pickle
import struct
import zipfile

START = b'\x80\x02'


def text(value):
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def number(value):
    data = pickle.encode_long(value)
    return b'\x8a' + bytes([len(data)]) + data


def named(module, name):
    """A global."""
    return f'c{module}\n{name}\n'.encode()


def call(module, name, *args):
    """A call of a global."""
    return named(module, name) + b'(' + b''.join(args) + b'tR'


def pair(one, other):
    return one + other + b'\x86'


def doubled(times):
    """Tuples that hold each other, of 2 ** times values."""
    return b'K\x01' + b''.join(b'q%ch%c\x86' % (i, i) for i in range(times))


def storage(key='0', numel=4, kind='FloatStorage', place='cpu'):
    return b'(' + text('storage') + named('torch', kind) + text(key) + text(place) + number(numel) + b'tQ'


def tensor(of, offset, size, stride):
    """A view of a storage."""
    sides = [b'(' + b''.join(map(number, item)) + b't' for item in (size, stride)]
    hooks = b'\x89' + call('collections', 'OrderedDict')
    return call('torch._utils', '_rebuild_tensor_v2', of, number(offset), *sides, hooks)


def write(path, pickled, change=lambda archive: None, **storages):
    """A file with this pickle and the bytes of storages."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', pickled)
        archive.writestr('a/version', '3\n')
        for key, data in storages.items():
            archive.writestr(f'a/data/{key.removeprefix("_")}', data)
        change(archive)
    return str(path)
