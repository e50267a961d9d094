"""What a restore will write, and everything that it refuses."""

import tarfile
import threading

from taskd import TaskLogger

from .failures import Failed, check
from .params import BackupParams
from .reader import check_length, safe_name
from .witness import Witness

LINKS_FOLLOWED_MAX = 40
NAMES_BYTES_MAX = 512 * 1_024**2
RATIO_MAX = 1_000
RATIO_FREE_BYTES = 4 * 1_024**3


class Plan:
    """
    What a restore will write, known before it writes anything.

    Every name is a path below the root that no other entry has; nothing is written through a
    link, for no entry lies below one; a hard link names a file that came before it; and a
    symbolic link does not lead out, even by way of others.
    """

    def __init__(self, params: BackupParams, archive_size: int, log: TaskLogger) -> None:
        self.files = 0
        self.size = 0
        self.skipped: set[str] = set()
        self._params = params
        self._ratio_bytes_max = max(RATIO_FREE_BYTES, RATIO_MAX * archive_size)
        self._log = log
        self._kinds: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._hard_links: dict[str, str] = {}
        self._names_bytes = 0
        self._seen = Witness()
        self._written = Witness()

    def add(self, member: tarfile.TarInfo) -> None:
        """Look at the next entry; raises `Failed` where it cannot be restored safely."""
        name = safe_name(member.name)
        self._seen.entry(member)
        self._check_kind(member)
        if name in self._kinds and not (name == "." and member.isdir()):
            raise Failed(f"The archive has {name!r} twice, and only one of them can be meant: it is refused.")
        self._kinds[name] = member.type
        self._names_bytes += len(name) + len(member.linkname)
        if member.issym():
            check_length(member.linkname)
            self._links[name] = member.linkname
        elif member.islnk():
            self._add_hard_link(name, member)
        self.files += not member.isdir()
        self.size += member.size if member.isreg() else 0
        self._check_limits()

    def finish(self, stop: threading.Event) -> None:
        """Look at what only all entries together can tell."""
        self._seen.finish()
        for name in self._kinds:
            check(stop)
            self._check_parents(name)
        for name, target in self._links.items():
            check(stop)
            if self._leads_out(name):
                self._refuse_link(name, target)
        for name, target in self._hard_links.items():
            if target in self.skipped:
                raise Failed(f"{name!r} is a hard link to {target!r}, which is left out: the archive is refused.")

    def confirm(self, member: tarfile.TarInfo) -> None:
        """The next entry at the second reading: it must be the one that was looked at."""
        self._written.entry(member)
        if not self._written.last_agrees(self._seen):
            raise Failed("The archive was changed while it was restored. Run again when nobody writes to it.")

    def _check_kind(self, member: tarfile.TarInfo) -> None:
        if safe_name(member.name) == "." and not member.isdir():
            raise Failed("The archive's root is not a directory: it is refused.")
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise Failed(
                f"The archive holds {member.name!r}, a device, a pipe or something unknown. Only files, "
                "directories and links are restored: it is refused."
            )

    def _add_hard_link(self, name: str, member: tarfile.TarInfo) -> None:
        target = safe_name(member.linkname)
        if self._kinds.get(target) not in (*tarfile.REGULAR_TYPES, tarfile.LNKTYPE) or target == name:
            raise Failed(f"{name!r} is a hard link to {member.linkname!r}, which is no file before it: it is refused.")
        self._hard_links[name] = target

    def _check_limits(self) -> None:
        if len(self._kinds) > self._params.files_max:
            raise Failed(f"The archive has more than {self._params.files_max:,} entries; raise files_max if it may.")
        if self._names_bytes > NAMES_BYTES_MAX:
            raise Failed(f"The names in the archive have more than {NAMES_BYTES_MAX:,} bytes: it is taken for a bomb.")
        if self.size > self._params.bytes_max:
            raise Failed(f"The archive holds more than {self._params.bytes_max:,} bytes; raise bytes_max if it may.")
        if self.size > self._ratio_bytes_max:
            raise Failed(f"The archive holds more than {RATIO_MAX:,} times its own size: it is taken for a bomb.")

    def _check_parents(self, name: str) -> None:
        parent = name
        while parent := parent.rpartition("/")[0]:
            kind = self._kinds.get(parent)
            if kind == tarfile.DIRTYPE:
                return  # what is above it is looked at for it
            if kind is not None:
                raise Failed(f"{name!r} would be written through {parent!r}, which is no directory: it is refused.")

    def _refuse_link(self, name: str, target: str) -> None:
        if not self._params.skip_links:
            raise Failed(
                f"{name!r} is a link to {target!r}, out of the destination: the archive is refused. "
                "Give skip_links=true to leave such links out."
            )
        self._log.warning(f"{name!r} is left out: it is a link to {target!r}, out of the destination", path=name)
        self.skipped.add(name)
        self.files -= 1

    def _leads_out(self, name: str) -> bool:
        """Follow a link as the system would, through the links of this archive."""
        at: list[str] = []
        ahead = name.split("/")[::-1]
        followed = 0
        while ahead:
            part = ahead.pop()
            if part == "..":
                if not at:
                    return True
                at.pop()
                continue
            if part in ("", "."):
                continue
            at.append(part)
            target = self._links.get("/".join(at))
            if target is not None:
                followed += 1
                if target.startswith("/"):
                    return True
                if followed > LINKS_FOLLOWED_MAX:
                    return False
                at.pop()
                ahead.extend(target.split("/")[::-1])
        return False
