"""What worker processes run in tests of the predictor; here, so that they do not import TensorFlow with the tests."""

import os
import signal
import time

from tfdetect.data import headway
from tfdetect.data.prepare.clip_cache import ClipSpec


class CrashingSpec(ClipSpec):
    """Reads files, but ends its process at one that is named crash."""

    def try_read(self, item):
        if "crash" in item[1]:
            os._exit(1)
        return super().try_read(item)


def sleep(item):
    """Take longer than any test."""
    time.sleep(1000)


class Dying:
    """Takes the place of a decoder's work and is killed, as by the kernel where memory runs out."""

    def __init__(self, spec=None):
        pass

    def __call__(self, path):
        os.kill(os.getpid(), signal.SIGKILL)


class Hungry(Dying):
    """Takes more memory than a decoding process of the server may have."""

    def __call__(self, path):
        return len(bytearray(3 * 2**30))


class Slow(Dying):
    """Takes longer than any test, and says in the file which process that is."""

    def __call__(self, path):
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(1000)


class Counting:
    """Reads a file as a decoder's work does, in half a second, and says meanwhile how many of its frames it has decoded."""

    def __init__(self, spec):
        self.spec = spec

    def __call__(self, path):
        with headway.beside(path):
            headway.note(7, 9)
            time.sleep(0.5)
        return self.spec.try_read((0, path))
