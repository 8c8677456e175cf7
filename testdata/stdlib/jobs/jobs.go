// Package jobs is a pool of workers that decode JSON and XML, execute templates and match expressions; half of the results are
// delivered, the others wait for somebody who takes them.
package jobs

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html/template"
	"io"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"text/tabwriter"
	text "text/template"

	"goref.test/fixtures/truth"
)

const (
	workers = 4
	early   = 40
	late    = 20
)

// Job is a document and who wants the result.
type Job struct {
	ID    int
	Doc   map[string]interface{}
	Reply chan *Result
	Next  func(*Result) *Job
}

// Result is what a worker made.
type Result struct {
	Job  *Job
	HTML bytes.Buffer
	Err  error
}

// Item is decoded from both formats.
type Item struct {
	XMLName xml.Name                   `xml:"item"`
	Name    string                     `xml:"name,attr"`
	Price   *float64                   `json:"price,omitempty" xml:"price"`
	Tags    []string                   `json:"tags" xml:"tags>tag"`
	Sub     []*Item                    `json:"sub" xml:"sub>item"`
	Extra   map[string]json.RawMessage `xml:"-"`
	Any     interface{}                `xml:"-"`
}

const page = `{{define "row"}}<tr><td>{{.Name}}</td><td>{{with .Price}}{{.}}{{end}}</td>
{{range $i, $t := .Tags}}<i title="{{$t}}">{{$i}}{{$t | up}}</i>{{end}}{{range .Sub}}{{template "row" .}}{{end}}</tr>{{end}}
<html><body onload="show({{.}})"><table>{{range .}}{{template "row" .}}{{end}}</table></body></html>`

const doc = `{"Name":"a","price":1.5,"tags":["x","y"],"sub":[{"Name":"b","tags":["q"],"Extra":{"k":[1,2,3],"l":{"m":null}}},
{"Name":"c","Any":{"deep":[1,"2",{"x":true}]}}]},{"Name":"zz","Any":[1,2,3]}`

var (
	pages      = template.Must(template.New("page").Funcs(template.FuncMap{"up": strings.ToUpper}).Parse(page))
	mail       = text.Must(text.New("mail").Parse(`Dear {{.ID}},{{range $k, $v := .Doc}} {{$k}}={{printf "%v" $v}}{{end}}`))
	expression = regexp.MustCompile(`(?i)(foo|bar[a-z]+)\s*=\s*"([^"]*)"|\p{Greek}+`)
)

type pool struct {
	jobs    chan *Job
	stop    chan bool
	workers []*worker
	buffers sync.Pool
	done    sync.WaitGroup
	blocked sync.WaitGroup
}

type worker struct {
	id   int
	pool *pool
	seen map[int]*Result
	text func(int) string
}

func (w *worker) run() {
	defer w.pool.done.Done()
	scratch := make([]byte, 0, 3000)
	for {
		select {
		case job := <-w.pool.jobs:
			result := w.render(job)
			w.seen[job.ID] = result
			scratch = append(scratch[:0], result.HTML.Bytes()...)
			if job.ID >= early {
				w.pool.blocked.Done()
			}
			job.Reply <- result
			if job.Next != nil {
				w.pool.jobs <- job.Next(result)
			}
		case <-w.pool.stop:
			fmt.Println(len(scratch))
			return
		}
	}
}

func (w *worker) render(job *Job) *Result {
	result := &Result{Job: job}
	buffer := w.pool.buffers.Get().(*bytes.Buffer)
	defer w.pool.buffers.Put(buffer)
	buffer.Reset()
	encoded, err := json.Marshal(job.Doc)
	if err != nil {
		result.Err = fmt.Errorf("job %d: %w", job.ID, err)
		return result
	}
	var items []*Item
	if result.Err = json.Unmarshal([]byte("["+doc+"]"), &items); result.Err != nil {
		return result
	}
	result.Err = pages.Execute(&result.HTML, items)
	mail.Execute(buffer, job)
	var again interface{}
	json.Unmarshal(encoded, &again)
	marshalled, _ := xml.Marshal(items[0])
	var item Item
	if err := xml.Unmarshal(marshalled, &item); err != nil {
		result.Err = err
	}
	job.Doc["again"] = again
	job.Doc["items"] = items
	job.Doc["xml"] = item
	job.Doc["mail"] = buffer.String()
	job.Doc["value"] = reflect.ValueOf(&item).Elem()
	job.Doc["found"] = expression.FindAllStringSubmatch(w.text(job.ID)+string(encoded), -1)
	return result
}

//goref:expect path="$P.results -> [[[0]. |[1]. |[9]. ]](*$P.Result)" count=1 bytes=64
//goref:expect path="$P.results -> [10+]. (*$P.Result)" count=30 bytes=1920
//goref:expect path="$P.results -> [10+]. (*$P.Result) -> Job. (*$P.Job)" count=30 bytes=960
var results []*Result

// Run has work done until all wait.
func Run() {
	p := &pool{jobs: make(chan *Job, 64), stop: make(chan bool)}
	p.buffers.New = func() interface{} { return new(bytes.Buffer) }
	for i := 0; i < workers; i++ {
		w := &worker{id: i, pool: p, seen: map[int]*Result{}}
		w.text = func(id int) string { return fmt.Sprintf(`foo="%d-%d" αβγ`, w.id, id) }
		p.workers = append(p.workers, w)
		p.done.Add(1)
		go w.run()
	}
	out := make(chan *Result)
	for i := 0; i < early; i++ {
		document := map[string]interface{}{"i": i, "s": strings.Repeat("s", i), "l": []interface{}{i, "x", 2.5}}
		p.jobs <- &Job{ID: i, Doc: document, Reply: out}
		results = append(results, <-out)
	}
	// Nobody takes these: each worker waits with one, the others are in the channel.
	p.blocked.Add(workers)
	for i := 0; i < late; i++ {
		n := early + i
		next := func(r *Result) *Job { return &Job{ID: n + r.Job.ID} }
		p.jobs <- &Job{ID: n, Doc: map[string]interface{}{"late": n}, Reply: out, Next: next}
	}
	p.blocked.Wait()
	for _, result := range results {
		if result.Err != nil {
			panic(result.Err)
		}
	}
	table := tabwriter.NewWriter(io.Discard, 0, 8, 1, ' ', 0)
	fmt.Fprintf(table, "first\tsecond\n\tthird")
	truth.Point()
	fmt.Println(p, table)
}
