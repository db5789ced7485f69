"""Numba kernels as a WebAssembly module: the same source that trains, compiled for another processor.

LLVM, which Numba brings along, includes the WebAssembly backend. The code of a compiled function is retargeted,
optimised again, emitted as an object and linked. Functions must not be loaded from Numba's cache, which keeps
machine code only, and Numba must not compile for the host's own instructions: `build` starts a process that sees to
both.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import llvmlite.binding as llvm
import numba
from numba import types
from numba.core.errors import NumbaError

from particle_grid.support import optional
from particle_grid.support.errors import UserError
from particle_grid.support.jit import ParallelKernel

TRIPLE = "wasm32-unknown-unknown"
FEATURES = "+simd128,+bulk-memory,+sign-ext,+nontrapping-fptoint,+mutable-globals"
STACK = 1 << 20
SCRATCH = 8 << 20  # bytes of the arrays that kernels allocate, which are free again at the end of each call
OURS = "particle_grid."

OPTIONS = {"error_model": "numpy", "forceinline": True}
RUNTIME = Path(__file__).with_name("runtime.ll")


def portable(function: Callable[..., Any]) -> Any:
    """Return a plain function or method, compiled together with the functions of the package that it calls."""
    scope = dict(function.__globals__)
    for name in function.__code__.co_names:
        value = scope.get(name)
        if isinstance(value, ParallelKernel):
            scope[name] = value.serial
        elif isinstance(value, FunctionType) and value.__module__.startswith(OURS):
            scope[name] = portable(value)
    copy = FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
    return numba.njit(copy, **OPTIONS)


def build(functions: Mapping[str, Callable[..., Any]]) -> bytes:
    """Return a module that exports functions.

    They take addresses of 32 bits. The first is where the result, an int64, is written; what they return is 0, or else
    the kind of an exception.

    Args:
        functions: the functions by the names under which they are exported.

    Raises:
        UserError: if one of them cannot be compiled.
    """
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine(opt=3, features=FEATURES)
    whole = llvm.parse_assembly(RUNTIME.read_text("utf-8").replace("SCRATCH_BYTES", str(SCRATCH)))
    whole.data_layout = str(machine.target_data)
    for name, function in functions.items():
        whole.link_in(_code_of(name, function, whole.data_layout))
    for each in whole.functions:
        if not each.is_declaration and each.name not in functions:
            each.linkage = "internal"
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(whole, passes)
    return _linked(machine.emit_object(whole), list(functions))


def _code_of(name: str, function: Callable[..., Any], layout: str) -> llvm.ModuleRef:
    """Return the code of a function for another processor, with the function as its only visible name."""
    arguments = (types.int32,) * function.__code__.co_argcount
    try:
        dispatcher = numba.njit(arguments, no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)(function)
    except NumbaError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{name} cannot be compiled ({reason}): call kernels and functions instead of methods, and only NumPy that "
            f"Numba knows."
        ) from error
    compiled = dispatcher.overloads[arguments]
    native = compiled.fndesc.llvm_func_name
    text = re.sub(r"target (datalayout|triple) = .*", "", compiled.library.get_llvm_str())
    text = re.sub(r'"(target-(cpu|features)|probe-stack|tune-cpu)"="[^"]*"', "", text)
    text = text.replace(" = common ", " = internal ").replace("@llvm.smul.with.overflow.i64", "@size_product")
    module = llvm.parse_assembly(text + _wrapper(name, native, len(arguments)))
    module.triple = TRIPLE
    module.data_layout = layout
    for each in [*module.functions, *module.global_variables]:
        if not each.is_declaration and each.name != name:
            each.linkage = "internal"
    module.get_function(native).add_function_attribute("alwaysinline")
    return module


def _wrapper(name: str, native: str, count: int) -> str:
    """Return the code of an exported function, which drops the description of an exception: it names source files."""
    given = ", ".join(f"i32 %a{k}" for k in range(count))
    return f"""
define i32 @{name}(ptr %result, {given}) {{
  %exception = alloca ptr, align 8
  %status = call i32 @{native}(ptr %result, ptr %exception, {given})
  ret i32 %status
}}
"""


def _linked(compiled: bytes, names: Sequence[str]) -> bytes:
    """Return the module that the linker makes of an object."""
    optional.load("ziglang", "web", "Building the module")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "kernels.o"), Path(folder, "kernels.wasm")
        source.write_bytes(compiled)
        exports = [f"--export={name}" for name in (*names, "__heap_base")]
        options = ["--no-entry", "--gc-sections", "--strip-all", "-z", f"stack-size={STACK}"]
        command = [sys.executable, "-m", "ziglang", "wasm-ld", str(source), "-o", str(target), *exports, *options]
        subprocess.run(command, check=True)
        return target.read_bytes()
