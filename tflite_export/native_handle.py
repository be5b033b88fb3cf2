"""What the C library made, held from Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Self

_ERROR_BYTES = 256


class NativeHandle:
    """Calls functions of the C library on something that it made, and releases that in the end.

    Args:
        library: functions with their types.
        create: name of the function that makes it.
        arguments: of that function, before the place for the handle.
        release: name of the function that releases it.

    Raises:
        ValueError: what a function of the library says.
    """

    def __init__(self, library: ctypes.CDLL, create: str, *arguments, release: str):
        self._library, self._release = library, release
        self._handle: ctypes.c_void_p | None = ctypes.c_void_p()
        self._check(create, *arguments, ctypes.byref(self._handle))

    def close(self) -> None:
        """Release its memory."""
        handle, self._handle = self._handle, None
        if handle:
            getattr(self._library, self._release)(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def __del__(self):
        if getattr(self, "_handle", None):
            self.close()

    def _open(self) -> ctypes.c_void_p:
        if self._handle is None:
            raise ValueError(f"expected an open {type(self).__name__}, got one that is closed")
        return self._handle

    def _call(self, function: str, *arguments) -> None:
        self._check(function, self._open(), *arguments)

    def _repeatable(self, function: str, *arguments, kept: object) -> Callable[[], object]:
        """A function that calls one of the library on the same arguments, and does little else.

        It keeps this, and what is `kept`: what the arguments point to.
        """
        called, handle = getattr(self._library, function), self._open()
        message = ctypes.create_string_buffer(_ERROR_BYTES)

        def call() -> None:
            if called(handle, *arguments, message, _ERROR_BYTES):
                raise ValueError(message.value.decode(errors="replace"))

        call.kept = self, kept
        return call

    def _check(self, function: str, *arguments) -> None:
        message = ctypes.create_string_buffer(_ERROR_BYTES)
        if getattr(self._library, function)(*arguments, message, _ERROR_BYTES):
            raise ValueError(message.value.decode(errors="replace"))
