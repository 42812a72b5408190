"""The engine of one machine: processes that import everything once and carry out one ticket after the other."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from ood_lab.sweep.ticket import Ticket, carry_out


class Workers:
    """Worker processes on this machine. One that dies is replaced; its ticket stays without an outcome.

    Args:
        number: how many.
        gpus: CUDA devices to share among them, one each; 0 leaves the environment as it is.
    """

    def __init__(self, number: int, gpus: int = 0) -> None:
        self.number, self._gpus = number, gpus
        self._ended = threading.Event()
        self._processes: list[subprocess.Popen[str]] = []

    def launch(self, tickets: Sequence[Ticket]) -> None:
        """Carry out all tickets."""
        self._ended.clear()
        waiting: queue.SimpleQueue[Ticket] = queue.SimpleQueue()
        for ticket in tickets:
            waiting.put(ticket)
        threads = [
            threading.Thread(target=self._serve, args=(number, waiting), daemon=True)
            for number in range(min(self.number, len(tickets)))
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)  # so that Ctrl-C is heard
        finally:
            self._ended.set()
            for process in self._processes:
                process.kill()

    def _serve(self, number: int, waiting: queue.SimpleQueue[Ticket]) -> None:
        process: subprocess.Popen[str] | None = None
        while not self._ended.is_set():
            try:
                ticket = waiting.get_nowait()
            except queue.Empty:
                break
            process = process or self._start(number)
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(f"{ticket.path}\n")
                process.stdin.flush()
                alive = process.stdout.readline() != ""  # a line when it is done, the end of the file when it died
            except BrokenPipeError:
                alive = False
            if not alive:
                process.wait()
                process = None

    def _start(self, number: int) -> subprocess.Popen[str]:
        environment = dict(os.environ)
        if self._gpus > 1:
            visible = environment.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(self._gpus)))
            environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number % self._gpus]
        process = subprocess.Popen(
            [sys.executable, "-m", "ood_lab.sweep.workers", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._processes.append(process)
        return process


def serve(parent: int) -> None:
    """Carry out the tickets that are named on standard input, until it ends or the parent is gone."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a line there says that a ticket is done: nothing else may be printed to it
    for line in sys.stdin:
        carry_out(line.strip())
        replies.write("done\n")
        replies.flush()


def _end_with(parent: int) -> None:
    """A sweep that was killed leaves no process that goes on behind its back."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
