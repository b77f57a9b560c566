/-! ### The kernel's second look -/

/-- Add `name` and what it rests on to an environment, through the kernel; the
declarations come from another environment. -/
partial def admit (source : Environment) (target : Environment) (name : Name) :
    Except String Environment :=
  match kernelFind target name, kernelFind source name with
  | some _, _ => return target
  | none, none => throw s!"{nameText name} is unknown"
  | none, some info => do
    if info.isUnsafe || info.isPartial then throw s!"{nameText name} is unsafe"
    match info with
    | .thmInfo value =>
      add (.thmDecl value) (← uses target [] [value.type, value.value])
    | .defnInfo value =>
      add (.defnDecl value) (← uses target [] [value.type, value.value])
    | .opaqueInfo value =>
      add (.opaqueDecl value) (← uses target [] [value.type, value.value])
    | .axiomInfo value => add (.axiomDecl value) (← uses target [] [value.type])
    | .ctorInfo value => admit source target value.induct
    | .recInfo value => admitFirst target value.all
    | .inductInfo value =>
      let (types, exprs) ← inductives value.all
      add (.inductDecl value.levelParams value.numParams types value.isUnsafe)
        (← uses target value.all exprs)
    | .quotInfo _ => throw s!"{nameText name} is a second quotient"
where
  add (declaration : Declaration) (env : Environment) : Except String Environment :=
    match kernelAdd env declaration with
    | some env => return env
    | none => throw s!"the kernel refuses {nameText name}"
  admitFirst (env : Environment) : List Name → Except String Environment
    | first :: _ => admit source env first
    | [] => throw s!"{nameText name} has no inductive type"
  uses (env : Environment) (own : List Name) : List Expr → Except String Environment
    | [] => return env
    | expr :: rest => do
      uses (← admitAll env own expr.getUsedConstants.toList) own rest
  admitAll (env : Environment) (own : List Name) : List Name → Except String Environment
    | [] => return env
    | first :: rest => do
      if own.contains first || isOwn own first then admitAll env own rest
      else admitAll (← admit source env first) own rest
  isOwn (own : List Name) (used : Name) : Bool :=
    match kernelFind source used with
    | some (.ctorInfo value) => own.contains value.induct
    | _ => false
  inductives : List Name → Except String (List InductiveType × List Expr)
    | [] => return ([], [])
    | type :: rest => do
      let some (.inductInfo value) := kernelFind source type
        | throw s!"{nameText type} is no inductive type"
      let constructors ← constructorsOf value.ctors
      let (types, exprs) ← inductives rest
      let here := { name := type, type := value.type, ctors := constructors }
      return (here :: types, value.type :: join (typesOf constructors) exprs)
  constructorsOf : List Name → Except String (List Constructor)
    | [] => return []
    | constructor :: rest => do
      let some (.ctorInfo value) := kernelFind source constructor
        | throw s!"{nameText constructor} is no constructor"
      return { name := constructor, type := value.type } :: (← constructorsOf rest)
  typesOf : List Constructor → List Expr
    | [] => []
    | constructor :: rest => constructor.type :: typesOf rest

/-- An expression with the definitions that `base` lacks unfolded: a `match` in a
statement becomes a definition of its own, whose name says nothing. -/
partial def unfold (base env : Environment) (expr : Expr) : Except String Expr :=
  go (namesIn expr) expr
where
  namesIn (expr : Expr) : List Name := expr.getUsedConstants.toList
  go : List Name → Expr → Except String Expr
    | [], expr => return expr
    | name :: rest, expr => do
      if (kernelFind base name).isSome then go rest expr
      else
        let some info := kernelFind env name | throw s!"{nameText name} is unknown"
        let some value := valueOf info | throw s!"the statement defines {nameText name}"
        let value ← unfold base env value
        go rest (expr.replace fun
          | .const used levels =>
            if used == name then
              some (value.instantiateLevelParams info.levelParams levels)
            else none
          | _ => none)
  valueOf : ConstantInfo → Option Expr
    | .defnInfo value => value.value
    | .thmInfo value => value.value
    | _ => none

def twin : Name := `_FDJAX.trusted

/-! ### Facts about the constant with the problem's name -/

def axiomTexts (env : Environment) : List Name → List Json
  | [] => []
  | name :: rest =>
    if wasAxiom env name then .str (nameText name) :: axiomTexts env rest
    else axiomTexts env rest

def axiomsIn (env : Environment) (name : Name) : CommandElabM Json := do
  let before ← getEnv
  setEnv env
  let axioms ← collectAxioms name
  setEnv before
  return strings (axiomTexts env axioms.toList)

def isTheorem : ConstantInfo → Bool
  | .thmInfo _ => true
  | _ => false

def matchesTwin (base env : Environment) (info : ConstantInfo) : Bool :=
  match kernelFind base twin with
  | some (.defnInfo trusted) =>
    info.levelParams == trusted.levelParams
      && match unfold base env info.type with
        | .ok type => type == trusted.value
        | .error _ => false
  | _ => false

def parameters : List Name → List Level
  | [] => []
  | name :: rest => .param name :: parameters rest

/-- `base` with the theorem, through the kernel again, and with the trusted statement
proved by it. -/
def checkAgain (base env : Environment) (info : ConstantInfo) :
    Except String Environment := do
  let env ← admit env base info.name
  let levels := parameters info.levelParams
  let proved : TheoremVal := {
    name := `_FDJAX.proved, levelParams := info.levelParams
    type := .const twin levels, value := .const info.name levels }
  match kernelAdd env (.thmDecl proved) with
  | some _ => return env
  | none => throw "the theorem does not prove the statement"

/-- The facts about the target, and why the kernel does not take it again, empty where it
does or where nothing is to be accepted. -/
def targetOf (base env : Environment) (name : Name) (failed : Bool) :
    CommandElabM (Json × String) := do
  let some info := kernelFind env name | return (.null, "")
  let isTheorem := isTheorem info
  let isMatch := matchesTwin base env info
  let again := if isTheorem && isMatch && !failed then checkAgain base env info
    else .error ""
  let (env, reason) := match again with
    | .ok fresh => (fresh, "")
    | .error reason => (env, reason)
  let facts := Json.mkObj [
    ("is_theorem", .bool isTheorem),
    ("matches_statement", .bool isMatch),
    ("axioms", ← axiomsIn env name)]
  return (facts, reason)
