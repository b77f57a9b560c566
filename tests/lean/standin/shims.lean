-- Compiled functions of the library whose intermediate code the embedded Lean lacks:
-- declarations let the interpreter call them. Only their shape counts, not their types.
@[extern "l_List_appendTR___redArg"]
opaque List.appendTR._redArg (left right : List Nat) : List Nat
@[extern "l_List_any___redArg"]
opaque List.any._redArg (list : List Nat) (test : Nat → Bool) : Bool
@[extern "l_List_lengthTR___redArg"]
opaque List.lengthTR._redArg (list : @& List Nat) : Nat
@[extern "l_List_drop___redArg"]
opaque List.drop._redArg (count : @& Nat) (list : @& List Nat) : List Nat
@[extern "l_List_find_x3f___redArg"]
opaque List.find?._redArg (test : Nat → Bool) (list : List Nat) : Option Nat
@[extern "l_List_reverse___redArg"]
opaque List.reverse._redArg (list : List Nat) : List Nat
@[extern "l_List_isEmpty___redArg"]
opaque List.isEmpty._redArg (list : @& List Nat) : Bool
@[extern "l_List_head_x21___redArg"]
opaque List.head!._redArg (default : @& Nat) (list : @& List Nat) : Nat
@[extern "l_Lean_Parser_mkInputContext___redArg"]
opaque Lean.Parser.mkInputContext._redArg (input fileName : String) (normalize : Bool) (endPos : Nat) : Nat
@[extern "l_List_all___redArg"]
opaque List.all._redArg (list : List Nat) (test : Nat → Bool) : Bool
