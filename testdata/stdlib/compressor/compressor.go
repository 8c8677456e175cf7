// Package compressor is a pipeline of goroutines that pack, sum and archive chunks, in the middle of its work; beside it every reader and
// writer of the compression packages, each of which has begun and not ended.
package compressor

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/flate"
	"compress/gzip"
	"compress/lzw"
	"compress/zlib"
	"crypto/sha256"
	"encoding/base64"
	"encoding/gob"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math/rand"

	"goref.test/fixtures/truth"
)

// chunk is what the stages pass on.
type chunk struct {
	seq  int
	data []byte
	sum  hash.Hash
	from *chunk
}

type stage func(<-chan *chunk) <-chan *chunk

// runs makes a stage of a function.
func runs(name string, f func(*chunk) *chunk) stage {
	return func(in <-chan *chunk) <-chan *chunk {
		out := make(chan *chunk, 4)
		go func() {
			defer close(out)
			n := 0
			for c := range in {
				n++
				out <- f(c)
			}
			fmt.Println(name, n)
		}()
		return out
	}
}

var stages = []stage{
	runs("pack", func(c *chunk) *chunk {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		w.Write(c.data)
		w.Close()
		return &chunk{seq: c.seq, data: packed.Bytes(), from: c}
	}),
	runs("sum", func(c *chunk) *chunk {
		c.sum = crc32.NewIEEE()
		c.sum.Write(c.data)
		return c
	}),
	runs("hash", func(c *chunk) *chunk {
		h := sha256.New()
		h.Write(c.data)
		return &chunk{seq: c.seq, data: h.Sum(nil), sum: h, from: c}
	}),
}

type record struct {
	A int
	B []string
	C map[string]*record
	D interface{}
}

var writers struct {
	gzips  []*gzip.Writer
	flate  *flate.Writer
	lzw    io.WriteCloser
	zlib   *zlib.Writer
	buffer *bufio.Writer
	tar    *tar.Writer
	zip    *zip.Writer
	gob    *gob.Encoder
	base64 io.WriteCloser
	multi  io.Writer
}

var readers struct {
	gzip    *gzip.Reader
	flate   io.ReadCloser
	bzip2   io.Reader
	lzw     io.ReadCloser
	zlib    io.ReadCloser
	buffer  *bufio.Reader
	scanner *bufio.Scanner
	tar     *tar.Reader
	zip     *zip.Reader
	gob     *gob.Decoder
	decoded record
}

// A file of bzip2 with one short text.
const bzipped = "QlpoOTFBWSZTWfnmpGEAAAVZgAAQQAQQABZk3JAgACGoNHqGTT1ChppgAv0M5gw+5WG9JCUVBC+LuSKcKEh881IwgA=="

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func text(n int) []byte {
	random := rand.New(rand.NewSource(1))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(random.Intn(20) + 'a')
		if i%70 == 69 {
			data[i] = '\n'
		}
	}
	return data
}

func write(data []byte) (gzipped, flated, zlibbed, tarred, gobbed *bytes.Buffer) {
	gzipped, flated, zlibbed = new(bytes.Buffer), new(bytes.Buffer), new(bytes.Buffer)
	tarred, gobbed = new(bytes.Buffer), new(bytes.Buffer)
	w := &writers
	for level := 1; level <= 9; level += 4 {
		g, err := gzip.NewWriterLevel(gzipped, level)
		check(err)
		g.Name = fmt.Sprint("level", level)
		g.Write(data[:30000])
		g.Flush()
		w.gzips = append(w.gzips, g)
	}
	w.flate, _ = flate.NewWriterDict(flated, 6, data[:1000])
	w.flate.Write(data)
	w.flate.Flush()
	w.lzw = lzw.NewWriter(io.Discard, lzw.LSB, 8)
	w.lzw.Write(data[:5000])
	w.zlib = zlib.NewWriter(zlibbed)
	w.zlib.Write(data)
	w.zlib.Flush()
	w.buffer = bufio.NewWriterSize(w.zlib, 10000)
	w.buffer.WriteString("half a line")
	w.tar = tar.NewWriter(tarred)
	check(w.tar.WriteHeader(&tar.Header{Name: "a", Size: 10, Mode: 0o644, PAXRecords: map[string]string{"test.key": "value"}}))
	w.tar.Write([]byte("hello"))
	w.zip = zip.NewWriter(io.Discard)
	for i := 0; i < 5; i++ {
		f, err := w.zip.Create(fmt.Sprint("file", i))
		check(err)
		f.Write(data[:2000])
	}
	w.zip.Flush()
	w.gob = gob.NewEncoder(gobbed)
	check(w.gob.Encode(&record{A: 1, B: []string{"x", "y"}, C: map[string]*record{"k": {A: 2}}, D: &record{A: 7}}))
	w.base64 = base64.NewEncoder(base64.StdEncoding, gzipped)
	w.base64.Write([]byte("a"))
	w.multi = io.MultiWriter(gzipped, w.buffer, sha256.New())
	return
}

