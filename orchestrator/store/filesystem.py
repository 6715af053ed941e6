"""Which kind of file system a path lies on."""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTS = Path("/proc/mounts")
_NETWORK = re.compile(r"nfs\d?|lustre|cifs|smb\w*|gpfs|beegfs\w*|ceph|glusterfs|afs|9p|orangefs|fuse\..*")


def on_network(path: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether other machines may see this path, so that shared memory between its users cannot be relied on.

    FUSE counts: nothing tells an sshfs from a local one. Where the system lists no mounts, the answer is no.
    """
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return False
    target = path.resolve()
    best, kind = 0, ""
    for line in lines:
        fields = line.split()
        # Blanks in mount points are written as \040.
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1]))
        # A later mount on the same point hides the earlier one.
        if target.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return _NETWORK.fullmatch(kind) is not None
