// Loads lean.wasm and initialises Lean; `startLean` resolves when it can import.
'use strict';
const fs = require('fs');
const path = require('path');
const vm = require('vm');
const { LeanObjects, box } = require('./objects.js');

const MiB = 1 << 20;
const PAGE_BYTES = 65536;
const C_STACK_BYTES = 32 * MiB;
const LEAN_STACK_BYTES = 8 * MiB; // what Lean's own depth check may use of it
const READ_ONLY_ERROR = 69; // EROFS in Emscripten's numbering

// Lean sees the library folder, read-only, and nothing else.
function mountLibrary(module, library) {
  const { FS, NODEFS } = module.internals;
  const refuse = () => {
    throw new FS.ErrnoError(READ_ONLY_ERROR);
  };
  for (const name of ['setattr', 'mknod', 'rename', 'unlink', 'rmdir', 'symlink']) {
    NODEFS.node_ops[name] = refuse;
  }
  NODEFS.stream_ops.write = refuse;
  const WRITE_FLAGS = 0o2103; // O_WRONLY | O_RDWR | O_CREAT | O_APPEND
  const open = NODEFS.stream_ops.open;
  NODEFS.stream_ops.open = (stream) => {
    if (stream.flags & WRITE_FLAGS) refuse();
    return open(stream);
  };
  FS.mkdirTree('/lean/lib');
  FS.mount(NODEFS, { root: library }, '/lean/lib');
}

// The build gives its first thread 64 KiB of C stack in front of its static data, and
// Lean's depth check misreads the limits. Give it a block of its own, and let the
// check see a size it can work with.
function moveStack(lean) {
  const low = (lean.call('malloc', C_STACK_BYTES + 64) + 63) & ~63;
  const high = low + C_STACK_BYTES;
  lean.exported('_emscripten_stack_restore')(high);
  const setLimits = lean.exported('emscripten_stack_set_limits');
  setLimits(high, low);
  lean.call('lean_initialize');
  setLimits(high, high + LEAN_STACK_BYTES);
  lean.exported('_ZN4lean15save_stack_infoEb')(1);
  setLimits(high, low);
}

function initialise(lean) {
  moveStack(lean);
  lean.call('lean_enable_initializer_execution');
  const search = lean.call('l_Lean_initSearchPath', lean.string('/lean'), box(0));
  lean.release(lean.value(search, 'search path'));
  lean.call('lean_io_mark_end_initialization');
  lean.call('lean_init_task_manager_using', 1);
  // `set_option debug.skipKernelTC true` switches the kernel off. The scan refuses
  // it; should it ever get here, addDecl looks up a key that nobody can set.
  const option = lean.global('l_Lean_debug_skipKernelTC');
  lean.setField(option, 0, lean.name('debug._disabled_'));
}

function startLean({ install, runtime, memoryMiB }) {
  return new Promise((resolve, reject) => {
    const memory = new WebAssembly.Memory({
      initial: 256,
      maximum: Math.min(32768, (memoryMiB * MiB) / PAGE_BYTES),
      shared: true,
    });
    const module = {
      wasmMemory: memory,
      noInitialRun: true,
      noExitRuntime: true,
      // Nothing that Lean prints may reach the protocol's stream.
      print() {},
      // Lean ends itself before it asks for more than any memory holds.
      printErr(line) {
        if (/PANIC: (out of memory|.* too big)/.test(line)) module.outOfMemory = true;
      },
      stdin: () => null,
      mainScriptUrlOrBlob: runtime,
      locateFile: (file) => path.join(install, file),
      preRun: [() => mountLibrary(module, path.join(install, 'lib'))],
      onRuntimeInitialized() {
        // Leave the loader's own call stack first.
        setTimeout(() => {
          try {
            const lean = new LeanObjects(module.internals);
            lean.module = module;
            initialise(lean);
            resolve(lean);
          } catch (error) {
            reject(error);
          }
        }, 0);
      },
    };
    const load = vm.compileFunction(
      fs.readFileSync(runtime, 'latin1'),
      ['Module', 'require', 'module', '__filename', '__dirname'],
      { filename: runtime });
    load(module, require, { exports: {} }, '/lean/bin/lean.js', '/lean/bin');
  });
}

module.exports = { startLean };
