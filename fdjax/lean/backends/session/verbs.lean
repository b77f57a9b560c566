/-! ### Verbs -/

/-- What is declared under this spelling in the namespace that the header leaves open. A
name without its «» is one part where Lean reads it as none. -/
def fullName (spelling : String) : CommandElabM Name := do
  let name := spelling.toName
  let name := if name.isAnonymous then .mkSimple spelling else name
  if name.getRoot == `_root_ then return name.replacePrefix `_root_ .anonymous
  return (scopeOf (← get)).1.currNamespace ++ name

def unusable (reason : String) : List (String × Json) := [("statement_error", .str reason)]

def broken (what : String) (messages : List Message) : CommandElabM (List (String × Json)) := do
  let reason ← firstError messages
  let (messages, _) ← render 4096 messages
  return [
    ("statement_error", .str s!"{what} does not elaborate: {reason}"),
    ("messages", messages)]

def isMissing : List Name → Option String
  | [] => none
  | first :: rest => match isMissing rest with
    | some others => some s!"{nameText first}, {others}"
    | none => some (nameText first)

/-- Elaborate a header; the session goes on from it. -/
def header (request : Json) : CommandElabM (List (String × Json)) := do
  let (opened, cursor) ← openFile (text request "source") (continueState (← get) none)
  if hasErrors opened.messages then return ← broken "the header" opened.messages
  if opened.isPrelude then
    return unusable "the header does without Init: leave `prelude` out"
  if let some names := isMissing opened.missing then
    return unusable s!"this Lean has no module {names}"
  let (messages, state) ← elaborateAll cursor
  if hasErrors messages then return ← broken "the header" messages
  modify fun session =>
    { session with env := state.env, scopes := state.scopes, ngen := state.ngen
                   nextMacroScope := state.nextMacroScope, maxRecDepth := state.maxRecDepth }
  return []

/-- Elaborate a statement; the session goes on with its type under a name of ours. -/
def statement (request : Json) : CommandElabM (List (String × Json)) := do
  let (opened, cursor) ← openFile (text request "source") (continueState (← get) none)
  if hasErrors opened.messages then return ← broken "the statement" opened.messages
  unless opened.isHeaderless do
    return unusable "the statement begins with `import`, `module` or `prelude`, which \
      belong to the header"
  let name ← fullName (text request "name")
  let before := cursor.parser
  let (command, log, cursor) := parse cursor
  if hasErrors log then return ← broken "the statement" log
  let (rest, _, _) := parse cursor
  unless isEnd rest do return unusable "the statement holds more than one command"
  let opening := number request "opening"
  let carries := match ownValue opening 0 command with
    | some value => !isBare opening value
    | none => true
  if carries then
    return unusable
      "the statement carries a proof, or declares no theorem; it must end before `:=`"
  let (failed, messages, cursor) ← elaborate cursor before command
  if failed then return ← broken "the statement" messages
  let env := cursor.state.env
  let base ← getEnv
  let undeclared := unusable
    s!"the statement declares no theorem {text request "name"}; spell the name as it \
      does, and leave `private` out"
  if (kernelFind base name).isSome then return undeclared
  let some (.thmInfo info) := kernelFind env name | return undeclared
  let trusted := do
    let value ← unfold base env info.type
    let declaration := Declaration.defnDecl {
      name := twin, levelParams := info.levelParams, type := .sort .zero, value
      hints := .abbrev, safety := .safe }
    match kernelAdd base declaration with
    | some base => return base
    | none => throw "its type cannot stand alone"
  match trusted with
  | .error reason => return unusable s!"the statement is unusable: {reason}"
  | .ok base =>
    setEnv base
    return []

structure Outcome where
  failed : Bool := false
  refused : String := ""
  noProof : Bool := false
  leftProof : Bool := false
  messages : List Message := []
  state : Command.State

