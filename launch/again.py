"""python -m launch.again --crashes=N -- COMMAND...: runs it until it is done.

A command that the system stopped, exit code 75, is started again as often as that happens; one that
crashed N times at most; one that finished, or that a mistake ended, not. A signal to this process
goes to the command, which is then not started again.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from launch.targets import MISTAKE, STOPPED

PAUSE_S = 15  # before another start: the others that train with it end in the meantime


def until_done(command: Sequence[str], crashes: int) -> int:
    """The exit code of the command's last run; 128 + its number for a signal."""
    told = []
    left = crashes
    while True:
        started = subprocess.Popen(command)

        def tell(number, frame, process=started):
            del frame
            told.append(number)
            process.send_signal(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, tell)
        code = started.wait()
        code = 128 - code if code < 0 else code
        if told or code in (0, MISTAKE):
            return code
        if code != STOPPED:
            if left == 0:
                print(f"exit code {code}, after {crashes} other crashes", file=sys.stderr)
                return code
            left -= 1
        print(f"exit code {code}: again, {left} crashes left", file=sys.stderr, flush=True)
        time.sleep(PAUSE_S)
        if told:
            return code


def main(argv: Sequence[str]) -> int:
    """Runs one command line, without the program's name; returns the exit code."""
    flag, dashes, *command = argv if len(argv) > 2 else ("", "")
    name, _, number = flag.partition("=")
    if name != "--crashes" or not number.isdecimal() or dashes != "--" or not command:
        print("error: must be --crashes=N -- COMMAND...", file=sys.stderr)
        return MISTAKE
    return until_done(command, int(number))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
