package main

import (
	"context"
	"sync"
)

// The mix is a toy shop: sessions in a big map and in an LRU list, users with friends, carts with items, small maps of
// attributes, an index tree, callbacks, values in interfaces, buffers, channels and goroutines.

type user struct {
	name, email string
	friends     []*user
	tags        []string
	manager     *user
}

type item struct {
	sku   string
	price int64
	of    *product
}

type product struct {
	title    string
	variants [3]*payload
	meta     any
}

type session struct {
	id         string
	owner      *user
	cart       []*item
	lines      []line
	attrs      map[string]string
	onClose    func() int
	value      any
	prev, next *session
	buffer     []byte
	events     chan *payload
}

// line is held by value: a slice of structs.
type line struct {
	it   *item
	note string
	n    int
}

// entry is a node of an unbalanced search tree.
type entry struct {
	key         uint64
	left, right *entry
	value       []byte
}

type shape interface{ area() float64 }

type square struct{ side float64 }

type polygon struct{ points []payload }

func (s square) area() float64   { return s.side }
func (p *polygon) area() float64 { return float64(len(p.points)) }

type shop struct {
	mu       sync.RWMutex
	sessions map[uint64]*session
	lru      *session
	products []*product
	users    []*user
	index    *entry
	shapes   []shape
	byName   map[string]*user
	jobs     chan func()
	ctx      context.Context
}

var store = &shop{}

func (s *shop) insert(key uint64, value []byte) {
	at := &s.index
	for *at != nil {
		if key < (*at).key {
			at = &(*at).left
		} else {
			at = &(*at).right
		}
	}
	*at = &entry{key: key, value: value}
}

// objectsPerSession is what one round of buildMix makes, measured.
const objectsPerSession = 31

func buildMix(n int) {
	var r random = 42
	s := store
	s.sessions = make(map[uint64]*session)
	s.byName = make(map[string]*user)
	s.jobs = make(chan func(), 1000)
	s.ctx = context.Background()
	rounds := max(n/objectsPerSession, 1)
	for range max(rounds/50, 1) {
		p := &product{title: r.text(30)}
		for i := range p.variants {
			p.variants[i] = new(payload)
		}
		p.meta = r.text(20)
		s.products = append(s.products, p)
	}
	park := make(chan struct{})
	for i := range rounds {
		s.addRound(i, &r)
		if i%1000 == 0 {
			go serve(s.lru, park)
			s.ctx = maybeNested(s.ctx, i)
		}
		if len(s.jobs) < cap(s.jobs) {
			held := s.lru
			s.jobs <- func() { held.buffer = nil }
		}
	}
}

// addRound adds a user, a session with everything in it, an index entry and a shape.
func (s *shop) addRound(i int, r *random) {
	u := &user{name: r.text(12), email: r.text(24)}
	if len(s.users) > 0 {
		u.manager = s.users[r.next()%uint64(len(s.users))]
		for range r.next() % 4 {
			u.friends = append(u.friends, s.users[r.next()%uint64(len(s.users))])
		}
	}
	for range r.next() % 3 {
		u.tags = append(u.tags, r.text(8))
	}
	s.users = append(s.users, u)
	s.byName[u.name] = u

	v := &session{id: r.text(32), owner: u, prev: s.lru}
	if s.lru != nil {
		s.lru.next = v
	}
	s.lru = v
	for range 2 + r.next()%3 {
		v.cart = append(v.cart, &item{r.text(10), int64(i), s.products[r.next()%uint64(len(s.products))]})
	}
	v.lines = make([]line, 2)
	for j := range v.lines {
		v.lines[j] = line{it: v.cart[j], note: r.text(20)}
	}
	v.attrs = map[string]string{"lang": r.text(5), "zone": r.text(18), "agent": r.text(40)}
	total := new(payload)
	v.onClose = func() int { total[0]++; return len(v.cart) }
	switch i % 3 {
	case 0:
		v.value = payload{uint64(i)}
	case 1:
		v.value = u
	case 2:
		v.value = map[uint64]*payload{uint64(i): new(payload)}
	}
	v.buffer = make([]byte, 32+r.next()%1100)
	v.events = make(chan *payload, 2)
	v.events <- new(payload)
	s.sessions[uint64(i)] = v

	s.insert(r.next(), make([]byte, 16+r.next()%100))
	if i%2 == 0 {
		s.shapes = append(s.shapes, square{float64(i)})
	} else {
		s.shapes = append(s.shapes, &polygon{make([]payload, 1+r.next()%4)})
	}
}

type contextKey int

// maybeNested keeps at most a hundred contexts in a chain.
func maybeNested(ctx context.Context, i int) context.Context {
	if i > 100_000 {
		return ctx
	}
	return context.WithValue(ctx, contextKey(i), new(payload))
}

// serve is parked with a session in its frame.
//
//go:noinline
func serve(v *session, park chan struct{}) {
	<-park
	v.buffer = nil
}
