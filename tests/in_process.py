"""In place of `worker_pool.map_unordered`, for tests of something else: each worker process takes seconds to start."""


def map_here(items, work, workers=None, seconds=None, stop=None):
    """Yield (item, work(item)), computed in this process."""
    for item in items:
        yield item, work(item)


def decode_here(paths, cache, workers=None, seconds=None):
    """Decode files in this process, as a `runner` of `decode.prepare`."""
    return map_here(paths, cache.decode_file)
