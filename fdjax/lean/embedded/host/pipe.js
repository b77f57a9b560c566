// Writing to a pipe that may be full.
'use strict';
const fs = require('fs');

const PAUSE_MS = 1;
const never = new Int32Array(new SharedArrayBuffer(4));

// Node leaves the pipe non-blocking: it takes what it has room for, or nothing, until
// the other side has read.
function writeAll(descriptor, bytes) {
  for (let written = 0; written < bytes.length;) {
    try {
      written += fs.writeSync(descriptor, bytes, written);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(never, 0, 0, PAUSE_MS);
    }
  }
}

module.exports = { writeAll };
