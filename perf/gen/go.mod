module goref.test/perf/gen

go 1.24

require goref.test/fixtures v0.0.0

replace goref.test/fixtures => ../../testdata/programs
