"""What the machine lacks, in one line: room on a disk or in shared memory, open files, a disk that works."""

from __future__ import annotations

import errno
import os
import re
import traceback
from pathlib import Path

_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of the quota",
    errno.EMFILE: "allow more open files (ulimit -n), or lower data.workers,",
    errno.ENFILE: "close other programs: the whole machine has too many open files,",
    errno.EACCES: "change its permissions, or choose another,",
    errno.EPERM: "change its permissions, or choose another,",
    errno.EROFS: "choose a folder that can be written",
    errno.EIO: "have the disk checked, or use another one,",
    errno.ESTALE: "wait until the network disk is back",
    errno.ENOMEM: "free some memory",
}
_EVERYWHERE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # limits of the process or the machine, not of a place
_SHARED_MEMORY = "/dev/shm"
_MORE_SHARED_MEMORY = (
    "enlarge it (docker --shm-size, in Kubernetes an emptyDir of medium Memory), or lower data.workers,"
)


def explain(error: BaseException, place: str | Path = "") -> str | None:
    """Say what the machine lacked and what to do about it.

    Args:
        error: An OSError, or the RuntimeError in which torch reports one of its shared memory.
        place: The file or folder that was being read or written, where the error does not say; that something in
            this folder is gone is explained as well.

    Returns:
        ``PLACE: WHAT; REMEDY``, to which " and start again" can be added; None where the error is of another kind.
    """
    if isinstance(error, FileNotFoundError) and place and Path(place) in Path(str(error.filename)).parents:
        return f"{error.filename}: is gone, or the folder around it; see to it that nothing removes them,"
    if isinstance(error, OSError):
        remedy = _REMEDIES.get(error.errno or 0)
        where = error.filename or ("" if error.errno in _EVERYWHERE else place)
        if error.errno == errno.ENOSPC and _is_of_multiprocessing(error):
            remedy, where = _MORE_SHARED_MEMORY, _SHARED_MEMORY
        return f"{f'{where}: ' if where else ''}{error.strerror}; {remedy}" if remedy else None
    # From a loader worker it comes with a traceback before it.
    last = str(error).rstrip().rpartition("\n")[2]
    if isinstance(error, RuntimeError) and re.search(r"</?torch_|shared memory|shm", last):
        for number, remedy in ((errno.ENOSPC, _MORE_SHARED_MEMORY), (errno.EMFILE, _REMEDIES[errno.EMFILE])):
            if os.strerror(number) in last:
                return f"{_SHARED_MEMORY}: {os.strerror(number)}; {remedy}"
    return None


def _is_of_multiprocessing(error: OSError) -> bool:
    # Its locks and queues are in shared memory, which their errors do not say.
    frames = traceback.walk_tb(error.__traceback__)
    return any(Path(frame.f_code.co_filename).parent.name == "multiprocessing" for frame, _ in frames)
