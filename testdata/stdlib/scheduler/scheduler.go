// Package scheduler is made of timers and contexts: a tree of contexts with deadlines and values, a queue of tasks with a timer each,
// goroutines that wait for a condition, a lock, a semaphore, a tick or the end of a context, and what was weakly kept or pooled.
package scheduler

import (
	"container/heap"
	"container/list"
	"container/ring"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"goref.test/fixtures/truth"
)

const (
	contexts = 100
	tasks    = 200
	waiters  = 30
	sleepers = 20
	readers  = 5
)

// group runs functions, a limited number at a time, and ends them all with the first error.
type group struct {
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	places chan struct{}
	once   sync.Once
	err    error
}

func (g *group) run(f func(context.Context) error) {
	g.places <- struct{}{}
	g.done.Add(1)
	go func() {
		defer func() { <-g.places; g.done.Done() }()
		if err := f(g.ctx); err != nil {
			g.once.Do(func() { g.err = err; g.cancel() })
		}
	}()
}

type task struct {
	name  string
	at    time.Time
	run   func()
	timer *time.Timer
	after []*task
	ctx   context.Context
}

type queue []*task

func (q queue) Len() int            { return len(q) }
func (q queue) Less(i, k int) bool  { return q[i].at.Before(q[k].at) }
func (q queue) Swap(i, k int)       { q[i], q[k] = q[k], q[i] }
func (q *queue) Push(x interface{}) { *q = append(*q, x.(*task)) }
func (q *queue) Pop() interface{} {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

type scheduler struct {
	mu      sync.Mutex
	changed *sync.Cond
	queue   queue
	spare   sync.Pool
	value   atomic.Value
	tickers []*time.Ticker
	recent  list.List
	turns   *ring.Ring
	signals chan os.Signal
	history *state
	waiting int32
}

type state struct {
	n     int
	lines []string
	prev  *state
}

type key struct{ name string }

//goref:expect path="$P.current -> queue. ($P.queue) -> [[[0]. |[9]. ]](*$P.task)" count=1 bytes=96
//goref:expect path="$P.current -> queue. ($P.queue) -> [10+]. (*$P.task)" count=190 bytes=18240
var current = &scheduler{signals: make(chan os.Signal, 3)}

// idle waits for a task that never comes.
func (s *scheduler) idle(id int) error {
	own := make([]*task, 20)
	for i := range own {
		own[i] = &task{name: fmt.Sprint("own ", id, i)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	atomic.AddInt32(&s.waiting, 1)
	for len(s.queue) < 1_000_000 {
		s.changed.Wait()
	}
	runtime.KeepAlive(own)
	return nil
}

// expire waits for whatever comes first.
func (s *scheduler) expire(ctx context.Context, id int, timer *time.Timer, ticker *time.Ticker) error {
	report := fmt.Sprintf("%0200d", id)
	atomic.AddInt32(&s.waiting, 1)
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", report, ctx.Err())
	case <-timer.C:
	case <-ticker.C:
		return errors.New(report)
	}
	return nil
}

func (s *scheduler) fill(ctxs []context.Context) {
	for i := 0; i < tasks; i++ {
		t := &task{name: fmt.Sprint("task ", i), at: time.Now().Add(time.Hour * time.Duration(i*7919%200)), ctx: ctxs[i%len(ctxs)]}
		t.run = func() { t.timer.Stop() }
		t.timer = time.AfterFunc(time.Until(t.at)+time.Hour, t.run)
		if i > 2 {
			t.after = append(t.after, s.queue[i/2], s.queue[0])
		}
		heap.Push(&s.queue, t)
	}
	for i := 0; i < 10; i++ {
		s.tickers = append(s.tickers, time.NewTicker(time.Hour*time.Duration(i+1)))
		s.recent.PushBack(&task{name: fmt.Sprint("recent ", i)})
	}
	s.turns = ring.New(10)
	for i := 0; i < 10; i++ {
		s.turns.Value = fmt.Sprint("turn ", i)
		s.turns = s.turns.Next()
	}
	for i := 0; i < 5; i++ {
		s.history = &state{n: i, lines: []string{fmt.Sprint("line ", i)}, prev: s.history}
	}
	s.value.Store(map[string]*state{"last": s.history, "none": {n: 1}})
}

// newer is what releases since the oldest have to add.
var newer []func(*scheduler, context.Context) interface{}

// Run schedules until all wait.
func Run() {
	s := current
	s.changed = sync.NewCond(&s.mu)
	s.spare.New = func() interface{} { return &state{lines: make([]string, 10)} }
	root, cancel := context.WithCancel(context.Background())
	g := &group{ctx: root, cancel: cancel, places: make(chan struct{}, 2*waiters)}
	parent := root
	var ctxs []context.Context
	var cancels []context.CancelFunc
	for i := 0; i < contexts; i++ {
		ctx := context.WithValue(parent, key{fmt.Sprint("key ", i)}, &task{name: fmt.Sprint("value ", i)})
		ctx, cancel := context.WithTimeout(ctx, time.Hour+time.Duration(i)*time.Second)
		cancels = append(cancels, cancel)
		ctxs = append(ctxs, ctx)
		if i%10 == 0 {
			parent = ctx
		}
	}
	s.fill(ctxs)
	for i := 0; i < waiters; i++ {
		i := i
		g.run(func(context.Context) error { return s.idle(i) })
		g.run(func(context.Context) error {
			return s.expire(ctxs[i], i, time.NewTimer(5*time.Hour), time.NewTicker(3*time.Hour))
		})
	}
	for i := 0; i < sleepers; i++ {
		go func(i int) {
			own := &state{n: i, lines: []string{fmt.Sprint("asleep ", i)}}
			atomic.AddInt32(&s.waiting, 1)
			time.Sleep(10 * time.Hour)
			fmt.Println(own)
		}(i)
	}
	var lock sync.RWMutex
	lock.Lock()
	for i := 0; i < readers; i++ {
		go func(i int) {
			atomic.AddInt32(&s.waiting, 1)
			lock.RLock()
			fmt.Println(i, s.value.Load())
		}(i)
	}
	interrupted, stop := signal.NotifyContext(root, os.Interrupt)
	signal.Notify(s.signals, syscall.SIGHUP, syscall.SIGUSR1)
	truth.BeforeLast(func() {
		for i := 0; i < 10; i++ {
			s.spare.Put(&state{n: i, lines: make([]string, 5)})
		}
	})
	guarded := &state{n: 77}
	runtime.SetFinalizer(guarded, func(x *state) { fmt.Println(x.n, s.queue.Len()) })
	var more []interface{}
	for _, f := range newer {
		more = append(more, f(s, root))
	}
	for atomic.LoadInt32(&s.waiting) < 2*waiters+sleepers+readers {
		time.Sleep(time.Millisecond)
	}
	truth.Point()
	fmt.Println(g, ctxs, cancels, interrupted, stop, guarded, more)
}
