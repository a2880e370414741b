"""Small WebAssembly functions compiled by Wasmtime, that is by Cranelift: ``functions_wasmtime.py COUNT``.

Wasmtime writes a jitdump to the current directory.
"""

import sys
from importlib import import_module

# Wasmtime is no dependency of this project, so checkers of types may not find it.
wasmtime = import_module("wasmtime")

TEXT = """\
(module (func (export "compiled") (param i32) (result i32) (local i32)
  (loop $next
    (local.set 1 (i32.rem_u (i32.add (i32.mul (local.get 1) (i32.const 31)) (local.get 0)) (i32.const {})))
    (br_if $next (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
  (local.get 1)))
"""

config = wasmtime.Config()
config.profiler = "jitdump"
engine = wasmtime.Engine(config)
store = wasmtime.Store(engine)
total = 0
for number in range(int(sys.argv[1])):
    module = wasmtime.Module(engine, TEXT.format(65521 + number))
    compiled = wasmtime.Instance(store, module, []).exports(store)["compiled"]
    total = (total + compiled(store, 1000)) % 65521
print(total)
