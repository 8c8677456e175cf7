//go:build go1.21

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// lazy computes once; the second has done so.
type lazy struct {
	once   func() int
	values func() (map[string]int, error)
}

func init() {
	newer = append(newer, func(s *scheduler, ctx context.Context) interface{} {
		for i := 0; i < 10; i++ {
			i := i
			late := errors.Join(context.DeadlineExceeded, fmt.Errorf("late %d", i))
			child, cancel := context.WithTimeoutCause(ctx, time.Hour, late)
			context.AfterFunc(child, func() { fmt.Println("after", i); cancel() })
			ctx = context.WithoutCancel(child)
		}
		l := &lazy{once: sync.OnceValue(func() int { return len(s.queue) })}
		l.values = sync.OnceValues(func() (map[string]int, error) { return map[string]int{"a": 1}, nil })
		l.values()
		return []interface{}{l, ctx}
	})
}
