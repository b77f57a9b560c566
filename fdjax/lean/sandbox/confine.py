"""Run one program confined, and end it when the process that asked for it ends.

Started by the command lines of `fdjax.lean.sandbox.confinement`, by path and with
`-I -S`, so it imports the standard library only. It stays as a small supervisor: a
parent-death signal alone is sent when the parent's *thread* ends, which is too early
for a worker that was started from a thread pool.

Exit status: the program's own, 128 + n where signal n ended it, 127 where it cannot be
started, 125 where the confinement cannot be set up.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, NoReturn

NOT_CONFINED = 125
NOT_STARTED = 127
WATCH_S = 0.5
"""How often the supervisor looks whether its parent is alive."""
OPEN_FILES = 256

MIB = 1 << 20
DEVICES = ("/dev/null", "/dev/urandom")

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION = 0x20080522

# Landlock; the numbers are the same on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_QUERY = 1
PATH_BENEATH = 1
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3
FILE_RIGHTS_BY_ABI = (13, 14, 15, 15, 16)
"""Number of file rights in ABI 1, 2, …; the last holds for all later ones."""

# System calls as (x86_64, aarch64); None where the architecture lacks the call.
REFUSED = {
    # Other processes, other namespaces, and leaving the process group.
    "fork": (57, None),
    "vfork": (58, None),
    "unshare": (272, 97),
    "setns": (308, 268),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "tkill": (200, 130),
    # Every address family: a path-named unix socket reaches local services.
    "socket": (41, 198),
    # What outlives the process, and kernel interfaces that no prover needs.
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    # Changes to files; Landlock does not cover modes, owners, times and attributes.
    "creat": (85, None),
    "truncate": (76, 45),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
# Their arguments are in memory, which a filter cannot read; libraries fall back to
# older calls when told that these do not exist.
UNKNOWN = {
    "clone3": (435, 435),
    "openat2": (437, 437),
    "io_uring_setup": (425, 425),
}
# Allowed on the process itself: `abort` and thread signals need them.
ONLY_OWN = {"kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261)}
OPEN, OPENAT, CLONE, PRCTL = (2, None), (257, 56), (56, 220), (157, 167)

EPERM, ENOSYS = 1, 38
CLONE_THREAD = 0x10000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
AUDIT_ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
X32_CALLS = 0x40000000

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
CALL_NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
SECOND_ARGUMENT = FIRST_ARGUMENT + 8


def main() -> NoReturn:
    """Read the settings, start the program, wait for its end."""
    settings, command = json.loads(sys.argv[1]), sys.argv[2:]
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    supervisor = os.getpid()
    record, report = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become(command, settings, supervisor, report)
        except (OSError, ValueError, AttributeError) as error:
            _fail(
                NOT_CONFINED, f"the {settings['confinement']} sandbox failed: {error}"
            )
    os.close(report)
    code = _supervise(child, settings["parent"])
    # bwrap ends with 1 where it could not start the program, and records no exit code.
    if (
        settings["bubblewrap"]
        and code == 1
        and b"exit-code" not in os.read(record, MIB)
    ):
        code = NOT_STARTED
    os._exit(code)


def _supervise(child: int, parent: int) -> int:
    """Wait for the child; kill the whole group when `parent` is gone."""
    # The other end must see end-of-file when the program closes its streams.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)

    def look(*_: object) -> None:
        if os.getppid() != parent:
            os.killpg(0, signal.SIGKILL)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, WATCH_S, WATCH_S)
    look()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 128 - code if code < 0 else code


def _become(
    command: list[str], settings: dict[str, Any], supervisor: int, report: int
) -> NoReturn:
    linux = sys.platform == "linux"
    confinement = settings["confinement"]
    if not linux and confinement != "rlimits":
        raise OSError(f"expected Linux, got {sys.platform}")
    if linux:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(NOT_CONFINED)
    _limit(settings["memory_mb"], settings["cpu_s"])
    # Python ignores these, and what is ignored stays so in the program.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    environment = settings["environment"]
    if confinement == "bubblewrap":
        # In a process namespace there is no other process to be protected from.
        program = _pipe_with(seccomp_filter(os.uname().machine, None))
        os.set_inheritable(report, True)
        options = ["--json-status-fd", str(report), "--seccomp", str(program)]
        command = [*settings["bubblewrap"], *options, "--", *command]
        environment = {}
    elif linux:
        _drop_privileges()
        if confinement == "landlock":
            _landlock(settings["readable"])
        if confinement != "rlimits":
            _install(seccomp_filter(os.uname().machine, os.getpid()))
    try:
        os.execve(command[0], command, environment)
    except OSError as error:
        _fail(NOT_STARTED, f"cannot start {command[0]}: {error.strerror}")


def _limit(memory_mb: int, cpu_s: int | None) -> None:
    # DATA and not AS: memory-mapped library files and WebAssembly's reservations take
    # gigabytes of addresses and no memory of their own.
    limits = [
        (resource.RLIMIT_DATA, memory_mb * MIB, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES, 0),
    ]
    if cpu_s is not None:
        # SIGXCPU first, SIGKILL a second later.
        limits.append((resource.RLIMIT_CPU, cpu_s, 1))
    for name, value, slack in limits:
        hard = resource.getrlimit(name)[1]
        highest = value + slack
        if hard != resource.RLIM_INFINITY:
            highest = min(highest, hard)
        resource.setrlimit(name, (min(value, highest), highest))


def _drop_privileges() -> None:
    """Give up all capabilities; `execve` then returns none, not even to root."""
    _call("capset", struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def _landlock(readable: list[str]) -> None:
    """Allow reading below `readable`; no writing, no TCP, no signals to others."""
    abi = _call("syscall", CREATE_RULESET, None, 0, VERSION_QUERY)
    rights = FILE_RIGHTS_BY_ABI[min(abi, len(FILE_RIGHTS_BY_ABI)) - 1]
    network = 0b11 if abi >= 4 else 0
    scopes = 0b11 if abi >= 6 else 0
    attributes = struct.pack("=QQQ", (1 << rights) - 1, network, scopes)
    ruleset = _call("syscall", CREATE_RULESET, attributes, len(attributes), 0)
    # Its own folder in /proc: threads ask there for their stack.
    for path in [*readable, *DEVICES, "/proc/self"]:
        access = EXECUTE | READ_FILE | (READ_DIR if os.path.isdir(path) else 0)
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", access, descriptor)
        _call("syscall", ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
        os.close(descriptor)
    _call("syscall", RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def seccomp_filter(machine: str, own_pid: int | None) -> bytes:
    """A BPF program that refuses processes, sockets and changes to files.

    Args:
      machine: as `uname -m` says it.
      own_pid: the only process that may be signalled; None allows every process.

    Raises:
      OSError: there is no table of system calls for this machine.
    """
    if machine not in AUDIT_ARCHES:
        raise OSError(f"expected a machine out of {list(AUDIT_ARCHES)}, got {machine}")
    column, architecture = AUDIT_ARCHES[machine]
    program = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, CALL_NUMBER),
    ]
    if machine == "x86_64":
        program += [(AT_LEAST, 0, 1, X32_CALLS), (RETURN, 0, 0, KILL)]

    def rule(call: tuple[int, int | None], *body: tuple[int, int, int, int]) -> None:
        number = call[column]
        if number is not None:
            program.extend([(EQUAL, 0, len(body), number), *body])

    allow, refuse = (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO | EPERM)
    for call in REFUSED.values():
        rule(call, refuse)
    for call in UNKNOWN.values():
        rule(call, (RETURN, 0, 0, ERRNO | ENOSYS))
    for call, argument in ((OPEN, SECOND_ARGUMENT), (OPENAT, SECOND_ARGUMENT + 8)):
        rule(call, (LOAD, 0, 0, argument), (ANY_BIT, 0, 1, WRITING), refuse, allow)
    first = (LOAD, 0, 0, FIRST_ARGUMENT)
    rule(CLONE, first, (ANY_BIT, 1, 0, CLONE_THREAD), refuse, allow)
    rule(PRCTL, first, (EQUAL, 0, 1, PR_SET_PDEATHSIG), refuse, allow)
    if own_pid is not None:
        for call in ONLY_OWN.values():
            rule(call, first, (EQUAL, 2, 0, 0), (EQUAL, 1, 0, own_pid), refuse, allow)
    program.append(allow)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _install(program: bytes) -> None:
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header)


def _pipe_with(content: bytes) -> int:
    """The reading end, inheritable, of a pipe that holds `content`."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    os.set_inheritable(reader, True)
    return reader


def _prctl(*arguments: int | bytes) -> None:
    _call("prctl", *arguments, *[0] * (5 - len(arguments)))


def _call(function: str, *arguments: int | bytes | None) -> int:
    # C functions with `...` read whole registers, where ctypes would fill half.
    whole = [
        ctypes.c_long(value) if isinstance(value, int) else value for value in arguments
    ]
    result = getattr(ctypes.CDLL(None, use_errno=True), function)(*whole)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result


def _fail(code: int, message: str) -> NoReturn:
    sys.stderr.write(f"fdjax: {message}\n")
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
