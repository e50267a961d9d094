"""
The contents that an archive should have, as eight bytes for each entry: enough to compare them.

The packer reports the files that it has read, and the verification the entries that it finds.
If the two differ, the place of the difference names the entry. An archive that is only looked at
(a restore's first reading) is remembered by the same means, without the contents.
"""

from array import array
from hashlib import blake2b

from .members import Member

DIGEST_BYTES = 8


class Witness:
    """The entries of one archive in their order, each as a digest of its metadata and content."""

    def __init__(self) -> None:
        self._digests = array("Q")
        self._open: blake2b | None = None

    def __len__(self) -> int:
        return len(self._digests) + (self._open is not None)

    def entry(self, member: Member) -> None:
        """The next entry. Its content, if there is any, is fed after this."""
        self._close()
        self._open = blake2b(_metadata(member), digest_size=DIGEST_BYTES)

    def feed(self, data: bytes) -> None:
        """The next piece of the content of the entry."""
        assert self._open is not None
        self._open.update(data)

    def finish(self) -> None:
        """There are no more entries."""
        self._close()

    def agrees(self, place: int, other: "Witness") -> bool:
        """Whether the entry at `place` is the same in both."""
        return self._digests[place : place + 1] == other._digests[place : place + 1]

    def last_agrees(self, other: "Witness") -> bool:
        """Whether the entry that was given last is the same in the other; it is complete with this."""
        self._close()
        return self.agrees(len(self._digests) - 1, other)

    def _close(self) -> None:
        if self._open is not None:
            self._digests.append(int.from_bytes(self._open.digest(), "big"))
            self._open = None


def _metadata(member: Member) -> bytes:
    metadata = (
        *(member.name.rstrip("/"), member.linkname, member.type, member.size, member.mode & 0o7777),
        *(member.mtime_ns, member.uid, member.gid, member.uname, member.gname, sorted(member.attributes.items())),
    )
    return repr(metadata).encode()
