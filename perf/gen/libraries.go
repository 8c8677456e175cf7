//go:build libraries

package main

import (
	"archive/zip"
	"crypto/tls"
	"database/sql"
	"debug/elf"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"go/build"
	"go/parser"
	"go/printer"
	"go/types"
	"html/template"
	"image/draw"
	"image/jpeg"
	"image/png"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httputil"
	"net/http/pprof"
	"net/mail"
	"net/rpc"
	"net/smtp"
	"os/exec"
	osuser "os/user"
	"testing"
	texttemplate "text/template"
)

// With the tag libraries the executable is as large as a server's: linked code is described, whether it runs or not. Templates
// call methods by name, so that the linker keeps every exported method of every type in use.
var libraries = []any{
	zip.NewReader, tls.Dial, sql.Open, elf.Open, gob.NewDecoder, json.NewDecoder, xml.NewDecoder, build.Import, parser.ParseFile,
	printer.Fprint, types.NewChecker, template.New, draw.Draw, jpeg.Encode, png.Encode, slog.New, multipart.NewReader,
	http.ListenAndServe, httputil.NewSingleHostReverseProxy, pprof.Index, mail.ReadMessage, rpc.NewServer, smtp.SendMail,
	exec.Command, osuser.Current, testing.Main, texttemplate.New, (*template.Template).Execute, (*texttemplate.Template).Execute,
	(*types.Config).Check, (*http.Server).ServeTLS, (*sql.DB).Query, (*json.Decoder).Decode, (*gob.Decoder).Decode,
}

// init reads the list: what is never read is not linked.
func init() {
	for _, f := range libraries {
		if f == nil {
			panic("a function without code")
		}
	}
}
