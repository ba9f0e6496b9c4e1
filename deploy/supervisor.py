"""Worker processes: started, replaced when they die or hang, and stopped together.

The supervisor serves nothing, opens nothing and has no event loop: it waits for signals. Workers are forked
from it, and die with it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from deploy import shares
from deploy.settings import Settings
from shared_models import ids
from shared_models.workers import Place

log = logging.getLogger(__name__)

Work = Callable[[Settings, Place, Callable[[], None]], int]
"""Runs a node with these settings, calls the function once it serves, answers the exit code."""

STOP = signal.SIGUSR1
"""Tells a worker to stop, and when it comes again, to end at once.

SIGTERM and SIGINT are for the supervisor alone: a terminal, and systemd, send them to every process, so that
workers which heed them would take the supervisor's word for the second one.
"""
READY = signal.SIGRTMIN
"""A worker tells the supervisor that it serves. Those of several are queued, and say from whom they are."""
BEAT = 5.0
"""Seconds after which a worker tells it again."""
SILENT = 12
"""Beats that are missing when a worker is taken to hang, and killed. The supervisor counts them one by one:
when all stood still for a while, nothing follows from it."""
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
"""Seconds until a worker that died is begun again: twice as many each time, ..."""
SOUND = 60.0
"""... but for one that has lived for so long."""
_TERM = (signal.SIGTERM, signal.SIGINT)
WAITED_FOR = {*_TERM, signal.SIGCHLD, READY}
_FOR_EVER = 3600.0
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Worker:
    """One place, and who has it: nobody while *pid* is 0. Moments of the monotonic clock."""

    place: Place
    pid: int = 0
    since: float = 0.0
    due: float = 0.0
    pause: float = 0.0
    serves: bool = False
    missing: int = 0


class Supervisor:
    """Of the workers of a node with *settings* (``shares.whole``)."""

    def __init__(self, settings: Settings, work: Work) -> None:
        self._settings = settings
        self._work = work
        count, meeting = settings.node.workers, secrets.token_hex(8)
        self._workers = [_Worker(Place(number, count, meeting)) for number in range(count)]
        self._served = False
        """Whether any worker ever served: until then an error is one of the node's start."""
        self._stopping = False
        self._code = 0
        self._next_beat = time.monotonic() + BEAT

    def run(self) -> int:
        """Until a signal stops them; answers the exit code. ``WAITED_FOR`` must be blocked."""
        try:
            while not self._stopping or any(worker.pid for worker in self._workers):
                self._begin_what_is_due()
                self._look_for_silent()
                info = signal.sigtimedwait(WAITED_FOR, self._until_next())
                if info is None:
                    continue
                if info.si_signo == READY:
                    self._on_ready(info.si_pid)
                elif info.si_signo == signal.SIGCHLD:
                    self._on_ends()
                elif not self._stopping:
                    self._stop()
                else:
                    return self._end_at_once(info.si_signo)
        finally:
            self._kill_all()
        return self._code

    # -- the life of a worker ------------------------------------------------------------------

    def _begin_what_is_due(self) -> None:
        now = time.monotonic()
        # The first alone until it serves: what keeps a node from starting is said once.
        for worker in self._workers if self._served else self._workers[:1]:
            if not (worker.pid or self._stopping) and worker.due <= now:
                self._begin(worker)

    def _until_next(self) -> float:
        """Seconds until a worker is due."""
        if self._stopping or not self._served:
            return _FOR_EVER
        dues = [worker.due for worker in self._workers if not worker.pid]
        return max(min([*dues, self._next_beat]) - time.monotonic(), 0.0)

    def _look_for_silent(self) -> None:
        """Kills a worker whose event loop does not turn any more: its clients would wait for it for ever."""
        now = time.monotonic()
        if self._stopping or now < self._next_beat:
            return
        self._next_beat = now + BEAT
        for worker in self._workers:
            worker.missing += worker.serves
            if worker.missing > SILENT:
                log.error("worker %d has stood still for %g s", worker.place.number, SILENT * BEAT)
                os.kill(worker.pid, signal.SIGKILL)

    def _begin(self, worker: _Worker) -> None:
        worker.since, worker.serves, worker.missing = time.monotonic(), False, 0
        supervisor = os.getpid()
        worker.pid = os.fork()
        if worker.pid == 0:
            code = 1
            try:
                _settle_in(supervisor)
                own = shares.of_worker(self._settings, worker.place)
                code = self._work(own, worker.place, lambda: os.kill(supervisor, READY))
            except Exception:
                log.exception("worker %d broke down", worker.place.number)
            finally:
                logging.shutdown()
                sys.stdout.flush()
                # Nothing of the supervisor's, such as what is to be killed at its end, is this process's.
                os._exit(code)

    def _on_ready(self, pid: int) -> None:
        for worker in self._workers:
            if worker.pid != pid:
                continue
            worker.missing = 0
            if not worker.serves:
                self._served = worker.serves = True
                log.info("worker %d serves (process %d)", worker.place.number, pid)

    def _on_ends(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                for worker in self._workers:
                    if worker.pid == pid:
                        worker.pid, worker.serves = 0, False
                        self._on_end(worker, os.waitstatus_to_exitcode(status))

    def _on_end(self, worker: _Worker, code: int) -> None:
        if self._stopping:
            self._code = self._code or max(code, 0)
        elif not self._served:
            # It has said why.
            self._stopping, self._code = True, code if code > 0 else 1
        else:
            now = time.monotonic()
            sound = now - worker.since >= SOUND
            worker.pause = FIRST_PAUSE if sound or not worker.pause else min(2 * worker.pause, LONGEST_PAUSE)
            worker.due = now + worker.pause
            log.error(
                "worker %d ended (%s) and is begun again in %g s",
                worker.place.number,
                f"exit code {code}" if code >= 0 else signal.Signals(-code).name,
                worker.pause,
            )

    # -- the end -------------------------------------------------------------------------------

    def _stop(self) -> None:
        self._stopping = True
        log.info("the workers stop: what runs may end, a second signal ends everything at once")
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, STOP)

    def _end_at_once(self, number: int) -> int:
        """As a signal ends a process that does nothing about it."""
        self._kill_all()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        return 128 + number  # the first process of a container does not end by that

    def _kill_all(self) -> None:
        left = [worker for worker in self._workers if worker.pid]
        for worker in left:
            os.kill(worker.pid, signal.SIGKILL)
        for worker in left:
            with suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)
            worker.pid = 0


def _settle_in(supervisor: int) -> None:
    """In a new worker, before anything else."""
    # An orphan would hold the port, and containers that the next start of the node removes.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
    if os.getppid() != supervisor:
        os._exit(1)
    # Handlers, and not SIG_IGN, which the programs that a worker starts would inherit.
    for number in _TERM:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITED_FOR)
    # The parent's ids are made from these as well.
    vars(ids.new_id).update(vars(ids.IdMaker()))
