// Package shared: objects with several holders. Fewest pointer hops win; among equals the order of the roots' names.
package shared

import "sync"

type V [4]uint64 // 32 bytes

type Chain struct{ next *Chain }

// Server is 96 bytes: small enough to carry no type of its own.
type Server struct {
	Conf *V
	mu   sync.Mutex
	Data *V
	pad  [9]uint64
}

// Large is over 512 bytes: it carries its type.
type Large struct {
	Conf *V
	mu   sync.Mutex
	pad  [80]uint64
	Data *V
}

type Two struct{ First, Second *V }

var (
	// Same distance: the first name in order counts it.
	//goref:expect path="$P.A1" count=1 bytes=32
	//goref:expect path="$P.A2" count=0 bytes=0
	A1, A2 *V
	// A shorter way wins over an earlier name.
	//goref:expect path="$P.B1Far" count=1 bytes=16
	//goref:expect path="$P.B1Far -> First. (*$P.V)" count=0 bytes=0
	//goref:expect path="$P.B2Near" count=1 bytes=32
	B1Far  *Two
	B2Near *V
	// Same path node, two fields: the first field counts.
	//goref:expect path="$P.C -> First. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.C -> Second. (*$P.V)" count=0 bytes=0
	C Two
	// A pointer to the mutex comes first and counts the server; its type explains no pointer word, so the words stay open
	// for the richer pointer, which scans them without counting the server again.
	//goref:expect path="$P.D1Mutex" count=1 bytes=96
	//goref:expect path="$P.D2Server" count=0 bytes=0
	//goref:expect path="$P.D2Server -> Conf. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.D2Server -> Data. (*$P.V)" count=1 bytes=32
	D1Mutex  *sync.Mutex
	D2Server *Server
	// Over 512 bytes the object's own type replaces the pointer's: the mutex pointer names everything.
	//goref:expect path="$P.E1Mutex" count=1 bytes=704
	//goref:expect path="$P.E1Mutex -> Conf. (*$P.V)" since="1.22" without="noallocheaders" count=1 bytes=32
	//goref:expect path="$P.E1Mutex -> Data. (*$P.V)" since="1.22" without="noallocheaders" count=1 bytes=32
	//goref:expect path="$P.E2Large" count=0 bytes=0
	// Up to Go 1.21 nothing records that type, and the richer pointer scans what the first one counted.
	//goref:expect path="$P.E2Large -> Conf. (*$P.V)" until="1.21" count=1 bytes=32
	//goref:expect path="$P.E2Large -> Data. (*$P.V)" until="1.21" count=1 bytes=32
	E1Mutex *sync.Mutex
	E2Large *Large
	// s[3:5] counts the array and names elements 3 and later (its capacity); the whole slice names the first three.
	//goref:expect path="$P.F1Part" count=1 bytes=64
	//goref:expect path="$P.F1Part -> [0]. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.F1Part -> [4]. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.F2Whole" count=0 bytes=0
	//goref:expect path="$P.F2Whole -> [0]. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.F2Whole -> [2]. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.F2Whole -> [3]. (*$P.V)" count=0 bytes=0
	F1Part  []*V
	F2Whole []*V
	// Only &s.mu is left: the words nobody explains are left over, under the path that holds the object.
	//goref:expect path="$P.G" count=1 bytes=96
	//goref:expect path="$P.G -> $sub_objects$" count=2 bytes=64
	G *sync.Mutex
	// A cycle that is reached from outside at one point.
	//goref:expect path="$P.H" count=1 bytes=8
	//goref:expect path="$P.H -> next. (*$P.Chain)" count=9 bytes=72
	H *Chain
	// Strings that share their bytes.
	//goref:expect path="$P.I1" count=1 bytes=64
	//goref:expect path="$P.I2" count=0 bytes=0
	I1, I2 string
)

func Build() {
	A1 = new(V)
	A2 = A1
	B2Near = new(V)
	B1Far = &Two{First: B2Near}
	C.First = new(V)
	C.Second = C.First
	D2Server = &Server{Conf: new(V), Data: new(V)}
	D1Mutex = &D2Server.mu
	E2Large = &Large{Conf: new(V), Data: new(V)}
	E1Mutex = &E2Large.mu
	F2Whole = make([]*V, 8)
	for i := range F2Whole {
		F2Whole[i] = new(V)
	}
	F1Part = F2Whole[3:5]
	G = &(&Server{Conf: new(V), Data: new(V)}).mu
	H = new(Chain)
	H.next = H
	for i := 0; i < 9; i++ {
		H.next = &Chain{H.next}
	}
	b := make([]byte, 64)
	I1 = string(b)
	I2 = I1[10:20]
}
