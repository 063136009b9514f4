from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Take SIGINT and SIGQUIT, which a shell has its background commands ignore, as a command in the
    foreground does. What is ignored is inherited, and the processes that tests interrupt would never end."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)