// archive is a whole zip file.
func archive(data []byte) *bytes.Reader {
	var to bytes.Buffer
	w := zip.NewWriter(&to)
	for i := 0; i < 12; i++ {
		f, err := w.CreateHeader(&zip.FileHeader{Name: fmt.Sprintf("dir/file%d", i), Method: zip.Deflate, Comment: "of a test"})
		check(err)
		f.Write(data[:1000*i])
	}
	check(w.Close())
	return bytes.NewReader(to.Bytes())
}

func read(data []byte) {
	gzipped, flated, zlibbed, tarred, gobbed := write(data)
	lzwed := new(bytes.Buffer)
	r := &readers
	var err error
	r.gzip, err = gzip.NewReader(bytes.NewReader(gzipped.Bytes()))
	check(err)
	some := func(from io.Reader, n int) {
		_, err := io.ReadFull(from, make([]byte, n))
		check(err)
	}
	some(r.gzip, 1000)
	r.flate = flate.NewReaderDict(bytes.NewReader(flated.Bytes()), data[:1000])
	some(r.flate, 1000)
	packed, err := base64.StdEncoding.DecodeString(bzipped)
	check(err)
	r.bzip2 = bzip2.NewReader(bytes.NewReader(packed))
	some(r.bzip2, 5)
	// It writes nothing before its end.
	whole := lzw.NewWriter(lzwed, lzw.LSB, 8)
	whole.Write(data[:5000])
	check(whole.Close())
	r.lzw = lzw.NewReader(bytes.NewReader(lzwed.Bytes()), lzw.LSB, 8)
	some(r.lzw, 100)
	r.zlib, err = zlib.NewReader(bytes.NewReader(zlibbed.Bytes()))
	check(err)
	some(r.zlib, 1000)
	r.buffer = bufio.NewReaderSize(r.zlib, 5000)
	_, err = r.buffer.ReadString('\n')
	check(err)
	r.scanner = bufio.NewScanner(r.buffer)
	r.scanner.Scan()
	r.tar = tar.NewReader(bytes.NewReader(tarred.Bytes()))
	_, err = r.tar.Next()
	check(err)
	zipped := archive(data)
	r.zip, err = zip.NewReader(zipped, zipped.Size())
	check(err)
	r.gob = gob.NewDecoder(bytes.NewReader(gobbed.Bytes()))
	check(r.gob.Decode(&r.decoded))
}

//goref:expect path="$P.taken" count=1 bytes=64
//goref:expect path="$P.taken -> from. (*$P.chunk)" count=2 bytes=128
var taken *chunk

// Run works until every stage waits for the next one.
func Run() {
	gob.Register(&record{})
	data := text(100_000)
	read(data)

	first := make(chan *chunk, 4)
	var last <-chan *chunk = first
	for _, s := range stages {
		last = s(last)
	}
	go func() {
		for i := 0; ; i++ {
			first <- &chunk{seq: i, data: data[i : i+5000]}
		}
	}()
	taken = <-last

	from, to := io.Pipe()
	go func() {
		w := bufio.NewWriter(gzip.NewWriter(to))
		for i := 0; ; i++ {
			fmt.Fprintf(w, "line %d\n", i)
		}
	}()
	_, err := io.ReadFull(from, make([]byte, 10))
	check(err)
	truth.Point()
	fmt.Println(from, last)
}
