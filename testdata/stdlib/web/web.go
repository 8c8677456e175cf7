// Package web is an HTTP server with open connections: idle ones that are kept alive, event streams, long polls, uploads, requests
// through a reverse proxy, and a connection that was taken over. Its clients are in the same process.
package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"goref.test/fixtures/truth"
)

const (
	users   = 40
	raw     = 30
	streams = 4
	polls   = 6
	uploads = 3
)

// user is what a session knows.
type user struct {
	Name  string
	Mail  string
	Roles []string
	Home  *url.URL
}

type session struct {
	id     string
	user   *user
	header http.Header
	attrs  map[string]interface{}
	last   time.Time
}

// store is the state of the server.
type store struct {
	mu       sync.RWMutex
	sessions map[string]*session
	hits     sync.Map
	log      *log.Logger
	files    []*upload
	taken    []net.Conn
	// open counts requests that are not answered to their end.
	open sync.WaitGroup
	quit chan struct{}
}

type upload struct {
	name string
	data []byte
	form url.Values
}

//goref:expect prefix="$P.state" min_count=600 min_bytes=30000
//goref:expect within="user. (*$P.user)" min_count=70 min_bytes=4480
//goref:expect within="header. (net/http.Header)" min_count=300
var state = &store{sessions: map[string]*session{}, quit: make(chan struct{})}

func (s *store) session(r *http.Request) *session {
	id := r.URL.Query().Get("id")
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.sessions[id]
	if found == nil {
		u := &user{Name: "user " + id, Mail: strings.Repeat("m", 40) + id, Roles: []string{"reader of " + id, "writer of " + id}}
		u.Home, _ = url.Parse("http://example.org/home/" + id + "?tab=1#top")
		found = &session{id: id, user: u, attrs: map[string]interface{}{}}
		s.sessions[id] = found
	}
	found.header = r.Header.Clone()
	found.last = time.Now()
	return found
}

// ServeHTTP answers with the session's user.
func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	found := s.session(r)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	found.attrs["body"] = body
	found.attrs["agent"] = r.UserAgent()
	found.attrs["cookies"] = r.Cookies()
	s.mu.Unlock()
	s.hits.Store(found.id, &found.last)
	s.log.Printf("%s %s", r.Method, r.URL)
	http.SetCookie(w, &http.Cookie{Name: "sid", Value: found.id, Path: "/", MaxAge: 3600})
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(found.user)
}

// events sends a few and then has none.
func (s *store) events(w http.ResponseWriter, r *http.Request) {
	recent := make([]*session, 0, 8)
	s.mu.RLock()
	for _, found := range s.sessions {
		if len(recent) < cap(recent) {
			recent = append(recent, found)
		}
	}
	s.mu.RUnlock()
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range recent {
		fmt.Fprintf(w, "data: %d\n\n", i)
	}
	w.(http.Flusher).Flush()
	s.open.Done()
	select {
	case <-r.Context().Done():
	case <-s.quit:
	}
	s.log.Println(len(recent))
}

// poll answers when there is news.
func (s *store) poll(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), key("poll"), r.URL), 10*time.Hour)
	defer cancel()
	s.open.Done()
	<-ctx.Done()
	w.WriteHeader(http.StatusNoContent)
}

type key string

func (s *store) upload(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseMultipartForm(1 << 20); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	file, header, err := r.FormFile("file")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	data, _ := io.ReadAll(file)
	s.mu.Lock()
	s.files = append(s.files, &upload{header.Filename, data, r.Form})
	s.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
}

func (s *store) take(w http.ResponseWriter, r *http.Request) {
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\n\r\n")
	buffered.Flush()
	s.mu.Lock()
	s.taken = append(s.taken, conn)
	s.mu.Unlock()
}

// logged is a handler around another.
func logged(next http.Handler, to *log.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		to.Println("done", r.URL.Path)
	})
}

func serve(handler http.Handler) (string, *http.Server) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	server := &http.Server{
		Handler:           handler,
		ErrorLog:          log.New(io.Discard, "server ", log.LstdFlags),
		ReadHeaderTimeout: 20 * time.Hour,
		IdleTimeout:       10 * time.Hour,
		ConnState:         func(c net.Conn, s http.ConnState) { state.log.Println(c.RemoteAddr(), s) },
	}
	go server.Serve(listener)
	return listener.Addr().String(), server
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// Run serves until everybody waits.
func Run() {
	state.log = log.New(io.Discard, "web ", log.LstdFlags)
	mux := http.NewServeMux()
	mux.Handle("/api/", logged(state, state.log))
	mux.HandleFunc("/events", state.events)
	mux.HandleFunc("/poll", state.poll)
	mux.HandleFunc("/upload", state.upload)
	mux.HandleFunc("/take", state.take)
	address, server := serve(mux)
	target, err := url.Parse("http://" + address)
	check(err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	front, frontServer := serve(proxy)

	jar, _ := cookiejar.New(nil)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: users, IdleConnTimeout: 10 * time.Hour}, Jar: jar}
	var done sync.WaitGroup
	for i := 0; i < users; i++ {
		done.Add(1)
		host := address
		if i%4 == 0 {
			host = front
		}
		go func(i int, host string) {
			defer done.Done()
			body := bytes.NewReader(make([]byte, 100*i))
			response, err := client.Post(fmt.Sprintf("http://%s/api/user?id=%d", host, i), "application/octet-stream", body)
			check(err)
			var u user
			check(json.NewDecoder(response.Body).Decode(&u))
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}(i, host)
	}
	done.Wait()

	// Connections without a client behind them.
	var conns []net.Conn
	for i := 0; i < raw; i++ {
		conn, err := net.Dial("tcp", address)
		check(err)
		fmt.Fprintf(conn, "GET /api/raw?id=raw%d HTTP/1.1\r\nHost: example.org\r\nUser-Agent: raw\r\nX-Number: %d\r\n\r\n", i, i)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		check(err)
		io.Copy(io.Discard, response.Body)
		conns = append(conns, conn)
	}
	for i := 0; i < uploads; i++ {
		var form bytes.Buffer
		parts := multipart.NewWriter(&form)
		parts.WriteField("title", fmt.Sprint("file ", i))
		part, _ := parts.CreateFormFile("file", fmt.Sprint(i, ".bin"))
		part.Write(make([]byte, 10000*i))
		parts.Close()
		response, err := client.Post("http://"+address+"/upload", parts.FormDataContentType(), &form)
		check(err)
		response.Body.Close()
	}
	conn, err := net.Dial("tcp", address)
	check(err)
	fmt.Fprint(conn, "GET /take HTTP/1.1\r\nHost: example.org\r\nConnection: Upgrade\r\nUpgrade: nothing\r\n\r\n")
	_, err = http.ReadResponse(bufio.NewReader(conn), nil)
	check(err)

	// Requests that stay open, some through the proxy.
	state.open.Add(streams + polls)
	var bodies []io.ReadCloser
	for i := 0; i < streams; i++ {
		host := address
		if i%2 == 0 {
			host = front
		}
		response, err := client.Get("http://" + host + "/events")
		check(err)
		line := make([]byte, 8)
		_, err = io.ReadFull(response.Body, line)
		check(err)
		bodies = append(bodies, response.Body)
	}
	for i := 0; i < polls; i++ {
		go func(i int) {
			ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(5*time.Hour))
			defer cancel()
			request, _ := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("http://%s/poll?since=%d", address, i), nil)
			_, err := client.Do(request)
			check(err)
		}(i)
	}
	state.open.Wait()
	truth.Point()
	fmt.Println(server, frontServer, proxy, client, conns, bodies, conn)
}
