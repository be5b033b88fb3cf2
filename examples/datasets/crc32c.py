"""CRC-32C, the checksum of TFRecord files, in NumPy.

A CRC without its initial value is linear: crc(a + b) = crc(a + zeros) ^ crc(b). So each byte of a
block is looked up in a table of its place, all at once, and blocks are summed in pairs, then pairs
of pairs.
"""

from __future__ import annotations

import functools

import numpy as np

POLYNOMIAL = 0x82F63B78
"""Castagnoli's, with reflected bits."""

BLOCK = 64
"""Bytes; up to which a loop is faster, too."""


def crc32c(data: bytes) -> int:
    """The CRC-32C of `data`."""
    if len(data) <= BLOCK:
        return _in_a_loop(data)
    front = -len(data) % BLOCK  # zeros in front change nothing
    message = np.zeros(front + len(data), np.uint8)
    message[front:] = np.frombuffer(data, np.uint8)
    message[front : front + 4] ^= 0xFF  # the initial value of all ones
    looked_up = _of_block()[np.arange(BLOCK), message.reshape(-1, BLOCK)]
    sums = np.bitwise_xor.reduce(looked_up, 1)
    level = 0
    while len(sums) > 1:
        if len(sums) % 2:
            sums = np.concatenate([np.zeros(1, np.uint32), sums])
        sums = _followed_by_zeros(_shift(level), sums[0::2]) ^ sums[1::2]
        level += 1
    return int(sums[0]) ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C as TFRecord files store it: turned by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _in_a_loop(data: bytes) -> int:
    table = _table_of_numbers()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@functools.cache
def _of_byte() -> np.ndarray:
    """What one byte adds: (256,) uint32."""
    sums = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        sums = np.where(sums & 1, sums >> 1 ^ np.uint32(POLYNOMIAL), sums >> 1)
    return sums


@functools.cache
def _table_of_numbers() -> tuple[int, ...]:
    return tuple(_of_byte().tolist())


@functools.cache
def _of_block() -> np.ndarray:
    """What each byte of a block adds, by its place: (BLOCK, 256) uint32."""
    tables = [_of_byte()]
    for _ in range(BLOCK - 1):
        tables.append(_followed_by_zero(tables[-1]))
    return np.stack(tables[::-1])


@functools.cache
def _shift(level: int) -> np.ndarray:
    """What 2**level blocks of zeros behind make of each byte of a sum: (4, 256) uint32."""
    if level:
        half = _shift(level - 1)
        return _followed_by_zeros(half, half)
    sums = np.arange(256, dtype=np.uint32) << np.arange(4, dtype=np.uint32)[:, None] * 8
    for _ in range(BLOCK):
        sums = _followed_by_zero(sums)
    return sums


def _followed_by_zero(sums: np.ndarray) -> np.ndarray:
    return _of_byte()[sums & 0xFF] ^ sums >> 8


def _followed_by_zeros(shift: np.ndarray, sums: np.ndarray) -> np.ndarray:
    moved = shift[0][sums & 0xFF]
    for place in (1, 2, 3):
        moved ^= shift[place][sums >> 8 * place & 0xFF]
    return moved
