"""Run by a test in a process of its own: forks scripted sessions, which the test kills.

A line on stdin, "folder seed", starts one; its process id comes back, then a line of JSON after every thing done.
"""

import json
import os
import sys

from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk, Script

CENTRES = [(5, 14, 14), (6, 30, 34)]
N_STEPS = 30


def image():
    return ball_volume((12, 44, 48), CENTRES, 6.0).image


def say(line):
    """Write a line at once: print() gives its end to a pipe by itself, and a kill may come between the two."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def run(folder, seed):
    say(os.getpid())
    desk = Desk(folder)
    desk.open(image())
    script = Script(desk, CENTRES, seed)
    say(json.dumps(desk.state()))
    for _ in range(N_STEPS):
        script.step()
        say(json.dumps(desk.state()))
    say("done")
    os._exit(0)


if __name__ == "__main__":
    for line in sys.stdin:
        folder, seed = line.split()
        if os.fork() == 0:
            run(folder, int(seed))
        os.wait()
        say("dead")
