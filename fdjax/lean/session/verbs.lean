/-! ### Verbs -/

def fullName (name : String) : CommandElabM Name :=
  return (scopeOf (← get)).1.currNamespace ++ name.toName

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
  let (log, missing, cursor) ← openFile (text request "source") (continueState (← get) none)
  if hasErrors log then return ← broken "the header" log
  if let some names := isMissing missing then
    return [("statement_error", .str s!"this Lean has no module {names}")]
  let (messages, state) ← elaborateAll cursor
  if hasErrors messages then return ← broken "the header" messages
  modify fun session =>
    { session with env := state.env, scopes := state.scopes, ngen := state.ngen
                   nextMacroScope := state.nextMacroScope, maxRecDepth := state.maxRecDepth }
  return []

/-- Elaborate a statement; the session goes on with its type under a name of ours. -/
def statement (request : Json) : CommandElabM (List (String × Json)) := do
  let cursor := openText (text request "source" ++ " := sorry") (continueState (← get) none)
  let name ← fullName (text request "name")
  let before := cursor.parser
  let (command, log, cursor) := parse cursor
  if hasErrors log then return ← broken "the statement" log
  let (rest, _, _) := parse cursor
  unless Parser.isTerminalCommand rest do
    return [("statement_error", .str "the statement holds more than one command")]
  let (failed, messages, cursor) ← elaborate cursor before command
  if failed then return ← broken "the statement" messages
  let env := cursor.state.env
  let base ← getEnv
  let some (.thmInfo info) := kernelFind env name
    | return [("statement_error",
        .str s!"the statement declares no theorem {text request "name"}")]
  let trusted := do
    let value ← unfold base env info.type
    let declaration := Declaration.defnDecl {
      name := twin, levelParams := info.levelParams, type := .sort .zero, value
      hints := .abbrev, safety := .safe }
    match kernelAdd base declaration with
    | some base => return base
    | none => throw "its type cannot stand alone"
  match trusted with
  | .error reason => return [("statement_error", .str s!"the statement is unusable: {reason}")]
  | .ok base =>
    setEnv base
    return []

structure Outcome where
  failed : Bool := false
  refused : String := ""
  messages : List Message := []
  state : Command.State

def checkProof (rules : Rules) (cursor : Cursor) : CommandElabM (Outcome × Bool) := do
  let before := cursor.parser
  let (command, log, cursor) := parse cursor
  if hasErrors log then
    return ({ failed := true, messages := log, state := cursor.state }, false)
  let refused := refuseProof rules command
  if refused != "" then return ({ refused, state := cursor.state }, false)
  let (rest, stray, _) := parse cursor
  unless hasErrors stray || Parser.isTerminalCommand rest do
    return ({ state := cursor.state }, true)
  let (failed, said, cursor) ← elaborateUntrusted rules cursor before command
  let messages := join said stray
  return ({ failed := failed || hasErrors messages, messages, state := cursor.state }, false)

partial def checkFile (rules : Rules) (cursor : Cursor) (previous : Outcome) :
    CommandElabM Outcome := do
  let before := cursor.parser
  let (command, log, cursor) := parse cursor
  let outcome := { previous with
    failed := previous.failed || hasErrors log, messages := join previous.messages log
    refused := refuseCommand rules command }
  if outcome.refused != "" || Parser.isTerminalCommand command then
    return { outcome with state := cursor.state }
  let (failed, said, cursor) ← elaborateUntrusted rules cursor before command
  checkFile rules cursor { outcome with
    failed := outcome.failed || failed
    messages := join outcome.messages said }

def checkSource (request policy : Json) (state : Command.State) :
    CommandElabM (Outcome × Bool) := do
  if text request "kind" == "proof" then
    return ← checkProof (rulesOf policy false) (openText (text request "source") state)
  let (log, missing, cursor) ← openFile (text request "source") state
  if hasErrors log then return ({ failed := true, messages := log, state }, false)
  if let some names := isMissing missing then
    let where? := if text request "kind" == "file" then "the problem's header does not load"
      else "this Lean does not have"
    let message : Message := {
      fileName := "<input>", pos := ⟨1, 0⟩, severity := .error
      data := s!"the file imports {names}, which {where?}" }
    return ({ failed := true, messages := [message], state }, false)
  return (← checkFile (rulesOf policy true) cursor { state }, false)

/-- Elaborate a submission; the session stays as it was. -/
def check (request : Json) : CommandElabM (List (String × Json)) := do
  let base ← getEnv
  let name ← fullName (text request "name")
  let heartbeats := (request.getObjVal? "heartbeats").toOption.map fun _ =>
    number request "heartbeats"
  let policy := (request.getObjVal? "policy").toOption.getD .null
  let begin ← IO.monoNanosNow
  let (outcome, left) ← checkSource request policy (continueState (← get) heartbeats)
  let isDecided := text request "kind" == "run" || left || outcome.refused != ""
  let facts ← if isDecided then pure []
    else targetFields base outcome.state.env name outcome.failed
  let nanoseconds := (← IO.monoNanosNow) - begin
  let (messages, isCut) ← render (number request "output_bytes") outcome.messages
  return join facts [
    ("has_errors", .bool outcome.failed),
    ("refused", .str outcome.refused),
    ("left_proof", .bool left),
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
