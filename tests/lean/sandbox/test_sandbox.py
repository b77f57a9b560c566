"""Real programs in every confinement that works here, doing what they must not."""

import ctypes
import json
import logging
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from fdjax.errors import ConfigError
from fdjax.lean import CheckRequest, WasmBackend
from fdjax.lean.sandbox import confinement as sandbox
from fdjax.lean.sandbox.confinement import best_confinement, confined

PYTHON = os.path.realpath(sys.executable)
LIBRARY = Path(sys.base_prefix)


def reason_to_skip(confinement):
    """Asked of the system and not of our code, whose faults must not skip its tests."""
    if confinement == "bubblewrap":
        if shutil.which("bwrap") is None:
            return "bubblewrap is not installed"
        trial = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--", "/bin/true"]
        if subprocess.run(trial, check=False, timeout=10).returncode != 0:
            return "bubblewrap may not make namespaces here"
    if confinement == "landlock":
        abi = ctypes.CDLL(None).syscall(444, None, ctypes.c_long(0), 1)
        if abi < 1:
            return "the kernel has no Landlock"
    if confinement in ("landlock", "seccomp") and (
        os.uname().machine not in ("x86_64", "aarch64")
        or not Path("/proc/sys/kernel/seccomp").exists()
    ):
        return "system calls cannot be filtered"
    return ""


def confinements(*names):
    return [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                bool(reason_to_skip(name)), reason=reason_to_skip(name)
            ),
        )
        for name in names
    ]


every = pytest.mark.parametrize(
    "confinement", confinements("bubblewrap", "landlock", "seccomp", "rlimits")
)
filtered = pytest.mark.parametrize(
    "confinement", confinements("bubblewrap", "landlock", "seccomp")
)
in_bubblewrap = pytest.mark.parametrize("confinement", confinements("bubblewrap"))
hiding = pytest.mark.parametrize("confinement", confinements("bubblewrap", "landlock"))


def command_line(command, confinement, readable=(), **settings):
    settings = {"memory_mb": 256, **settings}
    return confined(
        command, readable=[LIBRARY, *readable], confinement=confinement, **settings
    )


def python(code, *arguments):
    return [PYTHON, "-I", "-S", "-c", textwrap.dedent(code), *map(str, arguments)]


def run(command, confinement, readable=(), **settings):
    return subprocess.run(
        command_line(command, confinement, readable, **settings),
        env={},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=20,
        check=False,
    )


def attempts_script(code):
    """Prints what each named attempt came to: `done`, or the error's name."""
    head = """
    import errno, json, os, socket, subprocess, sys
    def attempt(action):
        try:
            action()
        except OSError as error:
            return errno.errorcode[error.errno]
        return "done"
    """
    tail = "print(json.dumps({name: attempt(action) for name, action in attempts}))"
    return textwrap.dedent(head) + textwrap.dedent(code) + tail


