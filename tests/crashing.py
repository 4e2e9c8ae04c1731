"""What worker processes run in tests of the predictor; here, so that they do not import TensorFlow with the tests."""

import os
import time

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
