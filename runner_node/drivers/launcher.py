"""Started as a script by the process driver, in the place of what is to run; not imported.

    launcher.py function <parent> <program> [argument ...]   dies with the node, then becomes the program
    launcher.py tool <parent> <program> [argument ...]       the same, without the node's own settings

A tool (pip) needs the machine's proxies and indexes from the environment, and must not see tokens.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(kind: str, parent: int, argv: list[str]) -> None:
    """Replaces this process."""
    if sys.platform == "linux":
        # Bound to the thread that started us: that is the node's event loop.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the node has ended")
    environ = dict(os.environ)
    if kind == "tool":
        environ = {name: value for name, value in environ.items() if not name.startswith("FN_")}
    try:
        os.execvpe(argv[0], argv, environ)
    except OSError as exc:
        print(f"cannot run {argv[0]}: {exc.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