def outcomes(code, *arguments, **settings):
    finished = run(python(attempts_script(code), *arguments), **settings)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def start(command, confinement, **settings):
    return subprocess.Popen(
        command_line(command, confinement, **settings),
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def with_marker(marker):
    """Processes, ended ones excepted, that have the marker among their arguments."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and marker.encode() in (
                process.joinpath("cmdline").read_bytes()
            ):
                found.append(int(process.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


SLEEP = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def marker(tmp_path):
    """A text for the arguments of processes of one test, which may not survive it."""
    text = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    yield text
    for pid in with_marker(text):
        os.kill(pid, signal.SIGKILL)


@every
def test_files_stay_as_they_are(confinement, tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    before = kept.stat()
    results = outcomes(
        """
        folder, home = sys.argv[1:]
        def write(path):
            with open(path, "w") as file:
                file.write("x")
        attempts = [
            ("write", lambda: write(folder + "/new")),
            ("write in /tmp", lambda: write("/tmp/fdjax-sandbox-test")),
            ("write at home", lambda: write(home + "/fdjax-sandbox-test")),
            ("write here", lambda: write("fdjax-sandbox-test")),
            ("append", lambda: open(folder + "/kept", "a").write("x")),
            ("truncate", lambda: os.truncate(folder + "/kept", 0)),
            ("remove", lambda: os.remove(folder + "/kept")),
            ("rename", lambda: os.rename(folder + "/kept", folder + "/moved")),
            ("link", lambda: os.link(folder + "/kept", folder + "/other")),
            ("make", lambda: os.mkdir(folder + "/made")),
            ("mode", lambda: os.chmod(folder + "/kept", 0o777)),
            ("times", lambda: os.utime(folder + "/kept")),
        ]
        """
        if confinement != "rlimits"
        # Files can be made and removed there; what holds is that nothing is in them.
        else """
        folder, _ = sys.argv[1:]
        descriptor = os.open(folder + "/kept", os.O_WRONLY | os.O_APPEND)
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        attempts = [("append", lambda: os.write(descriptor, b"x"))]
        """,
        tmp_path,
        Path.home(),
        confinement=confinement,
        readable=[tmp_path],
    )
    assert "done" not in results.values(), results
    assert kept.read_text() == "as it was"
    assert (kept.stat().st_mode, kept.stat().st_mtime_ns) == (
        before.st_mode,
        before.st_mtime_ns,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@hiding
def test_only_readable_files_are_read(confinement, tmp_path):
    shown, hidden = tmp_path / "shown", tmp_path / "hidden"
    shown.mkdir()
    hidden.mkdir()
    (shown / "file").write_text("public")
    (hidden / "file").write_text("secret")
    (shown / "link").symlink_to(hidden / "file")
    results = outcomes(
        """
        shown, hidden, parent = sys.argv[1:]
        attempts = [
            ("shown", lambda: open(shown + "/file").read()),
            ("hidden", lambda: open(hidden + "/file").read()),
            ("through a link", lambda: open(shown + "/link").read()),
            ("through dots", lambda: open(shown + "/../hidden/file").read()),
            ("through /proc", lambda: open("/proc/self/root" + hidden + "/file")),
            ("list", lambda: os.listdir(hidden)),
            ("accounts", lambda: open("/etc/passwd").read()),
            ("parent", lambda: open(f"/proc/{parent}/environ", "rb").read()),
        ]
        """,
        shown,
        hidden,
        os.getpid(),
        confinement=confinement,
        readable=[shown],
    )
    assert results.pop("shown") == "done"
    assert set(results.values()) <= {"EACCES", "ENOENT"}, results


@every
def test_no_network(confinement, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        results = outcomes(
            """
            host, port = "127.0.0.1", int(sys.argv[1])
            udp = lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", (host, 9))
            attempts = [
                ("tcp", lambda: socket.create_connection((host, port), timeout=5)),
                ("udp", udp),
                ("unix", lambda: socket.socket(socket.AF_UNIX)),
                ("listen", lambda: socket.create_server((host, 0))),
            ]
            """,
            server.getsockname()[1],
            confinement=confinement,
        )
        if confinement == "rlimits":
            # The attempts are real ones: they succeed where nothing stops them.
            assert set(results.values()) == {"done"}
            server.accept()[0].close()
        else:
            assert set(results.values()) == {"EPERM"}
            with pytest.raises(TimeoutError):
                server.accept()


@every
def test_only_the_given_environment(confinement, monkeypatch):
    monkeypatch.setenv("FDJAX_TEST_SECRET", "secret")
    code = "print(open('/proc/self/environ').read())"
    finished = run(python(code), confinement, environment={"LEAN_PATH": "/a:/b"})
    seen = set(filter(None, finished.stdout.strip().split("\0")))
    seen = {entry for entry in seen if not entry.startswith("PWD=")}
    assert seen == {"LEAN_PATH=/a:/b"}, finished.stderr


@every
def test_memory_is_limited(confinement):
    code = """
    kept = bytearray(32 << 20)
    try:
        bytearray(512 << 20)
    except MemoryError:
        print("refused")
    """
    assert run(python(code), confinement, memory_mb=128).stdout == "refused\n"


@every
def test_processor_time_is_limited(confinement):
    begin = time.monotonic()
    finished = run(python("while True: pass"), confinement, cpu_s=1)
    assert finished.returncode == 128 + signal.SIGXCPU
    assert time.monotonic() - begin < 15


@every
def test_limits_cannot_be_raised(confinement):
    code = """
    import resource
    for limit in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):
        try:
            resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except ValueError:
            print("refused")
    """
    assert run(python(code), confinement, cpu_s=9).stdout.split() == ["refused"] * 3


@every
def test_no_privileges(confinement):
    code = "print(open('/proc/self/status').read())"
    status = dict(
        line.split(":\t", 1)
        for line in run(python(code), confinement).stdout.splitlines()
        if ":\t" in line
    )
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


@filtered
def test_threads_but_no_processes(confinement):
    results = outcomes(
        """
        import ctypes, threading
        def spawn(): os.posix_spawn("/bin/true", ["true"], {})
        def unshare():
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(0x10000000) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
        def thread():
            done = []
            worker = threading.Thread(target=lambda: done.append(1))
            worker.start()
            worker.join()
            assert done
        attempts = [
            ("fork", os.fork), ("spawn", spawn), ("unshare", unshare),
            ("session", os.setsid), ("signal", lambda: os.kill(int(sys.argv[1]), 0)),
            ("thread", thread), ("own signal", lambda: os.kill(os.getpid(), 0)),
        ]
        """,
        os.getpid(),
        confinement=confinement,
    )
    assert results.pop("thread") == "done"
    assert results.pop("own signal") == "done"
    assert results.pop("signal") in ("EPERM", "ESRCH")
    assert set(results.values()) == {"EPERM"}


def start_in_bubblewrap_alone(command, readable=()):
    """Without the filter, which refuses most attempts before a namespace has to."""
    paths = [*sandbox.SYSTEM, str(LIBRARY), *map(str, readable)]
    paths = [path for path in paths if os.path.exists(path)]
    return subprocess.Popen(
        [*sandbox._bubblewrap(paths, {}), "--", *command],
        env={},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


@in_bubblewrap
def test_bubblewrap_alone_isolates(confinement, tmp_path):
    code = """
    folder, parent, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    attempts = [
        ("tcp", lambda: socket.create_connection(("127.0.0.1", port), timeout=5)),
        ("write", lambda: open(folder + "/new", "w")),
        ("mode", lambda: os.chmod(folder, 0o777)),
        ("write at the root", lambda: open("/new", "w")),
        ("make", lambda: os.mkdir("/tmp/new")),
        ("signal", lambda: os.kill(parent, 0)),
    ]
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = python(attempts_script(code), tmp_path, os.getpid(), port)
        with start_in_bubblewrap_alone(command, [tmp_path]) as process:
            results = json.loads(process.stdout.read())
    assert set(results.values()) <= {"ENETUNREACH", "ECONNREFUSED", "EROFS", "ESRCH"}


