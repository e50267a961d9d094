"""
The content of a file of zstd frames: all of it, or an error.

`zstandard`'s own stream reader does not report a frame that ends too early, and does not tell
whether a frame has a checksum. So each frame is decompressed by itself, and has to reach its end.
"""

from collections.abc import Callable

import zstandard

READ_BYTES = 1_048_576
ZEROS = bytes(READ_BYTES)
# What is decompressed at once: zstd makes at most 32,768 bytes of one, so 64 MiB.
PIECE_BYTES = 2_048
# As much as the header of a frame can have.
FRAME_HEADER_BYTES = 18
MAGIC = b"\x28\xb5\x2f\xfd"


class Frames:
    """Decompresses the bytes that `read` returns, from start to end."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        # Frames in which damage to the contents of files cannot be noticed.
        self.unchecked = 0
        self._read_file = read
        self._decompressor = zstandard.ZstdDecompressor()
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._packed, self._packed_at = b"", 0
        self._content, self._content_at = b"", 0

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, and fewer only at the end of the last frame."""
        parts = []
        while size:
            if self._content_at == len(self._content):
                self._content, self._content_at = self._next(), 0
                if not self._content:
                    break
            part = self._content[self._content_at : self._content_at + size]
            self._content_at += len(part)
            size -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _next(self) -> bytes:
        """Return some more content, or nothing at the end."""
        while piece := self._piece():
            if self._frame is None:
                self._begin(piece)
            assert self._frame is not None
            content = self._frame.decompress(piece)
            if self._frame.eof:
                self._packed_at -= len(self._frame.unused_data)
                self._frame = None
            if content:
                return content
        if self._frame is not None:
            raise EOFError("it ends within a zstd frame")
        return b""

    def _piece(self) -> bytes:
        if len(self._packed) - self._packed_at < FRAME_HEADER_BYTES:
            self._packed, self._packed_at = self._packed[self._packed_at :] + self._read_file(READ_BYTES), 0
        piece = self._packed[self._packed_at : self._packed_at + PIECE_BYTES]
        self._packed_at += len(piece)
        return piece

    def _begin(self, piece: bytes) -> None:
        parameters = zstandard.get_frame_parameters(piece[:FRAME_HEADER_BYTES])
        # Other frames that are read are skipped, and hold no content.
        if piece.startswith(MAGIC) and not parameters.has_checksum:
            self.unchecked += 1
        self._frame = self._decompressor.decompressobj()


def is_zeros(data: bytes) -> bool:
    """Whether there is nothing but zeros in a piece of up to `READ_BYTES`."""
    return data == ZEROS[: len(data)]
