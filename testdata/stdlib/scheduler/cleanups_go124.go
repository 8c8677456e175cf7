//go:build go1.24

package scheduler

import (
	"context"
	"fmt"
	"runtime"
	"unique"
	"weak"
)

//goref:expect path="runtime.AddCleanup.arg -> name. (string)" since="1.26" count=1 bytes=16
func init() {
	newer = append(newer, func(s *scheduler, ctx context.Context) interface{} {
		runtime.AddCleanup(s.history, func(t *task) { fmt.Println(t) }, &task{name: fmt.Sprint("cleanup ", len(s.queue)), ctx: ctx})
		names := map[string]unique.Handle[string]{}
		for i := 0; i < 20; i++ {
			name := fmt.Sprint("unique ", i)
			names[name] = unique.Make(name)
		}
		return []interface{}{weak.Make(s.history), names}
	})
}
