"""
The configuration of a repository: every key is refused that is not known to be harmless.

A list of the harmful keys cannot be complete: git adds new ones (`hook.NAME.command` is one of 2.5x),
and other programs of git read their own. What the configuration of taskd's user sets is the
user's to decide, and is not looked at.

Keys are compared as bytes, as git prints them: section and name in lower case, `*` for any subsection.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from taskd import PluginError

from .places import Place

REFUSED_NAMED = 5
NAME_CHARACTERS_MAX = 200

HARMLESS = frozenset(
    b"""
    author.email author.name committer.email committer.name user.email user.name user.signingkey user.useconfigonly
    branch.*.description branch.*.gh-merge-base branch.*.github-pr-owner-number branch.*.merge branch.*.pushremote
    branch.*.rebase branch.*.remote branch.*.vscode-merge-base branch.autosetupmerge branch.autosetuprebase branch.sort
    color.branch color.diff color.status color.ui column.ui commitgraph.changedpaths commitgraph.generationversion
    core.abbrev core.autocrlf core.bare core.bigfilethreshold core.checkstat core.commentchar core.commitgraph
    core.compression core.deltabasecachelimit core.eol core.filemode core.fscache core.hidedotfiles core.ignorecase
    core.logallrefupdates core.longpaths core.loosecompression core.multipackindex core.precomposeunicode
    core.preloadindex core.quotepath core.repositoryformatversion core.safecrlf core.sharedrepository
    core.sparsecheckout core.sparsecheckoutcone core.splitindex core.symlinks core.trustctime core.untrackedcache
    core.warnambiguousrefs core.whitespace core.worktree
    diff.algorithm diff.colormoved diff.context diff.indentheuristic diff.mnemonicprefix diff.noprefix
    diff.renamelimit diff.renames
    extensions.compatobjectformat extensions.noop extensions.noop-v1 extensions.objectformat extensions.preciousobjects
    extensions.refstorage extensions.relativeworktrees extensions.worktreeconfig
    fetch.fsckobjects fetch.parallel fetch.prune fetch.prunetags fetch.writecommitgraph
    gc.auto gc.autodetach gc.autopacklimit gc.cruftpacks gc.packrefs gc.pruneexpire gc.reflogexpire
    gc.reflogexpireunreachable gc.writecommitgraph
    gui.encoding gui.geometry gui.wmstate http.receivepack http.uploadpack
    index.recordendofindexentries index.recordoffsettable index.skiphash index.sparse index.threads index.version
    init.defaultbranch init.defaultobjectformat init.defaultrefformat
    lfs.*.access lfs.*.locksverify lfs.repositoryformatversion
    log.abbrevcommit log.date log.decorate log.follow log.showroot
    maintenance.*.enabled maintenance.*.schedule maintenance.auto maintenance.autodetach maintenance.strategy
    merge.conflictstyle merge.ff merge.log merge.renamelimit merge.renames merge.stat merge.verifysignatures
    pack.compression pack.deltacachesize pack.depth pack.indexversion pack.packsizelimit pack.threads pack.usesparse
    pack.window pack.windowmemory pack.writereverseindex
    pull.ff pull.rebase push.autosetupremote push.default push.followtags push.useforceifincludes
    rebase.autosquash rebase.autostash rebase.updaterefs
    receive.advertisepushoptions receive.autogc receive.denycurrentbranch receive.denydeletecurrent
    receive.denydeletes receive.denynonfastforwards receive.fsckobjects receive.shallowupdate
    reftable.blocksize reftable.indexobjects reftable.restartinterval
    remote.*.fetch remote.*.followremotehead remote.*.gh-resolved remote.*.mirror remote.*.prune remote.*.prunetags
    remote.*.push remote.*.pushurl remote.*.skipdefaultupdate remote.*.skipfetchall remote.*.tagopt remote.*.url
    remote.pushdefault rerere.autoupdate rerere.enabled
    status.aheadbehind status.branch status.relativepaths status.renames status.short status.showstash
    status.showuntrackedfiles
    submodule.*.active submodule.*.branch submodule.*.ignore submodule.*.update submodule.*.url submodule.active
    tag.sort transfer.fsckobjects worktree.guessremote worktree.userelativepaths
    uploadpack.allowanysha1inwant uploadpack.allowfilter uploadpack.allowreachablesha1inwant
    uploadpack.allowrefinwant uploadpack.allowtipsha1inwant
    """.split()
)

# A harmless key whose value can be harmful, and the values that are not.
_URL = re.compile(rb"[^\x00-\x1f\x7f]*")
_FORMAT = re.compile(rb"sha1|sha256")
VALUES = {
    b"core.repositoryformatversion": re.compile(rb"[01]"),
    b"extensions.compatobjectformat": _FORMAT,
    b"extensions.objectformat": _FORMAT,
    # `reftable://PATH` would keep the refs in any directory.
    b"extensions.refstorage": re.compile(rb"files|reftable"),
    # A repository may ask for signatures, and not excuse from those that taskd's user asks for.
    b"merge.verifysignatures": re.compile(rb"(?i:true|yes|on|1)"),
    # A line each, when git lists them; the URL itself is looked at before it is used.
    b"remote.*.pushurl": _URL,
    b"remote.*.url": _URL,
    # `!COMMAND` is a program.
    b"submodule.*.update": re.compile(rb"checkout|rebase|merge|none"),
}


def check_configuration(place: Place, listings: Sequence[tuple[Path, bytes]]) -> None:
    """
    Raise `PluginError` if the repository's own configuration sets a key that is not known to be harmless;
    `listings` are its files, each with what `git config --list -z` prints of it.
    """
    leads_back = place.embedded or place.git_dir != place.common_dir
    refused = []
    for path, key, value in _settings(listings):
        if not _is_harmless(place, key, value):
            refused.append(f"{_shown(key)} (in {_shown(os.fsencode(os.path.relpath(path, place.directory)))})")
        leads_back |= key == b"core.worktree"
    if refused:
        raise PluginError(_refusal(place.directory, refused))
    if not leads_back:
        raise PluginError(
            f"{place.directory / '.git'} leads to {place.git_dir}, which does not lead back: that is refused. If the "
            f"two belong together, set core.worktree there to {place.directory}."
        )


def _settings(listings: Sequence[tuple[Path, bytes]]) -> Iterator[tuple[Path, bytes, bytes]]:
    """File, key and value of each setting."""
    for path, listing in listings:
        for setting in listing.split(b"\0")[:-1]:
            key, _, value = setting.partition(b"\n")
            yield path, key, value


def _is_harmless(place: Place, key: bytes, value: bytes) -> bool:
    section, _, rest = key.partition(b".")
    _, subsection, name = rest.rpartition(b".")
    pattern = b".".join([section, b"*", name] if subsection else [section, name])
    if pattern == b"core.worktree":
        return not place.bare and (place.git_dir / Path(os.fsdecode(value))).resolve() == place.directory
    values = VALUES.get(pattern)
    return pattern in HARMLESS and (values is None or values.fullmatch(value) is not None)


def _shown(text: bytes) -> str:
    shown = text.decode(errors="backslashreplace")
    return shown if len(shown) <= NAME_CHARACTERS_MAX else f"{shown[:NAME_CHARACTERS_MAX]}…"


def _refusal(directory: Path, refused: list[str]) -> str:
    more = f" and {len(refused) - REFUSED_NAMED:,} more" if len(refused) > REFUSED_NAMED else ""
    return (
        f"The configuration of {directory} sets {', '.join(refused[:REFUSED_NAMED])}{more}, which may have git run "
        "programs or reach elsewhere: that is refused. Remove it (git config --unset-all KEY) or, if you trust it, "
        "set it for taskd's user instead (git config --global)."
    )
