"""What the kernel knows of a process (Linux only): its memory, in bytes."""

from pathlib import Path


def memory_of(pid: int | str = "self") -> dict[str, int]:
    """
    `VmRSS` and `VmHWM` (all that is resident now, and at its peak) and `RssAnon` (of it, what is
    the process's own and in no file: the journal's mapped pages are not in it). Empty elsewhere.
    """
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return {}
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return {name: int(fields[name].split()[0]) * 1_024 for name in ("VmRSS", "VmHWM", "RssAnon") if name in fields}
