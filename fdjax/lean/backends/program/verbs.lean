/-! ### Verbs -/

/-- What is declared under this spelling in the namespace that the header leaves open. A
name without its «» is one part where Lean reads it as none. -/
def fullName (spelling : String) : CommandElabM Name := do
  let name := spelling.toName
  let name := if name.isAnonymous then .mkSimple spelling else name
  if name.getRoot == `_root_ then return name.replacePrefix `_root_ .anonymous
  return (scopeOf (← get)).1.currNamespace ++ name

def unusable (reason : String) : Fields := [("statement_error", .str reason)]

def broken (what : String) (deadline : Nat) (messages : List Message) :
    CommandElabM Fields := do
  if ← isOver deadline then return unusable s!"{what} takes longer than a minute"
  let reason ← firstError messages
  let (messages, _) ← render 4096 messages
  return ("messages", messages) :: unusable s!"{what} does not elaborate: {reason}"

def isMissing : List Name → Option String
  | [] => none
  | first :: rest => match isMissing rest with
    | some others => some s!"{nameText first}, {others}"
    | none => some (nameText first)

/-- For a header or a statement. -/
def trustedMs := 60000

/-- Elaborate a header; the session goes on from it. -/
def header (request : Json) : CommandElabM Fields := do
  let deadline := (← IO.monoMsNow) + trustedMs
  let (opened, cursor) ←
    openFile (text request "header") (continueState (← get) pinned)
  if hasErrors opened.messages then
    return ← broken "the header" deadline opened.messages
  if opened.isPrelude then
    return unusable "the header does without Init: leave `prelude` out"
  if let some names := isMissing opened.missing then
    return unusable s!"this Lean has no module {names}"
  let (failed, messages, state) ← elaborateAll cursor deadline
  if failed then return ← broken "the header" deadline messages
  modify fun session =>
    { session with env := state.env, scopes := state.scopes, ngen := state.ngen
                   nextMacroScope := state.nextMacroScope, maxRecDepth := state.maxRecDepth }
  return []

/-- Elaborate a statement, which ends in our own `:= sorry`; the session goes on with its
type under a name of ours. -/
def statement (request : Json) : CommandElabM Fields := do
  let deadline := (← IO.monoMsNow) + trustedMs
  let broken := broken "the statement" deadline
  let (opened, cursor) ← openFile (text request "statement") (continueState (← get))
  if hasErrors opened.messages then return ← broken opened.messages
  unless opened.isHeaderless do
    return unusable "the statement begins with `import`, `module` or `prelude`, which \
      belong to the header"
  let name ← fullName (text request "name")
  let before := cursor.parser
  let (command, log, cursor) := parse cursor
  if hasErrors log then return ← broken log
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
  if failed || (← isOver deadline) then return ← broken messages
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

def Outcome.fail (outcome : Outcome) (messages : List Message) : Outcome :=
  { outcome with failed := true, messages := join outcome.messages messages }

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
  -- A proof is one command. A stray token after it is an error like any other and does
  -- not hide what Lean says about the proof.
  let (rest, stray, _) := parse cursor
  unless hasErrors stray || isEnd rest do return { outcome with leftProof := true }
  let (failed, said, cursor) ← elaborateUntrusted rules cursor before command
  let messages := join said stray
  return { failed := failed || hasErrors messages, messages, state := cursor.state }

partial def checkFile (rules : Rules) (deadline : Nat) (cursor : Cursor)
    (previous : Outcome) : CommandElabM Outcome := do
  let before := cursor.parser
  let (command, log, cursor) := parse cursor
  let outcome := { previous with
    failed := previous.failed || hasErrors log, messages := join previous.messages log
    refused := refuseCommand rules command, state := cursor.state }
  if outcome.refused != "" || isEnd command then return outcome
  if ← isOver deadline then return outcome.fail []
  let (failed, said, cursor) ← elaborateUntrusted rules cursor before command
  checkFile rules deadline cursor { outcome with
    failed := outcome.failed || failed
    messages := join outcome.messages said }

/-- A file that need prove nothing is read with Lean's own options; all else goes on from
the header. -/
def checkSource (request : Json) (deadline : Nat) : CommandElabM Outcome := do
  let kind := text request "kind"
  let policy := (request.getObjVal? "policy").toOption.getD .null
  let session ← get
  let limited := limited (number request "heartbeats")
  let state := if kind == "run" then freshState session.env (limited {})
    else continueState session limited
  let (opened, cursor) ← openFile (text request "source") state
  if kind == "proof" then
    return ← checkProof (rulesOf policy false) (number request "opening") cursor
  let outcome : Outcome := { state }
  if hasErrors opened.messages then return outcome.fail opened.messages
  if let some names := isMissing opened.missing then
    let where? := if kind == "file" then "the problem's header does not load"
      else "this Lean does not have"
    return outcome.fail [complaint s!"the file imports {names}, which {where?}"]
  checkFile (rulesOf policy true) deadline cursor outcome

/-- Elaborate a submission; the session stays as it was. -/
def check (request : Json) : CommandElabM Fields := do
  let begin ← IO.monoNanosNow
  let deadline := (← IO.monoMsNow) + number request "wall_ms"
  let outcome ← checkSource request deadline
  let timedOut ← isOver deadline
  let isDecided := text request "kind" == "run" || outcome.noProof || outcome.leftProof
    || outcome.refused != ""
  let name ← fullName (text request "name")
  let (target, reason) ← if isDecided then pure (Json.null, "")
    else targetOf (← getEnv) outcome.state.env name (outcome.failed || timedOut)
  let outcome := if reason == "" then outcome
    else outcome.fail [complaint s!"checked again from the start: {reason}"]
  let timedOut := timedOut || (← isOver deadline)
  let microseconds := ((← IO.monoNanosNow) - begin) / 1000
  let (messages, isCut) ← render (number request "output_bytes") outcome.messages
  return [
    ("has_errors", .bool outcome.failed),
    ("timed_out", .bool timedOut),
    ("refused", .str outcome.refused),
    ("no_proof", .bool outcome.noProof),
    ("left_proof", .bool outcome.leftProof),
    ("target", target),
    ("messages", messages),
    ("left_out", .bool isCut),
    ("seconds", .num { mantissa := microseconds, exponent := 6 })]
