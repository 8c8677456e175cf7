"""Sums of a pprof profile, read without the help of the program that wrote it."""

import gzip


def varint(data, at):
    """The number at `at` and the position behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data, at, end):
    """(number, value) of the fields of a message: a number, or the bounds of a nested message."""
    while at < end:
        tag, at = varint(data, at)
        value, at = varint(data, at)
        if tag & 7 == 0:
            yield tag >> 3, value
        elif tag & 7 == 2:
            yield tag >> 3, (at, at + value)
            at += value
        else:
            raise ValueError(f"wire type {tag & 7} at {at}")


def totals(path):
    """(objects, bytes) over all samples: the first two values of each."""
    data = gzip.decompress(path.read_bytes())
    total = [0, 0]
    for number, sample in fields(data, 0, len(data)):
        if number != 2:
            continue
        values = []
        for inner, value in fields(data, *sample):
            if inner != 2:
                continue
            if isinstance(value, int):
                values.append(value)
                continue
            at, end = value
            while at < end:
                number, at = varint(data, at)
                values.append(number)
        total = [sum(pair) for pair in zip(total, values)]
    return tuple(total)
