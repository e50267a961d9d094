"""The parameters of a backup and of a restore."""

from typing import Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from .extent import BYTES_MAX, FILES_MAX, RATIO_MAX

SQLITE_PREFIX = "sqlite:///"


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("it has a NUL character in it, which no path can have")
    return value


PathText = Annotated[str, Field(min_length=1, max_length=4_096), AfterValidator(_no_nul)]


class BackupParams(BaseModel):
    """What to back up, or to restore, and to where."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["backup", "restore"] = Field("backup", description="What to do.")
    source: PathText | None = Field(
        None,
        description="Backup: a directory, a file, or an SQLite database as sqlite:////absolute/file.",
    )
    archive: PathText | None = Field(None, description="Restore: the .tar.zst file to restore from.")
    destination: PathText = Field(
        description="Backup: the directory for the archive. Restore: a new or empty directory to fill.",
    )
    exclude: list[str] = Field(
        default_factory=list,
        description="Globs to leave out: without '/' against every name, with '/' against the path below the "
        "source ('*' matches '/' too); with a '/' at the end, directories only.",
    )
    keep: int = Field(
        0,
        ge=0,
        description="Backup: how many of the newest archives of this source to keep, counting those made with another "
        "`exclude`; 0 keeps all.",
    )
    verify: bool = Field(True, description="Backup: read the archive back before it gets its name.")
    skip_links: bool = Field(
        False,
        description="Restore: leave out links that lead out of the destination. They are restored as links otherwise.",
    )
    files_max: int = Field(FILES_MAX, ge=1, description="Restore: refuse an archive of more entries than this.")
    bytes_max: int = Field(
        BYTES_MAX, ge=1, description="Restore: refuse an archive whose files have more bytes than this."
    )
    ratio_max: int = Field(
        RATIO_MAX,
        ge=1,
        description="Restore: refuse an archive that unpacks to more than 4 GiB and more than N times its own size.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Each action needs its own: a fault names the parameter that is missing."""
        needed = "source" if self.action == "backup" else "archive"
        if getattr(self, needed) is None:
            raise _fault(needed, f"action {self.action} needs it", None)
        source = self.source or ""
        if "://" in source or source.startswith("sqlite:"):
            _check_sqlite_url(source)
        return self


def _check_sqlite_url(source: str) -> None:
    if not source.startswith(SQLITE_PREFIX + "/"):
        raise _fault("source", "expected a path, or a database as sqlite:////absolute/file", source)


def _fault(name: str, message: str, value: object) -> ValidationError:
    """A fault of one field found while looking at several, with that field's path."""
    error = PydanticCustomError("params", cast(Any, message))
    return ValidationError.from_exception_data("BackupParams", [InitErrorDetails(type=error, loc=(name,), input=value)])
