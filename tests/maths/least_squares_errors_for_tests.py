"""Squared errors of two planes, and the least there can be."""

import numpy as np


def squared_error(x, scales):
    """Of the nearest levels, in float64, for each row."""
    a, v = np.abs(x.astype(np.float64)), np.float64(scales)
    ends = [v[:, 0] - v[:, 1], v[:, 0] + v[:, 1]] if v.shape[1] == 2 else [0 * v[:, 0], 2 * v[:, 0]]
    return np.min([(a - end[:, None]) ** 2 for end in ends], axis=0).sum(axis=1)


def least_error(x, scheme):
    """Of all splits of each row, tried one by one in float64."""
    a = np.sort(np.abs(x.astype(np.float64)), axis=1)
    size = a.shape[1]
    below, n = np.cumsum(a, axis=1), np.arange(1, size + 1)
    above = below[:, -1:] - below
    high = above**2 / np.maximum(size - n, 1)
    if scheme == "lst":
        # Also the split of which nothing is below.
        gain = np.maximum(high.max(axis=1), below[:, -1] ** 2 / size)
        return (a**2).sum(axis=1) - gain
    center = a.mean(axis=1, keepdims=True)
    moved = np.cumsum(a - center, axis=1)[:, :-1]
    gain = moved**2 / n[:-1] + moved**2 / (size - n[:-1])
    return ((a - center) ** 2).sum(axis=1) - gain.max(axis=1)