@pytest.mark.parametrize("confinement", confinements("landlock"))
def test_landlock_alone_isolates(confinement, tmp_path):
    code = """
    launcher, folder, parent, port = sys.argv[1:]
    sys.path.insert(0, launcher)
    import confine
    confine._drop_privileges()
    confine._landlock([folder])
    abi = confine._call("syscall", confine.CREATE_RULESET, None, 0, 1)
    attempts = [
        ("read", lambda: os.listdir(folder)),
        ("read outside", lambda: os.listdir("/")),
        ("write", lambda: open(folder + "/new", "w")),
        ("make", lambda: os.mkdir(folder + "/made")),
    ]
    host = "127.0.0.1"
    if abi >= 4:
        connect = lambda: socket.create_connection((host, int(port)), timeout=5)
        attempts += [("tcp", connect)]
        attempts += [("listen", lambda: socket.create_server((host, 0)))]
    if abi >= 6:
        attempts += [("signal", lambda: os.kill(int(parent), 0))]
    """
    folder = sandbox.LAUNCHER.parent
    with socket.create_server(("127.0.0.1", 0)) as server:
        results = outcomes(
            code,
            folder,
            tmp_path,
            os.getpid(),
            server.getsockname()[1],
            confinement="rlimits",
        )
    assert results.pop("read") == "done"
    assert set(results.values()) <= {"EACCES", "EPERM"}


@in_bubblewrap
def test_bubblewrap_alone_ends_processes_in_sessions_of_their_own(confinement, marker):
    code = """
    import subprocess, sys, time
    sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
    subprocess.Popen([*sleep, *sys.argv[1:]], start_new_session=True)
    print("up", flush=True)
    time.sleep(60)
    """
    with start_in_bubblewrap_alone(python(code, marker)) as process:
        assert process.stdout.readline() == b"up\n"
        # bwrap twice, the program, and its child.
        assert wait_until(lambda: len(with_marker(marker)) == 4)
        os.killpg(process.pid, signal.SIGKILL)
        assert wait_until(lambda: not with_marker(marker))


@every
@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_killing_the_supervisor_or_its_group_ends_all(confinement, kill, marker):
    with start(python(SLEEP, marker), confinement) as process:
        assert process.stdout.readline() == b"up\n"
        assert len(with_marker(marker)) >= 2
        kill(process.pid, signal.SIGKILL)
        assert wait_until(lambda: not with_marker(marker))


@every
def test_nothing_outlives_a_killed_parent(confinement, marker):
    code = f"""
    import subprocess, sys, time
    from pathlib import Path
    from fdjax.lean.sandbox.confinement import confined
    command = confined(
        {python(SLEEP, marker)!r},
        readable=[Path({str(LIBRARY)!r})], memory_mb=256, confinement={confinement!r},
    )
    subprocess.Popen(command, env={{}}, stdin=subprocess.PIPE, start_new_session=True)
    time.sleep(60)
    """
    root = str(Path(sandbox.__file__).parents[3])
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout.readline() == b"up\n"
        assert len(with_marker(marker)) >= 3
        parent.kill()
        assert wait_until(lambda: not with_marker(marker))


