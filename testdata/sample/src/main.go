// Cacheserver is the bundled sample: a toy cache server with the leaks that such servers have. It takes no requests; it
// fills itself, brings the heap to rest, and waits for its core.
package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Entry is what the cache holds: 72 bytes in a slot of 80.
type Entry struct {
	Key     string
	Value   []byte
	Expires int64
	Tags    []string // evicted with the entry
}

// Cache has shards, each a map with a lock.
type Cache struct {
	shards [4]shard
	onDrop []func(*Entry)
}

type shard struct {
	mu      sync.Mutex
	entries map[string]*Entry
}

// Session is kept by two owners: the table of sessions and the history.
type Session struct {
	ID   string
	User *User
	ctx  context.Context
	last *Entry
}

type User struct {
	Name  string
	Roles map[string]bool
}

// Request is the leak: the history never forgets one.
type Request struct {
	prev    *Request
	session *Session
	body    []byte
}

var (
	//goref:expect path="$P.cache" count=1 bytes=96
	//goref:expect path="$P.cache -> onDrop. ([]func(*$P.Entry)) -> [0]. (func(*$P.Entry)) -> $P.(*Cache).countDrops.func1 -> dropped. (*[128]uint64)" count=1 bytes=1024
	cache *Cache
	// The last session is as near to the history, whose name comes first.
	//goref:expect path="$P.sessions -> $mapval. (*$P.Session)" count=199 bytes=9552
	sessions = map[string]*Session{}
	//goref:expect path="$P.history" count=1 bytes=48
	//goref:expect path="$P.history -> prev. (*$P.Request) -> body. ([]uint8)" min_count=1000 min_bytes=1000000
	history *Request
)

func (c *Cache) shardOf(key string) *shard { return &c.shards[len(key)%len(c.shards)] }

func (c *Cache) set(key string, size int) *Entry {
	e := &Entry{Key: key, Value: make([]byte, size), Tags: []string{strings.ToUpper(key)}}
	s := c.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = make(map[string]*Entry)
	}
	s.entries[key] = e
	return e
}

// countDrops registers a callback that holds a table.
//
//go:noinline
func (c *Cache) countDrops() {
	dropped := new([128]uint64)
	c.onDrop = append(c.onDrop, func(e *Entry) { dropped[len(e.Key)%128]++ })
}

// worker waits for work with a buffer of its own.
//
//goref:expect path="$P.worker.buffer" count=4 bytes=65536
//go:noinline
func worker(jobs <-chan *Request, buffer *[16384]byte) {
	for r := range jobs {
		copy(buffer[:], r.body)
	}
	runtime.KeepAlive(buffer)
}

//go:noinline
func newBuffer() *[16384]byte { return new([16384]byte) }

func fill() {
	cache = new(Cache)
	for i := range 2000 {
		cache.set("key-"+strconv.Itoa(i*i), 16+i%500)
	}
	cache.countDrops()
	ctx, _ := context.WithCancel(context.Background())
	for i := range 200 {
		s := &Session{ID: "session-" + strconv.Itoa(1000+i), ctx: ctx}
		s.User = &User{Name: "user number " + strconv.Itoa(i), Roles: map[string]bool{"reader": true}}
		s.last = cache.set("last-of-"+s.ID, 100)
		sessions[s.ID] = s
		for range 6 {
			history = &Request{history, s, make([]byte, 1024)}
		}
	}
	jobs := make(chan *Request)
	for range 4 {
		go worker(jobs, newBuffer())
	}
}

var (
	stats runtime.MemStats
	line  [128]byte
	input [1]byte
)

// main does what testdata/programs/truth does, in short.
func main() {
	debug.SetGCPercent(-1)
	fill()
	for range 3 {
		time.Sleep(50 * time.Millisecond)
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
	b := append(line[:0], "TRUTH heapalloc="...)
	b = strconv.AppendUint(b, stats.HeapAlloc, 10)
	b = append(b, " objects="...)
	b = strconv.AppendUint(b, stats.HeapObjects, 10)
	syscall.Write(1, append(b, "\nWAIT\n"...))
	syscall.Read(0, input[:])
	alloc := stats.HeapAlloc
	runtime.ReadMemStats(&stats)
	if stats.HeapAlloc != alloc {
		syscall.Write(1, append(line[:0], "CHANGED\n"...))
		os.Exit(1)
	}
	syscall.Write(1, append(line[:0], "OK\n"...))
}
