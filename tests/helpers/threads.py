"""Functions that run at the same time."""

from __future__ import annotations

import sys
import threading


def together(works, switch=1e-4):
    """Run each function in a thread of its own, and return the results; threads switch after ``switch`` seconds."""
    results = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(k, work):
        barrier.wait()
        results[k] = work()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    old = sys.getswitchinterval()
    sys.setswitchinterval(switch)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(old)
    return results
