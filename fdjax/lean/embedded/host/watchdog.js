// A thread that ends an elaboration at its deadline, whatever the main thread does.
//
// `control` holds four 32-bit cells: [sequence, token, milliseconds, fired]. The host
// arms the watchdog by storing a token's address and a time and raising `sequence`;
// it disarms it by storing token 0 and raising `sequence` again.
'use strict';
const { workerData } = require('worker_threads');
const control = new Int32Array(workerData.control);
const { memory, graceMs } = workerData;
const SEQUENCE = 0, TOKEN = 1, MILLISECONDS = 2, FIRED = 3;
const TRUE = (1 << 1) | 1; // Lean's boxed `true`
const REPEAT_MS = 20;

for (;;) {
  const sequence = Atomics.load(control, SEQUENCE);
  const token = Atomics.load(control, TOKEN);
  const milliseconds = Atomics.load(control, MILLISECONDS);
  if (!token) {
    Atomics.wait(control, SEQUENCE, sequence);
    continue;
  }
  if (Atomics.wait(control, SEQUENCE, sequence, milliseconds) !== 'timed-out') continue;
  Atomics.store(control, FIRED, 1);
  // A cancel token is a reference to a Bool: object header (8 bytes), then the value.
  const cell = (token + 8) >>> 2;
  const giveUp = performance.now() + graceMs;
  while (Atomics.load(control, SEQUENCE) === sequence) {
    Atomics.store(new Int32Array(memory.buffer), cell, TRUE);
    Atomics.wait(control, SEQUENCE, sequence, REPEAT_MS);
    // Code that never looks at its token (big-number arithmetic) only ends this way,
    // also when the parent process is gone and cannot end us.
    if (performance.now() > giveUp) process.kill(process.pid, 'SIGKILL');
  }
}
