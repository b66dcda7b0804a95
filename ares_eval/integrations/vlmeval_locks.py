"""Locks that a process puts on itself and can never take off: for code that evaluates text written by a model.

    limits     memory, CPU time, size of files, no core file
    seccomp    no socket can be opened or used, no program started, no process traced, no namespace entered
    landlock   files: its own folder, and reading of what is named; signals: its own children only (Linux >= 6.12)
    audit      where Landlock is missing: the same rule for files, held by the interpreter alone (weaker)

Without seccomp (Linux on x86-64 or ARM64) `lock` refuses. Standard library only; call it before any thread is started.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

FILE_BYTES = 8 << 30
"""Largest file that may be written: more than any prediction table, less than a disk."""


class NoLock(Exception):
    """This system cannot lock a process down; the message says what is missing."""


def lock(own: Path, readable: Iterable[Path], *, memory_bytes: int, cpu_seconds: int) -> list[str]:
    """Lock this process and all it starts; the names of the locks that hold. Raises NoLock.

    ``own`` may be read and written, ``readable`` (files or folders) read. ``cpu_seconds`` and ``memory_bytes`` (address
    space) are for each process.
    """
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES:
        raise NoLock(f"no seccomp on {sys.platform} {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    held = ["limits"]
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise NoLock("no_new_privs is refused")
    paths = [path for path in readable if path.exists()]
    abi = _landlock(libc, own, paths)
    held.append(f"landlock {abi}" if abi else "audit")
    _seccomp(libc, signals=abi >= _SCOPED_SIGNALS)
    held.append("seccomp")
    if not abi:
        _audit(own, paths)
    return held


# ---------------------------------------------------------------- seccomp

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS, _PRETEND = 1, 38, 0
"""_PRETEND: the call returns success and does nothing."""
_X32 = 0x40000000

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine -> (AUDIT_ARCH, column in the tables below)."""

