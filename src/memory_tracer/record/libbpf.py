"""The part of libbpf that memory-tracer uses, bound with ctypes.

The system's libbpf loads, relocates and attaches the program; this module only names its functions
and turns its error codes and its log into exceptions. See docs/dependencies.md for what was weighed
against it. Source of the prototypes: libbpf 1.1, ``bpf/libbpf.h``, ``bpf/bpf.h``, ``bpf/btf.h``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from ctypes import CFUNCTYPE, POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

from ..errors import LoadError, PrivilegeError, UnsupportedError

_SONAME = "libbpf.so.1"
_LOG_LIMIT = 1 << 20
_ITERATOR_BYTES = 1 << 16
_LEVEL_INFO = 1  # enum libbpf_print_level; above it is tracing of libbpf itself

_PRINT_CALLBACK = CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)

_PROTOTYPES: dict[str, tuple[object, list[object]]] = {
    "libbpf_set_print": (c_void_p, [_PRINT_CALLBACK]),
    "libbpf_version_string": (c_char_p, []),
    "bpf_object__open_file": (c_void_p, [c_char_p, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__btf": (c_void_p, [c_void_p]),
    "bpf_object__next_program": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__find_program_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_object__find_map_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_program__name": (c_char_p, [c_void_p]),
    "bpf_program__section_name": (c_char_p, [c_void_p]),
    "bpf_program__set_autoload": (c_int, [c_void_p, c_bool]),
    "bpf_program__set_attach_target": (c_int, [c_void_p, c_int, c_char_p]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_program__attach": (c_void_p, [c_void_p]),
    "bpf_program__attach_perf_event": (c_void_p, [c_void_p, c_int]),
    "bpf_program__attach_iter": (c_void_p, [c_void_p, c_void_p]),
    "bpf_link__destroy": (c_int, [c_void_p]),
    "bpf_link__fd": (c_int, [c_void_p]),
    "bpf_iter_create": (c_int, [c_int]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_map__reuse_fd": (c_int, [c_void_p, c_int]),
    "bpf_map_create": (c_int, [c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p]),
    "bpf_map__initial_value": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "bpf_map__value_size": (c_uint32, [c_void_p]),
    "bpf_map_lookup_elem": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_update_elem": (c_int, [c_int, c_void_p, c_void_p, c_uint64]),
    "bpf_map_delete_elem": (c_int, [c_int, c_void_p]),
    "bpf_map_lookup_batch": (
        c_int,
        [c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p],
    ),
    "bpf_prog_load": (c_int, [c_int, c_char_p, c_char_p, c_char_p, c_size_t, c_void_p]),
    "bpf_prog_test_run_opts": (c_int, [c_int, c_void_p]),
    "bpf_raw_tracepoint_open": (c_int, [c_char_p, c_int]),
    "libbpf_find_vmlinux_btf_id": (c_int, [c_char_p, c_int]),
    "libbpf_num_possible_cpus": (c_int, []),
    "btf__find_by_name_kind": (c_int, [c_void_p, c_char_p, c_uint32]),
    "btf__type_by_id": (POINTER(c_uint32), [c_void_p, c_uint32]),
    "btf__name_by_offset": (c_char_p, [c_void_p, c_uint32]),
}

BTF_KIND_DATASEC = 15
_BPF_MAP_TYPE_RINGBUF = 27

_MISMATCH = "the BPF object and this version of memory-tracer do not belong together; reinstall it"

#: Entries of a map read at once; more than any bucket of a hash map holds.
_BATCH = 1024

#: Update flags of bpf(2).
BPF_ANY = 0
BPF_EXIST = 2


class Library:
    """libbpf itself: its functions, and the log it writes while they run."""

    def __init__(self) -> None:
        """Load the library; raises UnsupportedError when the system has none."""
        try:
            self._functions = ctypes.CDLL(_SONAME, use_errno=True)
            self._libc = ctypes.CDLL(None)
        except OSError as error:
            raise UnsupportedError(
                f"{_SONAME} was not found; install libbpf 1.0 or later (Debian, Ubuntu: apt install libbpf1)",
                detail=str(error),
            ) from error
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(self._functions, name, None)
            if function is None:
                raise UnsupportedError(f"{_SONAME} is too old: it lacks {name}; install libbpf 1.0 or later")
            function.restype = result
            function.argtypes = arguments
        self._libc.vsnprintf.argtypes = [c_char_p, c_size_t, c_char_p, c_void_p]
        self._log: list[str] = []
        self._log_bytes = 0
        self._callback = _PRINT_CALLBACK(self._print)  # libbpf keeps the pointer: so must we
        self._functions.libbpf_set_print(self._callback)

    def _print(self, level: int, text: bytes, arguments: int) -> int:
        """Keep a log line. A va_list argument is a pointer on x86-64 and aarch64 alike."""
        if level > _LEVEL_INFO:
            return 0
        buffer = ctypes.create_string_buffer(1 << 16)
        length: int = self._libc.vsnprintf(buffer, len(buffer), text, arguments)
        if length > 0 and self._log_bytes < _LOG_LIMIT:
            line = buffer.value.decode(errors="replace")
            self._log.append(line)
            self._log_bytes += len(line)
        return length

    @contextlib.contextmanager
    def silenced(self) -> Iterator[None]:
        """Keep no log: libbpf says some thousand lines at a load, and each is a call back to here."""
        self._functions.libbpf_set_print(_PRINT_CALLBACK())
        try:
            yield
        finally:
            self._functions.libbpf_set_print(self._callback)

    @property
    def version(self) -> str:
        """For example ``v1.1``."""
        text: bytes = self._functions.libbpf_version_string()
        return text.decode()

    @property
    def log(self) -> str:
        """Everything libbpf said so far, the verifier's log included."""
        return "".join(self._log)

    def call(self, name: str, *arguments: object) -> int:
        """Call a function that returns an int, as it is: negative means -errno."""
        result: int = getattr(self._functions, name)(*arguments)
        return result

    def pointer(self, name: str, *arguments: object) -> int:
        """Call a function that returns a pointer; raises OSError when it returns NULL."""
        result = getattr(self._functions, name)(*arguments)
        if not result:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), name)
        address: int = result
        return address

    def create_ring(self, name: str, size: int) -> int | None:
        """Create a ring buffer for an object's map of that name; None when the kernel refuses."""
        descriptor = self.call("bpf_map_create", _BPF_MAP_TYPE_RINGBUF, name.encode(), 0, 0, size, None)
        return descriptor if descriptor >= 0 else None

    def text(self, name: str, *arguments: object) -> str:
        """Call a function that returns a C string."""
        result: bytes = getattr(self._functions, name)(*arguments)
        return result.decode()

    def words(self, name: str, *arguments: object) -> ctypes._Pointer[c_uint32]:
        """Call a function that returns a pointer to 32-bit words (a BTF type)."""
        result: ctypes._Pointer[c_uint32] = getattr(self._functions, name)(*arguments)
        return result


