"""The filter's decisions, computed, so that those for another machine are seen too."""

import errno
import os
import struct

import pytest

from fdjax.lean.sandbox.confine import seccomp_filter

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def decision(program, architecture, number, *arguments):
    """What the kernel's filter machine answers; only what our programs use."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, architecture, 0, *padded)
    code = list(struct.iter_unpack("=HBBI", program))
    position = 0
    accumulator = 0
    while True:
        operation, yes, no, value = code[position]
        position += 1
        if operation == 0x06:
            return value
        if operation == 0x20:
            [accumulator] = struct.unpack_from("=I", data, value)
            continue
        holds = {
            0x15: accumulator == value,
            0x35: accumulator >= value,
            0x45: accumulator & value != 0,
        }[operation]
        position += yes if holds else no


@pytest.mark.parametrize(
    ("machine", "architecture", "calls"),
    [
        # read, socket, openat, clone, clone3, tgkill, fchmodat; from Linux's headers
        ("x86_64", 0xC000003E, (0, 41, 257, 56, 435, 234, 268)),
        ("aarch64", 0xC00000B7, (63, 198, 56, 220, 435, 131, 53)),
    ],
)
def test_the_filter_on_either_machine(machine, architecture, calls):
    program = seccomp_filter(machine, 1234)
    read, open_socket, openat, clone, clone3, tgkill, fchmodat = calls

    def decide(*call):
        return decision(program, architecture, *call)

    refused = ERRNO | errno.EPERM
    assert decide(read) == ALLOW
    assert decide(open_socket) == refused
    assert decide(fchmodat) == refused
    assert decide(openat, 0, 0, os.O_RDONLY | os.O_CLOEXEC) == ALLOW
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_TMPFILE | 2):
        assert decide(openat, 0, 0, flags) == refused
    assert decide(clone, 0x3D0F00) == ALLOW  # as pthread_create does
    assert decide(clone, 0x1200011) == refused  # as fork does
    assert decide(clone, 0x4111) == refused  # as posix_spawn does
    assert decide(clone3) == ERRNO | errno.ENOSYS
    assert decide(tgkill, 1234) == ALLOW
    assert decide(tgkill, 1) == refused
    assert decision(program, 0x40000003, read) == KILL  # 32-bit x86
    if machine == "x86_64":
        assert decide(0x40000000 | read) == KILL  # the x32 interface


def test_no_filter_for_another_machine():
    with pytest.raises(OSError, match="riscv64"):
        seccomp_filter("riscv64", None)
