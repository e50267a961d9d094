"""
The content of a file of zstd frames: all of it, or an error.

The decompressor ends without a word if a frame is cut, even before its checksum, and does not report
whether a frame has one. So `Frames` follows the blocks of each frame beside it (RFC 8878, section 3).
"""

from collections.abc import Callable
from typing import IO, cast

import zstandard

READ_BYTES = 1_048_576
ZEROS = bytes(READ_BYTES)

MAGIC = 0xFD2F_B528
SKIPPABLE_MAGIC, SKIPPABLE_MASK = 0x184D_2A50, 0xFFFF_FFF0
MAGIC_BYTES, BLOCK_HEADER_BYTES, CHECKSUM_BYTES = 4, 3, 4
RLE_BLOCK = 1
# By two bits of the byte after the magic number.
CONTENT_SIZE_BYTES = (0, 2, 4, 8)
DICTIONARY_BYTES = (0, 1, 2, 4)


class Frames:
    """Decompresses the bytes that `read` returns, from start to end."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.blocks = Blocks()
        self._read_file = read
        self._content = zstandard.ZstdDecompressor().stream_reader(
            cast(IO[bytes], _Readable(self._read)), read_size=READ_BYTES, read_across_frames=True
        )

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, and fewer only at the end of the last frame."""
        content = self._content.read(size)
        if len(content) < size and not self.blocks.complete:
            raise EOFError("it ends within a zstd frame")
        return content

    def _read(self, size: int) -> bytes:
        data = self._read_file(size)
        self.blocks.follow(data)
        return data


class Blocks:
    """Follows frames from block to block, without decompressing them."""

    def __init__(self) -> None:
        # Frames in which damage to the contents of files cannot be noticed.
        self.unchecked = 0
        self._rest = b""
        self._ahead = 0
        self._in_frame = False
        self._checksum_bytes = 0

    @property
    def complete(self) -> bool:
        """Whether the bytes so far end with the end of a frame, or are none."""
        return not (self._in_frame or self._rest or self._ahead)

    def follow(self, data: bytes) -> None:
        """Go on with the next bytes."""
        data, at = self._rest + data, self._ahead
        while at < len(data) and (length := self._length(data, at)):
            at += length
        self._rest, self._ahead = data[at:], max(0, at - len(data))

    def _length(self, data: bytes, at: int) -> int:
        """Return the length of the part that begins here, or 0 if more bytes are needed to know."""
        if self._in_frame:
            return self._block_length(data, at)
        if len(data) - at < MAGIC_BYTES + 4:  # no frame is shorter
            return 0
        magic = int.from_bytes(data[at : at + MAGIC_BYTES], "little")
        if magic & SKIPPABLE_MASK == SKIPPABLE_MAGIC:
            return MAGIC_BYTES + 4 + int.from_bytes(data[at + MAGIC_BYTES : at + MAGIC_BYTES + 4], "little")
        if magic != MAGIC:
            raise zstandard.ZstdError("something that is no zstd frame follows")
        self._in_frame = True
        return self._header_length(data[at + MAGIC_BYTES])

    def _header_length(self, descriptor: int) -> int:
        single_segment, has_checksum = descriptor & 0x20, descriptor & 0x04
        content_size_bytes = CONTENT_SIZE_BYTES[descriptor >> 6]
        if single_segment:  # then there is no window, and a size of at least one byte
            content_size_bytes = max(content_size_bytes, 1) - 1
        self._checksum_bytes = CHECKSUM_BYTES if has_checksum else 0
        self.unchecked += not has_checksum
        return MAGIC_BYTES + 1 + 1 + DICTIONARY_BYTES[descriptor & 3] + content_size_bytes

    def _block_length(self, data: bytes, at: int) -> int:
        if len(data) - at < BLOCK_HEADER_BYTES:
            return 0
        header = int.from_bytes(data[at : at + BLOCK_HEADER_BYTES], "little")
        is_last, kind, size = header & 1, header >> 1 & 3, header >> 3
        self._in_frame = not is_last
        length = BLOCK_HEADER_BYTES + (1 if kind == RLE_BLOCK else size)
        return length + self._checksum_bytes if is_last else length


class _Readable:
    """A readable made of a function."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


def is_zeros(data: bytes) -> bool:
    """Whether there is nothing but zeros in a piece of up to `READ_BYTES`."""
    return data == ZEROS[: len(data)]