class Map:
    """One map of a loaded object. Keys and values are raw bytes."""

    def __init__(self, library: Library, handle: int) -> None:
        """Wrap the ``struct bpf_map *`` ``handle``."""
        self._library = library
        self._handle = handle

    @property
    def fd(self) -> int:
        """The map's file descriptor, -1 before load."""
        return self._library.call("bpf_map__fd", self._handle)

    def set_max_entries(self, entries: int) -> None:
        """Resize before load."""
        _check(self._library.call("bpf_map__set_max_entries", self._handle, entries), "resize a map")

    def use(self, descriptor: int) -> None:
        """Take a map that exists, instead of creating one at load; the descriptor stays the caller's."""
        _check(self._library.call("bpf_map__reuse_fd", self._handle, descriptor), "use a map")

    def write_initial(self, offset: int, data: bytes) -> None:
        """Write into a data section's map (``.rodata``) before load."""
        size = c_size_t()
        base = self._library.pointer("bpf_map__initial_value", self._handle, ctypes.byref(size))
        if offset + len(data) > size.value:
            raise LoadError(_MISMATCH)
        ctypes.memmove(base + offset, data, len(data))

    def lookup(self, key: bytes, size: int) -> bytes | None:
        """Return the value of ``key`` (``size`` bytes), or None."""
        value = ctypes.create_string_buffer(size)
        if self._library.call("bpf_map_lookup_elem", self.fd, key, value) < 0:
            return None
        return value.raw

    def lookup_per_cpu(self, key: bytes) -> list[bytes]:
        """Return the values of all possible CPUs of a per-CPU map."""
        cpus = self._library.call("libbpf_num_possible_cpus")
        size = (self._library.call("bpf_map__value_size", self._handle) + 7) & ~7
        values = self.lookup(key, size * cpus)
        return [values[i * size : (i + 1) * size] for i in range(cpus)] if values else []

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """Insert or replace; raises LoadError when the kernel refuses (map full)."""
        _check(self._library.call("bpf_map_update_elem", self.fd, key, value, flags), "fill a kernel map")

    def delete(self, key: bytes) -> None:
        """Remove ``key`` if it is there."""
        self._library.call("bpf_map_delete_elem", self.fd, key)

    def items(self, key_size: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
        """Walk over keys and values of a hash map, many at a time; entries may come and go meanwhile."""
        keys = ctypes.create_string_buffer(key_size * _BATCH)
        values = ctypes.create_string_buffer(value_size * _BATCH)
        position, count = c_uint32(), c_uint32()
        begun, result = None, 0
        while result == 0:
            count.value = _BATCH
            result = self._library.call(
                "bpf_map_lookup_batch",
                *(self.fd, begun, ctypes.byref(position), keys, values, ctypes.byref(count), None),
            )
            if result not in (0, -errno.ENOENT):  # ENOENT: that was the last piece
                _check(result, "read a kernel map")
            begun = ctypes.byref(position)
            for index in range(count.value):
                yield (
                    keys.raw[index * key_size : (index + 1) * key_size],
                    values.raw[index * value_size : (index + 1) * value_size],
                )


class Object:
    """A BPF object file, opened and then loaded."""

    def __init__(self, library: Library, path: Path) -> None:
        """Open (parse) the object at ``path``."""
        self.library = library
        try:
            self._handle: int | None = library.pointer("bpf_object__open_file", os.fsencode(path), None)
        except OSError as error:
            raise LoadError(
                f"the BPF object cannot be opened: {error.strerror}; reinstall memory-tracer",
                detail=library.log,
            ) from error
        self._links: list[int] = []

    def programs(self) -> Iterator[str]:
        """Names of all programs in the object."""
        program: int | None = None
        while True:
            try:
                program = self.library.pointer("bpf_object__next_program", self._handle, program)
            except OSError:
                return
            yield self.library.text("bpf_program__name", program)

    def _program(self, name: str) -> int:
        return self._find("bpf_object__find_program_by_name", name)

    def _find(self, function: str, name: str) -> int:
        try:
            return self.library.pointer(function, self._handle, name.encode())
        except OSError as error:
            raise LoadError(_MISMATCH, detail=f"{function}({name}): {error.strerror}") from error

    def section(self, name: str) -> str:
        """The ELF section of program ``name``, without libbpf's ``?``."""
        return self.library.text("bpf_program__section_name", self._program(name)).lstrip("?")

    def set_autoload(self, name: str, wanted: bool) -> None:
        """Choose whether ``load`` loads program ``name``."""
        _check(
            self.library.call("bpf_program__set_autoload", self._program(name), wanted), "select a program"
        )

    def set_function(self, name: str, function: str) -> None:
        """Choose the function of the kernel that program ``name`` is for."""
        _check(
            self.library.call("bpf_program__set_attach_target", self._program(name), 0, function.encode()),
            "select a function",
        )

    def map(self, name: str) -> Map:
        """The map called ``name``."""
        return Map(self.library, self._find("bpf_object__find_map_by_name", name))

    def variable_offset(self, section: str, name: str) -> int:
        """Offset of a global variable in its data section, from the object's BTF."""
        btf = self.library.pointer("bpf_object__btf", self._handle)
        identifier = self.library.call("btf__find_by_name_kind", btf, section.encode(), BTF_KIND_DATASEC)
        _check(identifier, f"find section {section}")
        # struct btf_type {name_off, info, size}, then vlen times struct btf_var_secinfo
        # {type, offset, size} (include/uapi/linux/btf.h).
        words = self.library.words("btf__type_by_id", btf, identifier)
        for index in range(words[1] & 0xFFFF):
            variable, offset = int(words[3 + 3 * index]), int(words[4 + 3 * index])
            label = self.library.words("btf__type_by_id", btf, variable)[0]
            if self.library.text("btf__name_by_offset", btf, label) == name:
                return offset
        raise LoadError(_MISMATCH)

    def load(self, meanwhile: Callable[[], None] | None = None) -> None:
        """Verify and load the selected programs and all maps.

        That is the kernel's work; ``meanwhile`` is done at the same time.
        """
        result = self._load() if meanwhile is None else self._load_beside(meanwhile)
        if result == 0:
            return
        number = -result
        # The verifier also says EACCES, but not without its closing statistics.
        if number in (errno.EPERM, errno.EACCES) and "processed" not in self.library.log:
            raise PrivilegeError(
                "the kernel refused to load a BPF program: run as root, or with CAP_BPF, CAP_PERFMON "
                "and CAP_SYS_RESOURCE",
                detail=self.library.log,
            )
        raise LoadError(
            f"the kernel did not accept the BPF program ({os.strerror(number)}); "
            "run again with --verbose for the verifier's reason",
            detail=self.library.log,
        )

    def _load(self) -> int:
        return self.library.call("bpf_object__load", self._handle)

    def _load_beside(self, meanwhile: Callable[[], None]) -> int:
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(self._load()))
        thread.start()
        try:
            meanwhile()
        finally:
            # Nobody may free the object before that: a signal waits.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            thread.join()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return results[0]

    def fill_program_array(self, array: str, name: str) -> None:
        """Put program ``name`` into slot 0 of a map of programs, for tail calls."""
        descriptor = self.library.call("bpf_program__fd", self._program(name))
        self.map(array).update(bytes(4), descriptor.to_bytes(4, "little"))

    def test_run(self, name: str, context: bytes) -> int:
        """Run a raw tracepoint program once, here and now (BPF_PROG_TEST_RUN); returns its result."""
        program = self.library.call("bpf_program__fd", self._program(name))
        buffer = ctypes.create_string_buffer(context, len(context))
        options = _TestRunOptions()
        options.size = ctypes.sizeof(options)
        options.context = ctypes.addressof(buffer)
        options.context_size = len(context)
        _check(self.library.call("bpf_prog_test_run_opts", program, ctypes.byref(options)), "run a program")
        return int(options.result)

    def attach(self, name: str) -> None:
        """Attach program ``name`` as its section says."""
        self._keep(name, self._attempt(name, "bpf_program__attach", self._program(name)))

    def run_iterator(self, name: str) -> None:
        """Have an iterator program go over all there is, once; what it prints is dropped."""
        link = self._attempt(name, "bpf_program__attach_iter", self._program(name), None)
        try:
            descriptor = self.library.call("bpf_iter_create", self.library.call("bpf_link__fd", link))
            _check(descriptor, f"run {name}")
            with open(descriptor, "rb", buffering=0) as output:
                while output.read(_ITERATOR_BYTES):
                    pass
        finally:
            self.library.call("bpf_link__destroy", link)

    def attach_perf_event(self, name: str, descriptor: int) -> None:
        """Attach program ``name`` to an open perf event; libbpf takes the descriptor over."""
        self._keep(
            name, self._attempt(name, "bpf_program__attach_perf_event", self._program(name), descriptor)
        )

    def _attempt(self, name: str, function: str, *arguments: object) -> int:
        try:
            return self.library.pointer(function, *arguments)
        except OSError as error:
            raise LoadError(
                f"the kernel refused to attach {name} ({error.strerror}); `memory-tracer doctor` says more",
                detail=self.library.log,
            ) from error

    def _keep(self, name: str, link: int) -> None:
        self._links.append(link)

    def detach(self) -> None:
        """Detach everything; what is in the maps stays readable."""
        while self._links:
            self.library.call("bpf_link__destroy", self._links.pop())

    def close(self) -> None:
        """Detach and free everything. May be called twice."""
        self.detach()
        if self._handle is not None:
            self.library.call("bpf_object__close", self._handle)
            self._handle = None


class _TestRunOptions(ctypes.Structure):
    """``struct bpf_test_run_opts`` (bpf/bpf.h); the fields up to the ones used here."""

    _fields_ = [
        ("size", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("context", c_void_p),
        ("context_out", c_void_p),
        ("context_size", c_uint32),
        ("context_size_out", c_uint32),
        ("result", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    ]


def _check(result: int, what: str) -> None:
    if result < 0:
        raise LoadError(f"libbpf could not {what}: {os.strerror(-result)}")
