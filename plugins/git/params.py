"""The parameters, and everything that git must not be talked into by them."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

PROTOCOLS = ("https", "ssh", "git", "file")

_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/$|\.$|\.lock(/|$)|(^|/)\.")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _no_option(value: str) -> str:
    if value.startswith("-"):
        raise ValueError("it begins with '-', which git could take for an option: that is refused")
    if "\0" in value:
        raise ValueError("it has a NUL character in it: that is refused")
    return value


def plain(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("it has control characters in it: that is refused")
    return _no_option(value)


def _path(value: str) -> str:
    if SCHEME.match(value) or _HELPER.match(value):
        raise ValueError("expected the path of a directory, not a URL")
    return value


def _ref(value: str) -> str:
    if _BAD_REF.search(value):
        raise ValueError("this cannot be the name of a branch")
    return value


def repository_of(value: str) -> str:
    """A URL whose protocol may be spoken, `host:path` for ssh, or a path on this machine."""
    if value != value.strip():
        raise ValueError("it begins or ends with a space: take that out")
    if helper := _HELPER.match(value):
        raise ValueError(f"'{helper[0]}' would run a program of that name: use https, ssh, git or a path")
    if scheme := SCHEME.match(value):
        _check_url(value, scheme[1].lower())
    elif is_ssh(value):
        host, _, path = value.partition(":")
        _check_host(host, path)
    return value


def _check_url(url: str, scheme: str) -> None:
    if scheme not in PROTOCOLS:
        raise ValueError(f"the protocol {scheme} is not spoken: use {', '.join(PROTOCOLS)} or a path")
    parts = urlsplit(url)
    _check_host(unquote(parts.netloc), unquote(parts.path).lstrip("/"))
    if scheme == "file":
        file_path(url)


def _check_host(host: str, path: str) -> None:
    if any(part.startswith("-") for part in (host.lstrip("["), host.rpartition("@")[2].lstrip("["), path)):
        raise ValueError("its user, host or path begins with '-', which ssh could take for an option: that is refused")
    if _CONTROL.search(host + path):
        raise ValueError("it has control characters in it: that is refused")


def is_file_url(repository: str) -> bool:
    return repository[:7].lower() == "file://"


def file_path(url: str) -> Path:
    """Return the path that git takes from a file URL; `?` and `#` are characters of it. Raises `ValueError`."""
    try:
        path = unquote(url[7:], errors="strict")
    except UnicodeDecodeError as error:
        raise ValueError("its path is not UTF-8") from error
    if not path.startswith("/") or path.startswith("//"):
        raise ValueError("file:// names a file of this machine: expected file:///absolute/path")
    return Path(path)


def is_ssh(repository: str) -> bool:
    """True for `host:path`, as git decides it: a colon with no slash before."""
    return ":" in repository.partition("/")[0] and not SCHEME.match(repository)


Text = Annotated[str, Field(min_length=1, max_length=65_536), AfterValidator(_no_option)]
Word = Annotated[str, Field(min_length=1, max_length=4_096), AfterValidator(plain)]


class GitParams(BaseModel):
    """What git should do, and where."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["clone", "pull", "commit", "push", "status", "log"] = Field(description="What to do.")
    repository: Annotated[Word, AfterValidator(repository_of)] | None = Field(
        None,
        description="Clone: what to clone, a URL (https, ssh, git, file), host:path or a path. Pull, push: the "
        "remote, by name or URL, if not the branch's own. Without `directory`: the repository to work in.",
    )
    directory: Annotated[Word, AfterValidator(_path)] | None = Field(
        None,
        description="The repository to work in. Clone: the new or empty directory for it; by default below the "
        "task's own directory.",
    )
    branch: Annotated[Word, AfterValidator(_ref)] | None = Field(
        None, description="The branch to clone, pull, push or list; commit: the branch that must be checked out."
    )
    message: Text | None = Field(None, description="Commit: the message.")
    depth: int | None = Field(
        None, ge=1, le=2_147_483_647, description="Clone, pull: how many commits to fetch. Log: how many to list (20)."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Each action needs its own: a fault names the parameter that is missing."""
        if self.action == "clone":
            self._need("repository", self.repository is not None)
            return self
        if self.action == "commit":
            self._need("message", self.message is not None)
        given = self.directory or self.repository
        here = given is not None and not SCHEME.match(given) and not is_ssh(given)
        self._need("directory", here, ", the path of a repository on this machine")
        return self

    def _need(self, name: str, there: bool, what: str = "") -> None:
        if not there:
            error = PydanticCustomError("params", cast(Any, f"action {self.action} needs it{what}"))
            details = InitErrorDetails(type=error, loc=(name,), input=getattr(self, name))
            raise ValidationError.from_exception_data("GitParams", [details])
