"""Connected components: what belongs together, directly or through others."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T", str, int)


# scipy.sparse.csgraph needs as many lines, to number the members, and about 1.5 times as long (benchmarks/libraries.py).
def first_of_component(sets: Iterable[Sequence[T]]) -> dict[T, T]:
    """Return member -> the first member, in order, of its connected component; sets that share a member are connected."""
    parent: dict[T, T] = {}

    def find(member: T) -> T:
        while (above := parent.setdefault(member, member)) != member:
            parent[member] = parent[above]
            member = above
        return member

    for members in sets:
        for member in members:
            low, high = sorted((find(members[0]), find(member)))
            parent[high] = low
    return {member: find(member) for member in parent}
