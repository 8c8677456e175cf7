//go:build go1.25

package library

import "unique"

type Key struct{ A, B string }

var (
	//goref:expect path="$P.Unique -> value. (*string)" since="1.25" min_count=1 min_bytes=112
	Unique unique.Handle[string]
	//goref:expect path="$P.UniqueStruct -> value. (*$P.Key) -> A. (string)" since="1.25" count=1 bytes=64
	//goref:expect path="$P.UniqueStruct -> value. (*$P.Key) -> B. (string)" since="1.25" count=1 bytes=64
	UniqueStruct unique.Handle[Key]
)

func buildUnique() {
	Unique = unique.Make(fill("u", 100))
	UniqueStruct = unique.Make(Key{fill("a", 50), fill("b", 60)})
}
