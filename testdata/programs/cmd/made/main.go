// Made has types that only reflect made, whose pointer masks are objects without pointers, up to the largest; and texts that nobody
// but their owner should see.
package main

import (
	"bytes"
	"reflect"
	"strconv"

	"goref.test/fixtures/truth"
)

// V is 48 bytes.
type V [5]uint64

// Made: of 8, 128 and 160 KiB, and a structure. The masks of the first two have 128 bytes and 2 KiB.
var made []interface{}

// Secrets: one large, many small.
var (
	secret  []byte
	secrets []string
)

func main() {
	pointer := reflect.TypeOf((*V)(nil))
	fields := []reflect.StructField{
		{Name: "N", Type: reflect.TypeOf(0)},
		{Name: "A", Type: reflect.ArrayOf(999, pointer)},
		{Name: "B", Type: reflect.TypeOf([7]int{})},
		{Name: "C", Type: reflect.ArrayOf(1001, pointer)},
	}
	types := []reflect.Type{reflect.StructOf(fields)}
	for _, n := range []int{1 << 10, 1 << 14, 20_000} {
		types = append(types, reflect.ArrayOf(n, pointer))
	}
	for _, t := range types {
		value := reflect.New(t)
		array := value.Elem()
		if array.Kind() == reflect.Struct {
			array = array.Field(3)
		}
		for _, i := range []int{0, array.Len() / 2, array.Len() - 1} {
			array.Index(i).Set(reflect.ValueOf(new(V)))
		}
		made = append(made, value.Interface())
	}
	secret = bytes.Repeat([]byte("SECRET-"), 100_000)
	for i := 0; i < 1000; i++ {
		secrets = append(secrets, "SECRET-"+strconv.Itoa(i))
	}
	truth.Point()
}
