"""
How much an archive holds, and how much of it a restore takes.

The limits keep an archive of unknown origin from filling the disk or the memory. A backup measures its own
archives by them too, so that it can report what a restore has to be given.
"""

from collections.abc import Iterator
from dataclasses import dataclass

FILES_MAX = 2_000_000
BYTES_MAX = 1_024**4
RATIO_MAX = 1_000
# An archive that holds less is never refused for its ratio.
RATIO_FREE_BYTES = 4 * 1_024**3
# Of the names and the targets of links, on the average of all entries.
NAME_BYTES = 256


@dataclass(slots=True)
class Extent:
    """What an archive holds: entries and directories that they lie in, bytes of names, of files and of headers."""

    files: int = 0
    names_bytes: int = 0
    content_bytes: int = 0
    header_bytes: int = 0

    def exceeds(self, files_max: int, bytes_max: int, ratio_max: int, archive_bytes: int) -> Iterator[tuple[str, int]]:
        """Return the limits that are too low, each with the value that would be enough."""
        if (files := max(self.files, -(-self.names_bytes // NAME_BYTES))) > files_max:
            yield "files_max", files
        if self.content_bytes > bytes_max:
            yield "bytes_max", self.content_bytes
        unpacked = self.content_bytes + self.header_bytes
        if unpacked > max(RATIO_FREE_BYTES, ratio_max * archive_bytes):
            yield "ratio_max", -(-unpacked // max(1, archive_bytes))

    def needed(self, archive_bytes: int) -> str:
        """Return the parameters that a restore needs beyond the defaults, or nothing."""
        exceeded = self.exceeds(FILES_MAX, BYTES_MAX, RATIO_MAX, archive_bytes)
        return " and ".join(f"{name}={value}" for name, value in exceeded)