def test_a_parent_that_ended_before_the_start_is_noticed(marker):
    command = command_line(python(SLEEP, marker), "rlimits")
    settings = json.loads(command[4])
    command[4] = json.dumps({**settings, "parent": settings["parent"] + 1})
    process = subprocess.Popen(
        command, env={}, stdout=subprocess.PIPE, start_new_session=True
    )
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGKILL
    assert not with_marker(marker)


@every
def test_the_thread_that_started_it_may_end(confinement):
    started = []
    thread = threading.Thread(
        target=lambda: started.append(start(["/bin/cat"], confinement))
    )
    thread.start()
    thread.join()
    [process] = started
    time.sleep(0.7)
    output, _ = process.communicate(b"still here\n", timeout=10)
    assert output == b"still here\n"
    assert process.returncode == 0


@every
def test_lines_come_back_without_delay(confinement):
    code = """
    import json, sys
    for line in sys.stdin:
        print(json.dumps({"answer": json.loads(line)["number"] + 1}), flush=True)
    """
    seconds = []
    with start(python(code), confinement) as process:
        for number in range(300):
            begin = time.perf_counter()
            process.stdin.write(json.dumps({"number": number}).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            seconds.append(time.perf_counter() - begin)
            assert answer == {"answer": number + 1}
        process.stdin.close()
        assert process.wait(10) == 0
    assert statistics.median(seconds) < 0.005


@every
def test_exit_status(confinement):
    assert run(python("raise SystemExit(3)"), confinement).returncode == 3
    assert run(python("raise SystemExit(1)"), confinement).returncode == 1
    abort = run(python("import os; os.abort()"), confinement)
    assert abort.returncode == 128 + signal.SIGABRT


@every
@pytest.mark.parametrize(
    ("name", "complaint"),
    [("absent", "No such file"), ("unexecutable", "Permission denied")],
)
def test_a_program_that_cannot_run(confinement, name, complaint, tmp_path):
    (tmp_path / "unexecutable").write_text("")
    program = str(tmp_path / name)
    finished = run([program], confinement, readable=[tmp_path])
    assert finished.returncode == 127
    assert program in finished.stderr
    assert complaint in finished.stderr


@hiding
def test_a_program_outside_cannot_run(confinement, tmp_path):
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    assert run([str(program)], confinement, readable=[program]).returncode == 0
    assert run([str(program)], confinement).returncode == 127


def test_what_cannot_be_confined_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="absolute path"):
        confined(["lean"], readable=[], memory_mb=512)
    with pytest.raises(ConfigError, match="nowhere"):
        confined(["/bin/true"], readable=[tmp_path / "nowhere"], memory_mb=512)


def test_a_sandbox_that_cannot_be_set_up_is_not_run_without():
    command = command_line(["/bin/true"], "landlock")
    settings = json.loads(command[4])
    command[4] = json.dumps({**settings, "readable": ["/nowhere"]})
    finished = subprocess.run(
        command, env={}, capture_output=True, timeout=10, check=False
    )
    assert finished.returncode == 125
    assert b"landlock sandbox failed" in finished.stderr


def test_the_strongest_that_works_is_chosen():
    working = [
        name
        for name in ("bubblewrap", "landlock", "seccomp", "rlimits")
        if not reason_to_skip(name)
    ]
    assert best_confinement() == working[0]


@pytest.mark.parametrize(
    ("working", "says"),
    [({"seccomp"}, "can read every file"), (set(), "limits of memory and CPU")],
)
def test_a_weak_confinement_is_told_once(working, says, monkeypatch, caplog):
    monkeypatch.setattr(sandbox, "_works", lambda name: name in working)
    sandbox._best.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            chosen = {best_confinement() for _ in range(3)}
    finally:
        sandbox._best.cache_clear()
    assert chosen == (working or {"rlimits"})
    [record] = caplog.records
    assert says in record.getMessage()
    assert "Install bubblewrap" in record.getMessage()


@filtered
def test_the_embedded_lean_works_confined(confinement, lean_folder):
    backend = WasmBackend(lean_folder, confinement=confinement)
    request = CheckRequest(
        name="two", header="", statement="theorem two : 1 + 1 = 2", proof="  rfl"
    )
    try:
        report = backend.check(request)
        assert report.target.matches_statement
        assert not report.has_errors
    finally:
        backend.close()