def checkProof (rules : Rules) (opening : Nat) (cursor : Cursor) : CommandElabM Outcome := do
  let before := cursor.parser
  let (command, log, cursor) := parse cursor
  let outcome : Outcome := { state := cursor.state }
  let (value, noProof) := match ownValue opening 0 command with
    | some value => (value, isBare opening value)
    | none => ([], !hasErrors log)
  if hasErrors log then return { outcome with failed := true, messages := log, noProof }
  if noProof then return { outcome with noProof }
  let refused := refuseProof rules value
  if refused != "" then return { outcome with refused }
  let (rest, stray, _) := parse cursor
  unless hasErrors stray || isEnd rest do return { outcome with leftProof := true }
  let (failed, said, cursor) ← elaborateUntrusted rules cursor before command
  let messages := join said stray
  return { failed := failed || hasErrors messages, messages, state := cursor.state }

partial def checkFile (rules : Rules) (cursor : Cursor) (previous : Outcome) :
    CommandElabM Outcome := do
  let before := cursor.parser
  let (command, log, cursor) := parse cursor
  let outcome := { previous with
    failed := previous.failed || hasErrors log, messages := join previous.messages log
    refused := refuseCommand rules command }
  if outcome.refused != "" || isEnd command then
    return { outcome with state := cursor.state }
  let (failed, said, cursor) ← elaborateUntrusted rules cursor before command
  checkFile rules cursor { outcome with
    failed := outcome.failed || failed
    messages := join outcome.messages said }

def checkSource (request policy : Json) (state : Command.State) :
    CommandElabM Outcome := do
  let (opened, cursor) ← openFile (text request "source") state
  if text request "kind" == "proof" then
    return ← checkProof (rulesOf policy false) (number request "opening") cursor
  if hasErrors opened.messages then
    return { failed := true, messages := opened.messages, state }
  if let some names := isMissing opened.missing then
    let where? := if text request "kind" == "file" then "the problem's header does not load"
      else "this Lean does not have"
    let message : Message := {
      fileName := "<input>", pos := ⟨1, 0⟩, severity := .error
      data := s!"the file imports {names}, which {where?}" }
    return { failed := true, messages := [message], state }
  checkFile (rulesOf policy true) cursor { state }

/-- Elaborate a submission; the session stays as it was. -/
def check (request : Json) : CommandElabM (List (String × Json)) := do
  let base ← getEnv
  let name ← fullName (text request "name")
  let heartbeats := (request.getObjVal? "heartbeats").toOption.map fun _ =>
    number request "heartbeats"
  let policy := (request.getObjVal? "policy").toOption.getD .null
  let begin ← IO.monoNanosNow
  let outcome ← checkSource request policy (continueState (← get) heartbeats)
  let isDecided := text request "kind" == "run" || outcome.noProof || outcome.leftProof
    || outcome.refused != ""
  let facts ← if isDecided then pure []
    else targetFields base outcome.state.env name outcome.failed
  let nanoseconds := (← IO.monoNanosNow) - begin
  let (messages, isCut) ← render (number request "output_bytes") outcome.messages
  return join facts [
    ("has_errors", .bool outcome.failed),
    ("refused", .str outcome.refused),
    ("no_proof", .bool outcome.noProof),
    ("left_proof", .bool outcome.leftProof),
    ("messages", messages),
    ("left_out", .bool isCut),
    ("microseconds", .num (.fromNat (nanoseconds / 1000)))]

def answer (request : Json) : CommandElabM (List (String × Json)) :=
  match text request "verb" with
  | "header" => header request
  | "statement" => statement request
  | _ => check request

elab "FDJAX" source:str : command => do
  let request := (Json.parse source.getString).toOption.getD .null
  let record := Json.mkObj (← answer request)
  let message : Message := {
    fileName := "", pos := ⟨1, 0⟩, severity := .information
    data := s!"{text request "nonce"} {record.compress}" }
  modify fun session => { session with messages := session.messages.add message }

end _FDJAX

set_option autoImplicit false
set_option relaxedAutoImplicit false
set_option linter.all false
