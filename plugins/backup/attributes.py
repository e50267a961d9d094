"""
Extended attributes and POSIX ACLs: read from a file, kept in an archive, set on a file.

An archive has them as GNU tar does: `SCHILY.xattr.NAME` with the value, and an ACL as text in
`SCHILY.acl.access` and `SCHILY.acl.default`, here with numbers instead of names. A restore sets
`user.*` and ACLs. It does not set the others, because `security.capability` gives rights and
the rest belongs to the system; it counts them instead.
"""

import contextlib
import errno
import grp
import os
import pwd
import re
import struct
from collections.abc import Iterator

PREFIX = "SCHILY.xattr."
ACLS = {
    "system.posix_acl_access": "SCHILY.acl.access",
    "system.posix_acl_default": "SCHILY.acl.default",
}
NAMES_OF_ACLS = {keyword: name for name, keyword in ACLS.items()}
ATTRIBUTES_BYTES_MAX = 4 * 1_024**2

# linux/posix_acl_xattr.h
ACL_HEADER = struct.Struct("<I")
ACL_ENTRY = struct.Struct("<HHI")
ACL_VERSION = 2
ACL_NO_ID = 0xFFFF_FFFF
ID_DIGITS_MAX = len(str(ACL_NO_ID))
ACL_TAGS = {1: "user:", 2: "user", 4: "group:", 8: "group", 16: "mask:", 32: "other:"}
ACL_NUMBERS = {tag: number for number, tag in ACL_TAGS.items()}
ACL_LINE = re.compile(r"(u|user|g|group|m|mask|o|other):([^:]*):([r-][w-][x-])(?::(\d{1,10}))?")

Attributes = dict[str, bytes]


def read(fd: int) -> Attributes:
    """Return the extended attributes of an open file. Raises OSError if one cannot be read."""
    if not hasattr(os, "listxattr"):
        return {}
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    if any("\udc80" <= character <= "\udcff" for character in "".join(names)):
        raise OSError(errno.EILSEQ, "the name of one of them is not UTF-8")
    attributes = {name: os.getxattr(fd, name) for name in names}
    if sum(map(len, attributes.values())) > ATTRIBUTES_BYTES_MAX:
        raise OSError(errno.E2BIG, f"they have more than {ATTRIBUTES_BYTES_MAX:,} bytes")
    return attributes


def packed(attributes: Attributes) -> Iterator[tuple[str, str]]:
    """Return them as records of a pax header."""
    for name, value in attributes.items():
        if keyword := ACLS.get(name):
            yield keyword, _text_of(value)
        else:
            # As GNU tar: a '=' would end the keyword.
            yield PREFIX + name.replace("%", "%25").replace("=", "%3D"), value.decode("utf-8", "surrogateescape")


def unpacked(keyword: str, value: bytes) -> Iterator[tuple[str, bytes]]:
    """Return the attribute in a record of a pax header, if there is one."""
    if name := NAMES_OF_ACLS.get(keyword):
        yield name, _value_of(value.decode("utf-8", "surrogateescape"))
    elif keyword.startswith(PREFIX):
        yield keyword.removeprefix(PREFIX).replace("%3D", "=").replace("%25", "%"), value


def restore(fd: int, mode: int, attributes: Attributes) -> Iterator[str]:
    """Set the mode and the attributes of an open file; return the names of those that are not set."""
    # The owner sets attributes while the file is writable, and ACLs after the mode, which changes them.
    acls = [name for name in attributes if name in ACLS]
    for name in attributes:
        if name not in ACLS and not (name.startswith("user.") and _set(fd, name, attributes[name])):
            yield name
    os.fchmod(fd, mode)
    for name in acls:
        # No value would remove the ACL that is there, and succeed.
        if not (attributes[name] and _set(fd, name, attributes[name])):
            yield name


def remove_acls(fd: int) -> None:
    """Remove the ACLs that a new directory has from its parent, so that its entries get none from it."""
    for name in ACLS:
        with contextlib.suppress(AttributeError, OSError):
            os.removexattr(fd, name)


def _set(fd: int, name: str, value: bytes) -> bool:
    try:
        os.setxattr(fd, name, value)
    except (AttributeError, OSError, ValueError):
        return False
    return True


def _text_of(value: bytes) -> str:
    """Return an ACL as text, such as `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`."""
    lines = []
    for tag, permissions, number in ACL_ENTRY.iter_unpack(value[ACL_HEADER.size :]):
        shown = "".join(letter if permissions & bit else "-" for letter, bit in zip("rwx", (4, 2, 1), strict=True))
        name = ACL_TAGS[tag]
        lines.append(f"{name}:{shown}" if name.endswith(":") else f"{name}:{number}:{shown}")
    return ",".join(lines)


def _value_of(text: str) -> bytes:
    """Return an ACL as the kernel takes it, or nothing if it names a user or a group that this system lacks."""
    entries = []
    for line in re.split(r"[\n,]", text):
        if not (line := line.partition("#")[0].strip()):
            continue
        if not (matched := ACL_LINE.fullmatch(line)):
            return b""
        kind, name, permissions, number = matched.groups()
        kind = {"u": "user", "g": "group", "m": "mask", "o": "other"}.get(kind, kind)
        bits = sum(bit for letter, bit in zip(permissions, (4, 2, 1), strict=True) if letter != "-")
        if not name:
            entries.append((ACL_NUMBERS[f"{kind}:"], bits, ACL_NO_ID))
        elif kind not in ("user", "group") or (found := _id_of(kind, number or name)) is None:
            return b""
        else:
            entries.append((ACL_NUMBERS[kind], bits, found))
    # The kernel wants the kinds in this order, and keeps the users and groups of a kind in any.
    entries.sort(key=lambda entry: entry[0])
    return ACL_HEADER.pack(ACL_VERSION) + b"".join(ACL_ENTRY.pack(*entry) for entry in entries)


def _id_of(kind: str, name: str) -> int | None:
    if name.isdecimal():
        # The kernel gives the last of these numbers to a user whom this user namespace lacks, and does not set it.
        return int(name) if len(name) <= ID_DIGITS_MAX and int(name) <= ACL_NO_ID else None
    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        return None
