// Derives the text our host runs from the package's unmodified lean.js.
//
//   node derive.js LEAN_JS OUTPUT
//
// Emscripten's loader walks all 200,000 exports several times with closures per
// export and linear searches; start-up would take minutes and gigabytes. Each
// replacement asserts that it matches exactly once, so another build of the package
// stops here with an error instead of running with half the changes.
'use strict';
const fs = require('fs');

function indexOf(text, part, from = 0) {
  const at = text.indexOf(part, from);
  if (at < 0) throw Error('derive: not found: ' + part.slice(0, 80));
  return at;
}

function replaceOnce(text, part, replacement) {
  const at = indexOf(text, part);
  if (text.includes(part, at + 1)) throw Error('derive: twice: ' + part.slice(0, 80));
  return text.slice(0, at) + replacement + text.slice(at + part.length);
}

// lean.js declares one variable and one assignment per export (88 MB of the file).
// Only the exports that the loader's own JavaScript names are kept.
function keepNamedExports(source) {
  const declarations = indexOf(source, 'var _main,_lean_main,');
  const assign = indexOf(
    source, 'function assignWasmExports(wasmExports){', declarations);
  const rest = indexOf(source, 'var wasmImports;function assignWasmImports(){', assign);
  const names = source.slice(declarations + 'var '.length, assign)
    .replace(/;$/, '').split(',');
  const assignments = source.slice(assign, rest);
  const loader = source.slice(0, declarations) + source.slice(rest);
  const used = new Set(loader.match(/[A-Za-z_$][\w$]*/g));
  const kept = names.filter((name) => name !== 'wasmTable' && used.has(name));
  const lines = kept.map((name) => {
    const start = indexOf(assignments, name + '=Module["' + name + '"]=');
    const end = assignments.indexOf(';', start);
    return assignments.slice(start, end < 0 ? assignments.lastIndexOf('}') : end);
  });
  const variables = 'var ' + kept.concat('wasmTable').join(',') + ';';
  const body = 'function assignWasmExports(wasmExports){' + lines.join(';') + '}';
  return source.slice(0, declarations) + variables + body + source.slice(rest);
}

// The main module's symbols are found through the prototype chain, not copied.
const MERGE_MAIN = `if(libName==="main"){
wasmImports=Object.assign(Object.create(exports),wasmImports);
wasmImports["main"]=wasmImports["__main_argc_argv"]=exports["__main_argc_argv"];
return}`;

// All exported functions go into the table with one growth, and only the entries
// of the global offset table that are asked for are filled.
const FILL_TABLE = `if(exports===wasmExports&&!replace){
const size=wasmTable.length;functionsInTableMap=new WeakMap;
for(let i=0;i<size;i++){const f=wasmTable.get(i);if(f)functionsInTableMap.set(f,i)}
const added=[];
for(const key in exports){const f=exports[key];
if(typeof f=="function"&&!functionsInTableMap.has(f)){
functionsInTableMap.set(f,size+added.length);added.push(f)}}
wasmTable.grow(added.length);
for(let i=0;i<added.length;i++)wasmTable.set(size+i,added[i]);
for(const key of Object.keys(GOT)){
if(GOT[key].value!=-1||isInternalSym(key))continue;
const value=exports[key];if(value===undefined)continue;
if(typeof value=="function")GOT[key].value=functionsInTableMap.get(value);
else if(typeof value.value=="number")GOT[key].value=value.value}
return}`;

// What the host needs to reach from outside the loader's scope.
const HANDLES = `;Module.internals={
get bytes(){growMemViews();return HEAPU8},get words(){growMemViews();return HEAPU32},
get exports(){return wasmExports},get memory(){return wasmMemory},FS,NODEFS};
`;

const TABLE_SIZE = 1 << 18; // the build's table has 150,885 entries

function derive(source) {
  let text = keepNamedExports(source);
  const prepend = (opening, code) => {
    text = replaceOnce(text, opening, opening + code);
  };
  prepend('var mergeLibSymbols=(exports,libName)=>{', MERGE_MAIN);
  prepend('var updateGOT=(exports,replace)=>{', FILL_TABLE);
  // dlsym: a hash look-up instead of a search through all names; everything that
  // can be asked for is in the table already.
  text = replaceOnce(
    text,
    'newSymIndex=Object.keys(lib.exports).indexOf(symbol);' +
      'if(newSymIndex==-1||lib.exports[symbol].stub)',
    'newSymIndex=symbol in lib.exports?0:-1;' +
      'if(newSymIndex==-1||lib.exports[symbol].stub)');
  text = replaceOnce(
    text,
    'result=addFunction(result,result.sig);' +
      '(growMemViews(),HEAPU32)[symbolIndex>>2]=newSymIndex',
    'throw new Error("dlsym: not in table: "+symbol)');
  // process.binding is refused under `node --permission`.
  text = replaceOnce(text, 'process.binding("constants")', '{fs:fs.constants}');
  // No threads are made in advance: elaboration runs on one.
  text = replaceOnce(text, 'var pthreadPoolSize=4;', 'var pthreadPoolSize=0;');
  // The build prints debugging lines; standard output belongs to our protocol.
  prepend(
    'var Module=typeof Module!="undefined"?Module:{};',
    'var console={log(){},error(){},warn(){},info(){}};');
  // Every C++ call that may throw looks its function up here; filled front to back
  // the array stays an array, sparse it would become a hash table.
  text = replaceOnce(
    text, 'var wasmTableMirror=[];',
    'var wasmTableMirror=new Array(' + TABLE_SIZE + ').fill(undefined);');
  // The host must know, not guess, that an allocation failed.
  text = replaceOnce(
    text, 'if(requestedSize>maxHeapSize){return false}',
    'if(requestedSize>maxHeapSize){Module.outOfMemory=true;return false}');
  text = replaceOnce(
    text, 'updateMemoryViews();return 1}catch(e){}',
    'updateMemoryViews();return 1}catch(e){Module.outOfMemory=true}');
  return text + HANDLES;
}

const [input, output] = process.argv.slice(2);
fs.writeFileSync(output, derive(fs.readFileSync(input, 'latin1')), 'latin1');