_FORBIDDEN = {
    "accept": (43, 202),
    "accept4": (288, 242),
    "acct": (163, 89),
    "add_key": (248, 217),
    "bind": (49, 200),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "connect": (42, 203),
    "delete_module": (176, 106),
    "execve": (59, 221),
    "execveat": (322, 281),
    "finit_module": (313, 273),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "listen": (50, 201),
    "migrate_pages": (256, 238),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "semget": (64, 190),
    "sendmmsg": (307, 269),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "settimeofday": (164, 170),
    "shmget": (29, 194),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
_SIGNALS = {
    "kill": (62, 129),
    "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "tgkill": (234, 131),
    "tkill": (200, 130),
}
_PRETENDED = {
    # Landlock does not know modes, owners, times and attributes; copying a file sets them.
    "chmod": (90, None),
    "chown": (92, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "fremovexattr": (199, 16),
    "fsetxattr": (190, 7),
    "futimesat": (261, None),
    "ioprio_set": (251, 30),
    "lchown": (94, None),
    "lremovexattr": (198, 15),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "sched_setaffinity": (203, 122),
    "setpriority": (141, 140),
    "setxattr": (188, 5),
    "utime": (132, None),
    "utimensat": (280, 88),
    "utimes": (235, None),
}
_CLONE, _CLONE3, _PRLIMIT = (56, 220), (435, 435), (302, 261)
_NEW_NAMESPACES = 0x7E020080
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET, TIME."""

_LD, _JEQ, _JSET, _JGE, _RET = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16
"""Offsets in struct seccomp_data; arguments are 8 bytes each, the low half first."""


def _seccomp(libc: Any, *, signals: bool) -> None:
    """``signals``: they are confined already and may be sent."""
    arch, column = _ARCHITECTURES[platform.machine()]
    program: list[tuple[int, int, int, int]] = [(_LD, 0, 0, _ARCH), (_JEQ, 1, 0, arch), (_RET, 0, 0, _KILL)]
    program.append((_LD, 0, 0, _NUMBER))
    if column == 0:
        program += [(_JGE, 0, 1, _X32), (_RET, 0, 0, _ERRNO | _ENOSYS)]
    refused = {**_FORBIDDEN, **({} if signals else _SIGNALS)}
    for table, result in ((refused, _EPERM), (_PRETENDED, _PRETEND)):
        for numbers in table.values():
            number = numbers[column]
            if number is not None:
                program += [(_JEQ, 0, 1, number), (_RET, 0, 0, _ERRNO | result)]
    # clone3 hides its flags behind a pointer; without it the C library falls back on clone.
    program += [(_JEQ, 0, 1, _CLONE3[column]), (_RET, 0, 0, _ERRNO | _ENOSYS)]
    program += [
        (_JEQ, 0, 4, _CLONE[column]),
        (_LD, 0, 0, _ARGUMENT),
        (_JSET, 0, 1, _NEW_NAMESPACES),
        (_RET, 0, 0, _ERRNO | _EPERM),
        (_RET, 0, 0, _ALLOW),
        # Limits of its own process only.
        (_JEQ, 0, 3, _PRLIMIT[column]),
        (_LD, 0, 0, _ARGUMENT),
        (_JEQ, 1, 0, 0),
        (_RET, 0, 0, _ERRNO | _EPERM),
        (_RET, 0, 0, _ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HP", len(program), ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.create_string_buffer(header, len(header)), 0, 0) != 0:
        raise NoLock(f"seccomp is refused: {os.strerror(ctypes.get_errno())}")


# ---------------------------------------------------------------- landlock

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_SCOPED_SIGNALS = 6
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_WRITE_FILE, _TRUNCATE, _REFER, _IOCTL = 1 << 1, 1 << 14, 1 << 13, 1 << 15
_READ = _READ_FILE | _READ_DIR | _EXECUTE
_FILE_RIGHTS = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def _landlock(libc: Any, own: Path, readable: Sequence[Path]) -> int:
    """The ABI's version, 0 where the kernel has none."""
    libc.syscall.restype = ctypes.c_long
    abi = int(libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1))
    if abi < 1:
        return 0
    every = (1 << 13) - 1
    every |= _REFER if abi >= 2 else 0
    every |= _TRUNCATE if abi >= 3 else 0
    every |= _IOCTL if abi >= 5 else 0
    attributes = struct.pack("QQQ", every, 3, 3)[: 8 if abi < 4 else 16 if abi < _SCOPED_SIGNALS else 24]
    ruleset = libc.syscall(
        _CREATE, ctypes.create_string_buffer(attributes, len(attributes)), ctypes.c_size_t(len(attributes)), 0
    )
    if ruleset < 0:
        return 0
    rules = [(own, every), *((path, _READ) for path in readable)]
    rules += [(Path(device), _READ_FILE | _WRITE_FILE) for device in _DEVICES]
    try:
        for path, rights in rules:
            _allow(libc, ruleset, path, rights & every)
        if libc.syscall(_RESTRICT, ruleset, 0) != 0:
            return 0
    finally:
        os.close(ruleset)
    return abi


def _allow(libc: Any, ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = struct.pack("=Qi", rights if path.is_dir() else rights & _FILE_RIGHTS, place)
        if libc.syscall(_ADD, ruleset, 1, ctypes.create_string_buffer(rule, len(rule)), 0) != 0:
            raise NoLock(f"Landlock does not take {path}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(place)


# ---------------------------------------------------------------- audit

_CHANGES = frozenset(
    {
        f"os.{call}"
        for call in ("remove", "rename", "rmdir", "mkdir", "link", "symlink", "truncate", "chmod", "chown", "utime")
    }
    | {f"shutil.{call}" for call in ("rmtree", "move", "copyfile", "copytree")}
)


def _audit(own: Path, readable: Sequence[Path]) -> None:
    """Hold the rule for files inside the interpreter; no hook can be removed."""
    real, inside = os.path.realpath, str(own.resolve()) + os.sep
    seen = (inside, *(str(path.resolve()) for path in readable), *_DEVICES)
    changes = _CHANGES

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or path is None:
                return
            wanted = real(os.fsdecode(path))
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if not (wanted + os.sep).startswith((inside, *_DEVICES) if writes else seen):
                raise PermissionError(f"not in the own folder: {wanted}")
        elif event in changes:
            for path in arguments[:2]:
                if isinstance(path, str | bytes | os.PathLike) and not (real(os.fsdecode(path)) + os.sep).startswith(
                    inside
                ):
                    raise PermissionError(f"not in the own folder: {path!r}")

    sys.addaudithook(check)
