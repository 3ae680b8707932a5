"""The shared memory cell of a child: where it is in its jobs, and which of them are called back.

One anonymous shared page per child, made before the fork. Every field is an aligned 8-byte word with exactly
one writer, so a read is never torn:

=========  ========  ===========================================================================
field      writer    meaning
=========  ========  ===========================================================================
STARTED    child     number of the job that it is about to take up
RECALL     parent    jobs from this number on are called back (`NEVER` = none)
RUNNING    child     number of the last job that was handed to the runner
SINCE      child     when (monotonic seconds, a double); written before RUNNING
FINISHED   child     number of the last job that the runner returned from
SOFT       child     number of the last job in which a soft limit was raised
=========  ========  ===========================================================================

The recall protocol
-------------------

A job that turns out long must not hold up those behind it in the same child, and the child, being busy,
cannot be asked for them. So the parent takes them back without its help.

Child, for each job k in order::

    STARTED = k
    if k >= RECALL: skip k and the rest of the frame, report the skipped numbers
    SINCE = now; RUNNING = k; run; FINISHED = k

Parent, to take back the jobs from N on::

    (1) RECALL = N, and send this child nothing more
    (2) at least 1 ms later: s = STARTED
        jobs above s (and not below N) are the parent's again: other children get them
        jobs from N to s stay the child's: it reports each of them as run or as skipped
    (3) when the child has reported the last number that it was sent: RECALL = NEVER

*No job runs twice.* Suppose the parent takes k back (s < k) and the child runs k too. The child then loaded
RECALL for k and saw the old value, so before step (1) became visible; its store STARTED = k comes before that
load in program order. A processor may let the load overtake the store, but only while the store waits in its
store buffer: nanoseconds, and never across a context switch. Step (2) comes a millisecond after step (1),
when the store has long been visible, so s >= k: contradiction.

*No job is lost.* A job from N to s that the child did not run it skipped, and it reports skipped numbers in
its next frame; the parent queues those again. A skipped number that the parent has taken already is not in
its books any more, and is ignored. If the child dies before its report, the parent decides by RUNNING, see
below.

*No job is skipped by mistake.* Numbers sent after step (3) cannot meet the old RECALL: the frame that carries
them was sent after the reset, and the child reads RECALL after it has received the frame.

A dead child's last words
-------------------------

When the child has died and its socket is read to the end, job k without an outcome was started if and only if
k <= RUNNING: the child writes RUNNING only when it has passed the recall test, and a dead process's stores
are all visible. Those are reported (`on_lost`, or `on_timeout`), the others go back to the queue.
"""

from __future__ import annotations

import mmap

NEVER = 2**63
SETTLE_SECONDS = 0.001

STARTED, RECALL, RUNNING, SINCE, FINISHED, SOFT = range(6)


class Cell:
    """The words of one child; `ints` and `floats` are two views of the same memory.

    `memoryview` moves one 8-byte item by a single aligned store or load on the platforms that CPython
    supports.
    """

    __slots__ = ("_memory", "floats", "ints")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self.ints = memoryview(self._memory).cast("Q")
        self.floats = memoryview(self._memory).cast("d")
        self.ints[RECALL] = NEVER

    def close(self) -> None:
        self.ints.release()
        self.floats.release()
        self._memory.close()
