/-! ### A program in a Lake project

  lean --run FILE '{"search_path": [DIR], "policy": {…}, "watchdog": true}'

First line out: {"ready": true, …}. Then per request {"nonce", "kind", "name", "header",
"statement", "opening", "source", "heartbeats", "wall_ms", "output_bytes"} one line
{"started": nonce} when the proof's own time begins, and one answer with the nonce. Kinds:
statement, proof (`source` is statement and proof), file (`source` is to be elaborated on
the header), run (`source` alone; no name, header, statement, opening). -/

structure Settings where
  searchPath : List System.FilePath
  policy : Json
  /-- Whether a thread cancels elaboration at its deadline. -/
  watchdog : Bool

def Settings.parse (json : Json) : Settings where
  searchPath := paths (texts json "search_path")
  policy := (json.getObjVal? "policy").toOption.getD .null
  watchdog := (json.getObjVal? "watchdog").toOption == some (.bool true)
where
  paths : List String → List System.FilePath
    | [] => []
    | path :: rest => ⟨path⟩ :: paths rest

def send (fields : Fields) : IO Unit := do
  let out ← IO.getStdout
  out.putStrLn (Json.mkObj fields).compress
  out.flush

partial def wait (token : IO.CancelToken) (done : IO.Ref Bool) (deadline : Nat) :
    IO Unit := do
  if ← done.get then return
  if (← IO.monoMsNow) ≥ deadline then token.set
  else
    IO.sleep 10
    wait token done deadline

/-- Runs a verb on a state: its answer, and the state after it. -/
def within (settings : Settings) (ms : Nat) (state : Command.State)
    (verb : CommandElabM Fields) : IO (Fields × Command.State) := do
  let token ← IO.CancelToken.new
  let done ← IO.mkRef false
  let deadline := (← IO.monoMsNow) + ms
  if settings.watchdog then
    discard <| IO.asTask (wait token done deadline) .dedicated
  let ref ← IO.mkRef state
  let context : Command.Context := {
    fileName := "<input>", fileMap := "".toFileMap, snap? := none, cancelTk? := some token }
  let result ← (verb context ref).toBaseIO
  done.set true
  match result with
  | .ok fields => return (fields, ← ref.get)
  | .error error => throw (IO.userError (← error.toMessageData.toString))

/-! #### Trusted text, each piece once -/

/-- A state to go on from, or what is wrong. -/
abbrev Prepared := Except Fields Command.State

abbrev Kept := IO.Ref (List (String × Prepared))

/-- What is kept under `key`, made where it is not; the `size` used last are kept. -/
def remember (kept : Kept) (size : Nat) (key : String) (make : IO Prepared) :
    IO Prepared := do
  let (found, others) := part (← kept.get)
  let value ← match found with
    | some value => pure value
    | none => make
  kept.set ((key, value) :: first (size - 1) others)
  return value
where
  part : List (String × Prepared) → Option Prepared × List (String × Prepared)
    | [] => (none, [])
    | entry :: rest =>
      let (found, others) := part rest
      if entry.1 == key then (some entry.2, others) else (found, entry :: others)
  first : Nat → List (String × Prepared) → List (String × Prepared)
    | 0, _ | _, [] => []
    | count + 1, entry :: rest => entry :: first count rest

def headersKept := 8
def statementsKept := 256

structure Checker where
  settings : Settings
  modules : Kept
  headers : Kept
  statements : Kept

/-- What a tree says, whatever stands between its tokens. -/
partial def tokensOf : Syntax → List Json
  | .node _ _ children => go children.toList
  | .atom _ value => [.str value]
  | .ident _ _ name _ => [.str (nameText name)]
  | .missing => []
where
  go : List Syntax → List Json
    | [] => []
    | first :: rest => join (tokensOf first) (go rest)

def load (imports : Array Import) : IO Prepared := do
  let importing := importModules imports {} (trustLevel := 0) (leakEnv := true) (loadExts := true)
  match ← importing.toBaseIO with
  | .ok env => return .ok (freshState env)
  | .error error => return .error (unusable s!"the header does not elaborate: {error}")

/-- A state with the modules that a text imports, which are loaded once. -/
def Checker.imported (checker : Checker) (source : String) : IO Prepared := do
  let (header, _, log) ← Parser.parseHeader (inputContext source)
  -- The verb says what is wrong with the header itself.
  let isBroken := hasErrors log.toList
  let imports := if isBroken then #[] else headerToImports header
  let key := (strings (.bool isBroken :: tokensOf header)).compress
  remember checker.modules headersKept key (load imports)

def Checker.trusted (checker : Checker) (prepared : Prepared)
    (verb : CommandElabM Fields) : IO Prepared := do
  let .ok state := prepared | return prepared
  match ← within checker.settings trustedMs state verb with
  | ([], state) => return .ok state
  | (faults, _) => return .error faults

def Checker.prepare (checker : Checker) (request : Json) : IO Prepared := do
  let source := text request "header"
  let header ← remember checker.headers headersKept source
    (do checker.trusted (← checker.imported source) (header request))
  match header with
  | .error faults => return .error (("in_header", .bool true) :: faults)
  | .ok _ =>
    let parts := [.str source, .str (text request "statement"), .str (text request "name")]
    remember checker.statements statementsKept (strings parts).compress
      (checker.trusted header (statement request))

/-! #### The loop -/

/-- What is wrong with a bare file's imports is an error of its own. -/
def runFaults (faults : Fields) : IO Fields := do
  let (messages, _) ← render 4096 [complaint (text (Json.mkObj faults) "statement_error")]
  return [("has_errors", .bool true), ("messages", messages)]

def Checker.answer (checker : Checker) (request : Json) : IO Fields := do
  let kind := text request "kind"
  let prepared ← if kind == "run" then checker.imported (text request "source")
    else checker.prepare request
  match prepared with
  | .error faults => if kind == "run" then runFaults faults else return faults
  | .ok state =>
    if kind == "statement" then return []
    send [("started", .str (text request "nonce"))]
    let request := request.setObjVal! "policy" checker.settings.policy
    return (← within checker.settings (number request "wall_ms") state (check request)).1

partial def Checker.serve (checker : Checker) : IO Unit := do
  let line ← (← IO.getStdin).getLine
  if line.isEmpty then return
  match Json.parse line with
  | .error error => throw (IO.userError s!"a request is not JSON: {error}")
  | .ok request =>
    let fields ← try checker.answer request
      catch error =>
        pure [("crash", .str (toString error)), ("out_of_memory", .bool false)]
    send (("nonce", .str (text request "nonce")) :: fields)
    checker.serve

end _FDJAX

open Lean in
unsafe def main (arguments : List String) : IO UInt32 := do
  match Json.parse (arguments.headD "") with
  | .error error =>
    IO.eprintln s!"expected settings as JSON, got: {error}"
    return 2
  | .ok json =>
    let settings := _FDJAX.Settings.parse json
    enableInitializersExecution
    searchPathRef.set settings.searchPath
    _FDJAX.send [("ready", .bool true), ("version", .str Lean.versionString)]
    let checker : _FDJAX.Checker := {
      settings, modules := ← IO.mkRef [], headers := ← IO.mkRef []
      statements := ← IO.mkRef [] }
    checker.serve
    return 0
