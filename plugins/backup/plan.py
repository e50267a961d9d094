"""What a restore will write, and everything that it refuses."""

import tarfile
import threading

from taskd import PluginError, TaskLogger

from .extent import Extent
from .failures import check, shown
from .members import Member
from .params import BackupParams
from .places import ROOT, Places
from .witness import Witness

LINKS_FOLLOWED_MAX = 40
# Linux takes no longer target of a link.
TARGET_CHARACTERS_MAX = 4_095


class Plan:
    """
    What a restore will write, known before it writes anything.

    Every name is a path below the root that no other entry has; nothing is written through a
    link, because no entry lies below one; a hard link names a file that came before it. Symbolic
    links may lead out: they are made when everything else is written, and never followed.
    """

    def __init__(self, params: BackupParams, archive_size: int, log: TaskLogger) -> None:
        self.files = 0
        self.size = 0
        # Bytes of the disk that the contents take: zeros become holes.
        self.room = 0
        self.places = Places()
        self.skipped: set[int] = set()
        # The targets of symbolic links. A hard link to one is restored as another one.
        self.links: dict[int, str] = {}
        # The files of hard links.
        self.hard_links: dict[int, int] = {}
        self._header_bytes = 0
        self._params = params
        self._archive_size = archive_size
        self._log = log
        self._targets_bytes = 0
        self._special_modes = 0
        self._seen = Witness()
        self._written = Witness()

    def add(self, member: Member) -> None:
        """Look at the next entry; raises `PluginError` if it cannot be restored safely."""
        place = self.places.place(member.name)
        self._seen.entry(member)
        self._check_kind(member, place)
        if member.issym():
            self._add_link(place, member.linkname)
        elif member.islnk():
            self._add_hard_link(place, member)
        self.places.kinds[place] = tarfile.SYMTYPE if place in self.links else _kind(member)
        self.files += not member.isdir()
        self.size += member.size if member.isreg() else 0
        self._header_bytes += member.header_bytes
        self._special_modes += bool(member.mode & 0o7000) and (member.isreg() or member.isdir())
        self._check_limits()

    def finish(self, stop: threading.Event) -> None:
        """Look at the links: where they lead depends on all entries together."""
        self._seen.finish()
        out = []
        for place in self.links:
            check(stop)
            if self._leads_out(place):
                out.append(place)
        if out:
            self._report_links(out)
        if count := self._special_modes:
            entries = "1 entry has" if count == 1 else f"{count:,} entries have"
            self._log.warning(f"setuid, setgid and sticky bits are not restored; {entries} them")

    def confirm(self, member: Member) -> int:
        """Return the place of the next entry at the second reading: it must be the one that was looked at."""
        self._written.entry(member)
        if not self._written.last_agrees(self._seen):
            raise PluginError(
                "The archive was changed while it was restored. Run again when no other process writes to it."
            )
        return self.places.place(member.name)

    def _check_kind(self, member: Member, place: int) -> None:
        if place == ROOT and not member.isdir():
            raise PluginError("The archive's root is not a directory: it is refused.")
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise PluginError(
                f"The archive holds {shown(member.name)}, a device, a pipe or something unknown. Only files, "
                "directories and links are restored: it is refused."
            )
        name = shown(self.places.path(place))
        if self.places.kinds[place] and place != ROOT:
            raise PluginError(f"The archive has {name} twice, and only one of them can be meant: it is refused.")
        if not member.isdir() and place in self.places.holding:
            raise PluginError(f"An entry would be written through {name}, which is no directory: it is refused.")

    def _add_link(self, place: int, target: str) -> None:
        if not 0 < len(target) <= TARGET_CHARACTERS_MAX or "\0" in target:
            raise PluginError(
                f"The archive has a link {shown(self.places.path(place))} with a target of {len(target):,} characters, "
                f"{shown(target)}: it is refused."
            )
        self._targets_bytes += len(target)
        self.links[place] = target

    def _add_hard_link(self, place: int, member: Member) -> None:
        target = self.places.place(member.linkname)
        if target in self.links:
            self._add_link(place, self.links[target])
        elif self.places.kinds[target] != tarfile.REGTYPE or target == place:
            names = f"{shown(member.name)} is a hard link to {shown(member.linkname)}"
            raise PluginError(f"{names}, which is no file before it: it is refused.")
        else:
            self.hard_links[place] = target

    def _check_limits(self) -> None:
        extent = Extent(len(self.places), self.places.names_bytes + self._targets_bytes, self.size, self._header_bytes)
        params = self._params
        for name, value in extent.exceeds(params.files_max, params.bytes_max, params.ratio_max, self._archive_size):
            raise PluginError(
                f"The archive is larger than {name}={getattr(params, name)} allows, and it is taken for a bomb. "
                f"If you trust it, raise {name} (to {value} at least)."
            )

    def _report_links(self, out: list[int]) -> None:
        done = "restored as they are and not followed (skip_links=true leaves them out)"
        if self._params.skip_links:
            self.skipped.update(out)
            self.files -= len(out)
            done = "left out"
        first = f"{shown(self.places.path(out[0]))} to {shown(self.links[out[0]])}"
        count = "1 link leads" if len(out) == 1 else f"{len(out):,} links lead"
        self._log.warning(f"{count} out of the destination, such as {first}; such links are {done}")

    def _leads_out(self, link: int) -> bool:
        """Follow a link as the system would, through the links of this archive."""
        at, unknown = self.places.parents[link], 0
        ahead = self.links[link].split("/")[::-1]
        if ahead[-1] == "":
            return True
        followed = 1
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not unknown and at == ROOT:
                    return True
                at, unknown = (at, unknown - 1) if unknown else (self.places.parents[at], 0)
                continue
            child = None if unknown else self.places.child(at, part)
            if child is None:
                unknown += 1
            elif (target := self.links.get(child)) is None:
                at = child
            elif target.startswith("/"):
                return True
            elif (followed := followed + 1) > LINKS_FOLLOWED_MAX:
                return False
            else:
                ahead.extend(target.split("/")[::-1])
        return False


def _kind(member: Member) -> bytes:
    """Return the type of a file, a hard link to one, or a directory."""
    return tarfile.DIRTYPE if member.isdir() else tarfile.REGTYPE
