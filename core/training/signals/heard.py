"""Which signals a run hears, and what each of them asks for."""

from __future__ import annotations

import signal


def _present(*names: str) -> tuple[signal.Signals, ...]:
    """Return those of the signals that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


#: A closed terminal. The shell may tell of it as well as the system, so it comes twice.
HANGING_UP = _present("SIGHUP")
#: Signals that end the run after a checkpoint. Ctrl-C first: where no run hears it, it
#: raises, and shall not between the others.
STOPPING = (signal.SIGINT, signal.SIGTERM, *HANGING_UP)
#: Signals that ask for a checkpoint.
SAVING = _present("SIGUSR1")
#: Signals that a run listens to.
HEARD = (*STOPPING, *SAVING)
