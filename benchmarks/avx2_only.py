"""Hold XNNPACK to AVX2, as on a processor without AVX-512.

XNNPACK asks cpuinfo which instructions there are, once, before it makes its first kernel. cpuinfo
keeps the answers as bytes in a row, `cpuinfo_isa`. Those about AVX-512 and AVX-VNNI are cleared,
in this process alone, after it was checked that the row says what /proc/cpuinfo says.
"""

from __future__ import annotations

import ctypes
import pathlib

import ai_edge_litert
import ai_edge_litert.interpreter  # loads the library

from benchmarks import elf

_LIBRARY = "libpywrap_litert_common.so"
_INITIALIZE, _ISA = "cpuinfo_initialize", "cpuinfo_isa"

# As Linux calls them, in the order of cpuinfo; None is one that Linux does not tell (or tells under
# several names), or that is off on all machines we know.
_BEFORE = ("pni", "ssse3", "sse4_1", "sse4_2", None, None, "avx")
_AFTER = (
    *("fma", None, None, "f16c", "avx2", "avx512f", None, None, "avx512cd", "avx512dq", "avx512bw"),
    *("avx512vl", "avx512ifma", "avx512vbmi", "avx512_vbmi2", "avx512_bitalg", "avx512_vpopcntdq"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "avx512_vp2intersect"),
)
ORDER = (*_BEFORE, "avx_vnni", *_AFTER)


class NotHeld(Exception):
    """Why XNNPACK cannot be held to AVX2 here."""


def hold() -> None:
    """Clear the flags. Call it before the first interpreter is made.

    Raises:
        NotHeld: another library, processor or layout than expected.
    """
    flags = linux_flags()
    if "avx2" not in flags:
        raise NotHeld("expected a processor with AVX2, got one without")
    isa = _row()
    at = place(bytes(isa), flags)
    for number, name in enumerate(ORDER):
        if name is not None and (name.startswith("avx512") or name == "avx_vnni"):
            isa[at + number] = 0
    check()


def check() -> None:
    """Raise NotHeld unless cpuinfo says AVX2 and no AVX-512 now."""
    held = {f for f in linux_flags() if not f.startswith("avx512") and f != "avx_vnni"}
    place(bytes(_row()), held)


def linux_flags() -> set[str]:
    """What Linux says about the processor."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError as error:
        raise NotHeld(f"expected /proc/cpuinfo ({error})") from None
    for line in lines:
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    raise NotHeld("expected flags in /proc/cpuinfo, got none")


def place(row: bytes, flags: set[str]) -> int:
    """Where `ORDER` starts in cpuinfo's row.

    Raises:
        NotHeld: unless exactly one place agrees with the flags.
    """
    wanted = [None if name is None else name in flags for name in ORDER]
    fits = [
        at
        for at in range(len(row) - len(ORDER) + 1)
        if all(
            value <= 1 if w is None else value == w
            for value, w in zip(row[at : at + len(ORDER)], wanted, strict=True)
        )
    ]
    if len(fits) != 1:
        raise NotHeld(f"expected the flags at one place of {_ISA}, got {len(fits)}")
    return fits[0]


def _row() -> ctypes.Array:
    """cpuinfo's row in this process."""
    path = pathlib.Path(ai_edge_litert.__file__).with_name(_LIBRARY)
    try:
        found = elf.symbols(path, (_INITIALIZE, _ISA))
    except (OSError, ValueError) as error:
        raise NotHeld(str(error)) from None
    if len(found) != 2:
        raise NotHeld(f"expected {_INITIALIZE} and {_ISA} in {_LIBRARY}, got {list(found)}")
    base = _base()
    if not ctypes.CFUNCTYPE(ctypes.c_bool)(base + found[_INITIALIZE][0])():
        raise NotHeld("expected cpuinfo to know the processor")
    address, size = found[_ISA]
    return (ctypes.c_uint8 * size).from_address(base + address)


def _base() -> int:
    """Where the library was loaded: its first mapping, which starts at offset 0 of the file."""
    with open("/proc/self/maps") as maps:
        starts = [int(line.partition("-")[0], 16) for line in maps if _LIBRARY in line]
    if not starts:
        raise NotHeld(f"expected {_LIBRARY} in this process")
    return min(starts)
