/-! ### What Lean compiles of a submission -/

/-- Whether Lean made the name: a submission has none with a part that begins with `_tmp`
or `_auto` (`Rules.reserved`), and no text spells a part that is a number. -/
def isLeansOwn (name : Name) : Bool :=
  match name with
  | .num _ _ => name.getRoot == `_tmp
  | .str _ last => last == "_autoParam" || last.startsWith "_auto_"
  | .anonymous => false

/-- What a value that Lean compiles may be made of. -/
structure Data where
  /-- Functions that it may call. -/
  functions : NameSet
  /-- Those whose result may be much larger than what they are given. -/
  growing : NameSet
  /-- The largest number that those may be given. -/
  largest : Nat
  /-- Types that are laid out otherwise than their constructors say. -/
  unlike : NameSet
  /-- The most parts it may have. -/
  nodes : Nat

/-- Whether a constant takes a part of a structure, not of an instance of a class. -/
def isProjection (env : Environment) (name : Name) : Bool :=
  match env.getProjectionFnInfo? name with
  | some info => !info.fromClass
  | none => false

/-- Whether a function of this type has all its arguments. -/
def isComplete : Expr → List Expr → Bool
  | .forallE _ _ body _, _ :: rest => isComplete body rest
  | .forallE .., [] => false
  | _, _ => true

/-- The arguments of an application, and those after them. -/
def argumentsOf : Expr → List Expr → List Expr
  | .app function argument, after => argumentsOf function (argument :: after)
  | _, after => after

def isInductive (env : Environment) : Expr → Bool
  | .const name _ => match env.find? name with
    | some (.inductInfo _) => true
    | _ => false
  | _ => false

/-- Whether a constant is data, as applied to its arguments: a type, a constructor, one of
the functions; and outside the arguments of one whose result grows, the projection of a
structure or a value whose type is an inductive type by itself, such as `Nat`. -/
def allows (data : Data) (known : Environment) (name : Name) (arguments : List Expr)
    (inGrowing : Bool) : Bool :=
  match known.find? name with
  | some info =>
    if data.unlike.contains name.getRoot then false
    else if data.growing.contains name then !inGrowing && isComplete info.type arguments
    else data.functions.contains name || match info with
      | .inductInfo _ | .ctorInfo _ => true
      | _ => !inGrowing && (isProjection known name || isInductive known info.type)
  | none => false

/-- Whether a value is plain data, so that making it costs little and does nothing else:
what is left of the number of parts it may have. `known` is the environment before the
submission: of what that declares, nothing is data. -/
partial def plainRest (data : Data) (known : Environment) (inGrowing : Bool) (left : Nat)
    (expr : Expr) : Option Nat :=
  if left == 0 then none
  else match expr with
    | .lit (.natVal value) =>
      if inGrowing && Nat.blt data.largest value then none else some (left - 1)
    | .lit (.strVal _) => some (left - 1)
    | .bvar _ => if inGrowing then none else some (left - 1)
    | .letE _ type value body _ =>
      if inGrowing then none else all false (left - 1) [type, value, body]
    | .const .. | .app .. =>
      match expr.getAppFn with
      | .const name _ =>
        let arguments := argumentsOf expr []
        if allows data known name arguments inGrowing then
          all (inGrowing || data.growing.contains name) (left - 1) arguments
        else none
      | _ => none
    | _ => none
where
  all (inGrowing : Bool) (left : Nat) : List Expr → Option Nat
    | [] => some left
    | first :: others => match plainRest data known inGrowing left first with
      | some left => all inGrowing left others
      | none => none

/-- Whether all are Lean's own and plain data. A coercion or an instance of the submission
would bring its own terms into one. -/
def mayCompile (data : Data) (known env : Environment) : List Name → Bool
  | [] => true
  | name :: rest => mayCompile data known env rest && isLeansOwn name
    && match env.find? name with
      | some (.defnInfo value) =>
        (plainRest data known false data.nodes value.value).isSome
      | _ => false

/-- Runs what elaborates a submission; the state before is the session's. Tactics compile
and run their configuration and the tactic blocks of automatic parameters. Where these are
plain data they are compiled, and nothing else is: what has no code cannot be run, whatever
asks for it. `none` for a Lean that cannot be told: there, a submission may define nothing
that would be compiled, and no tactic has a configuration. -/
def withoutCode {α : Type} :
    Option (Data → CommandElabM α → CommandElabM α) := by
  first
  | exact some fun data action => do
      let known ← getEnv
      let compile ← compileDeclsRef.get
      compileDeclsRef.set fun names => do
        if mayCompile data known (← getEnv) names.toList then compile names
      try action finally compileDeclsRef.set compile
  | exact none
