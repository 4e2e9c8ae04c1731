"""Memory as the machine, control groups and the shell allow; cores are tested with the worker pool."""

import resource

import pytest

from tfdetect import machine

GB = 10**9


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A machine of 16 GB, of which 12 GB are free, without limits; the folder of its control groups."""
    monkeypatch.setattr(machine, "CGROUP_FILE", tmp_path / "own")
    monkeypatch.setattr(machine, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(machine, "MEMORY_FILE", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "total_memory", lambda: 16 * GB)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (tmp_path / "meminfo").write_text(f"MemTotal: {16 * GB // 1000} kB\nMemAvailable:   {12 * GB // 1024} kB\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "memory" / "c").mkdir(parents=True)
    (tmp_path / "own").write_text("5:cpu,memory:/c\n0::/a/b\n")
    return tmp_path


def write_group(folder, names, limit, used, cached):
    for name, text in zip(names, (limit, used, f"anon 5\n{names[3]} {cached}\n"), strict=False):
        (folder / name).write_text(str(text))


VERSION_2 = ("memory.max", "memory.current", "memory.stat", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_inactive_file")


def test_memory_of_a_machine_without_limits(system):
    assert machine.memory_limit() == 16 * GB and machine.free_memory() == pytest.approx(12 * GB, abs=1024)
    write_group(system / "a", VERSION_2, "max", 3 * GB, 0)
    write_group(system / "memory", VERSION_1, 2**63 - 4096, 3 * GB, 0)  # as version 1 says "none"
    assert machine.memory_limit() == 16 * GB


@pytest.mark.parametrize("group, names", [("a/b", VERSION_2), ("a", VERSION_2), ("memory/c", VERSION_1)])
def test_memory_respects_control_groups_of_both_versions(system, group, names):
    write_group(system / group, names, 4 * GB, 3 * GB, GB)
    assert machine.memory_limit() == 4 * GB and machine.free_memory() == 2 * GB, "file cache counts as free"


def test_memory_respects_the_shell(system, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (GB, GB))
    assert machine.memory_limit() == machine.free_memory() == GB


def test_memory_of_this_machine_is_plausible():
    assert 0 < machine.free_memory() <= machine.memory_limit() <= machine.total_memory()
