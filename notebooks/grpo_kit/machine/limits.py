"""Limits of time and memory for what others wrote: a template, a pattern (standard library only)."""

import contextlib
import resource
import signal
import threading
from pathlib import Path


@contextlib.contextmanager
def no_more_memory(size):
    """MemoryError in the block where this process takes `size` bytes more than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = [limit for limit in (has + size, *before) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def at_most(seconds):
    """TimeoutError in the block when this process has computed for so long, however busy the machine; in the main thread, which alone has signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
